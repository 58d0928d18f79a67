//! `cargo xtask image inspect`: what is on an image disk.

use std::path::PathBuf;

use anyhow::Result;
use firn_image::{Key, Verdict};

use crate::imagefile::report::Report;
use crate::imagefile::{ImageFile, parse_key};

/// Shows what is on an image disk: slots, generations, chunks, disks.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The disk file or block device.
    file: PathBuf,
    /// The image's key, if it is sealed: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    key: Option<Key>,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut image = ImageFile::open(&args.file, false)?;
    let (area, slots) = image.look()?;
    let mut report = Report::new(args.file.display().to_string(), area, &slots);
    if let Verdict::Valid(header, _) = slots.verdict()
        && header.sealed == args.key.is_some()
    {
        let key = args.key.as_ref();
        match image.run(async |store| store.read_table(area, &slots, key).await) {
            Ok(table) => report.add_table(&table),
            Err(error) => report.means += &format!("; but {error}"),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
