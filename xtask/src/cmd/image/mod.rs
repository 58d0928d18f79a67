//! `cargo xtask image`: the ELF packed for a host, and freeze images on disk
//! files.

mod build;
mod check;
mod format;
mod show;
mod xl;

use anyhow::Result;
use clap::Subcommand;

/// Packs the ELF for a host of one's own, or looks at freeze images.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Build(build::Args),
    Xl(xl::Args),
    Inspect(show::Args),
    Verify(check::VerifyArgs),
    RestoreCheck(check::RestoreArgs),
    Format(format::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Build(args) => build::run(args),
        What::Xl(args) => xl::run(args),
        What::Inspect(args) => show::run(args),
        What::Verify(args) => check::verify(args),
        What::RestoreCheck(args) => check::restore(args),
        What::Format(args) => format::run(args),
    }
}
