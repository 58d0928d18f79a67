//! `cargo xtask image format`: a disk file made ready for freezes.

use std::fs::OpenOptions;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use firn_image::Verdict;

use crate::imagefile::ImageFile;

/// Makes a file an empty image disk.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The disk file; made if it does not exist.
    file: PathBuf,
    /// Its size in MiB, if it is to be made or to grow.
    #[arg(long, value_name = "MIB")]
    size: Option<u64>,
    /// Even if something else is on it, or an image that may be restored.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let shown = args.file.display();
    if let Some(mib) = args.size {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true);
        let file = file.open(&args.file).with_context(|| shown.to_string())?;
        let bytes = mib.checked_mul(1 << 20).context("--size is too large")?;
        let is = file.metadata()?.len();
        ensure!(bytes >= is, "{shown} is larger: it has {is} bytes");
        file.set_len(bytes)?;
    }
    let mut image = ImageFile::open(&args.file, true)?;
    let (area, slots) = image.look()?;
    match slots.verdict() {
        Verdict::Blank | Verdict::Ended(..) => {}
        _ if args.force => {}
        Verdict::Valid(header, _) => bail!(
            "{shown} holds image {}, which may still be restored; --force gives it up",
            header.generation
        ),
        Verdict::Foreign => bail!("{shown} holds something else; --force overwrites it"),
        Verdict::Damaged(damage) => bail!("{shown} is damaged ({damage}); --force overwrites it"),
        Verdict::Version(version) => {
            bail!("{shown} holds an image of format {version}; --force overwrites it")
        }
    }
    image.run(async |store| store.format(area).await)?;
    let mib = area.sectors >> 11;
    println!("{shown}: an empty image disk of {mib} MiB");
    Ok(())
}
