//! The chunks of an image file, as docs/image-format.md says where they are.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use firn_boot_tests::campaign::image_state;

const SLOT: u64 = 4096;
const TABLE: u64 = 65536;
const ENTRY: u64 = 64;

fn word(file: &File, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A chunk of an image.
struct Chunk {
    place: u64,
    bytes: Vec<u8>,
}

fn chunks(path: &Path) -> Result<Vec<Chunk>> {
    let (header, _) = image_state(path)?.context("no image")?;
    let file = File::open(path)?;
    let data = match word(&file, 16)? == header.generation.0 {
        true => word(&file, 224)?,
        false => word(&file, SLOT + 224)?,
    };
    let chunk = |index| {
        let entry = TABLE + ENTRY * (u64::from(header.disks) + index);
        let place = data + word(&file, entry + 16)?;
        let length = word(&file, entry + 24)? & u64::from(u32::MAX);
        let mut bytes = vec![0; length.try_into()?];
        file.read_exact_at(&mut bytes, place)?;
        Ok(Chunk { place, bytes })
    };
    (0..u64::from(header.chunks)).map(chunk).collect()
}

/// Puts what an older image had as a chunk in the place of that chunk. Returns
/// its number.
pub(super) fn put_older(older: &Path, newer: &Path) -> Result<usize> {
    let (old, new) = (chunks(older)?, chunks(newer)?);
    let mut both = old.iter().zip(&new);
    let fits =
        |(old, new): (&Chunk, &Chunk)| old.bytes.len() == new.bytes.len() && old.bytes != new.bytes;
    let index = both.position(fits);
    let index = index.context("every chunk is the same, or of another size")?;
    let file = OpenOptions::new().write(true).open(newer)?;
    file.write_all_at(&old[index].bytes, new[index].place)?;
    Ok(index)
}
