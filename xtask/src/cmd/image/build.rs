//! `cargo xtask image build`: the ELF on a disk that boots by itself.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use firn_lab::{Cache, Packages};

use crate::cmd::build;
use crate::progress::Progress;
use crate::{elf, workspace};

/// Builds the ELF and a disk that starts it by BIOS and by UEFI, through GRUB.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the disk's file looks like.
    #[arg(long, value_enum, default_value = "raw")]
    format: Format,
    /// The kernel's command line: `OPTIONS -- JOBS`.
    #[arg(long, value_name = "TEXT", default_value = "log=info")]
    cmdline: String,
    /// Where to write it; otherwise `firn.img`, `.vhd` or `.vhdx` in `target`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// The bytes of the disk.
    Raw,
    /// A fixed VHD, a whole number of MiB: for Azure and Hyper-V of generation 1.
    Vhd,
    /// A dynamic VHDX, for Hyper-V.
    Vhdx,
}

impl From<Format> for firn_media::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Raw => Self::Raw,
            Format::Vhd => Self::Vhd,
            Format::Vhdx => Self::Vhdx,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let format = firn_media::Format::from(args.format);
    if let Some((_, jobs)) = args.cmdline.split_once(" -- ") {
        firn_boot_tests::verify::parse(jobs)?;
    }
    let files = build::build()?;
    elf::check(&files.stripped, &files.debug)?;
    let progress = Progress::new();
    let tools = Packages::of_media(&Cache::open()?, &|step| progress.step(step))?;
    progress.step("writing the disk");
    let kernel =
        std::fs::read(&files.stripped).with_context(|| files.stripped.display().to_string())?;
    let disk = firn_media::disk(&tools, &kernel, &args.cmdline)?;
    let named = || {
        workspace::target()
            .join("firn")
            .with_extension(format.extension())
    };
    let out = args.out.clone().unwrap_or_else(named);
    firn_media::save(&tools, &disk, format, &out)?;
    progress.done();
    println!(
        "{}: a disk of {} MiB that boots by BIOS and by UEFI with `{}`",
        out.display(),
        disk.len() >> 20,
        args.cmdline
    );
    Ok(())
}
