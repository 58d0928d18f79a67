//! A disk file as the image crate sees disks.

mod file;
pub(crate) mod report;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context as Waiting, Poll, Waker};

use anyhow::{Context, Result, bail};
use firn_image::{Area, Key, Limits, Slots, Store};

pub(crate) use file::FileDisk;

/// Chunks that may be under way at a time.
const CHUNKS: usize = 4;

/// A store on a disk file.
pub(crate) struct ImageFile {
    store: Store<FileDisk>,
}

impl ImageFile {
    /// Opens a disk file; to be written only if asked for.
    pub(crate) fn open(path: &Path, write: bool) -> Result<Self> {
        let disk = FileDisk::open(path, write).with_context(|| path.display().to_string())?;
        let pages = Store::<FileDisk>::LOOK_SCRATCH + CHUNKS * (firn_image::CHUNK / 4096);
        let scratch = firn_peers::memory::take(pages);
        let store = Store::open(disk, scratch, Limits::default())?;
        Ok(Self { store })
    }

    /// Runs steps of the image crate to their end.
    pub(crate) fn run<T, E>(
        &mut self,
        work: impl AsyncFnOnce(&mut Store<FileDisk>) -> Result<T, E>,
    ) -> Result<T, E> {
        block_on(work(&mut self.store))
    }

    /// Size of the disk in sectors of 512 bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.store.device().capacity()
    }

    /// Finds the image's place on the disk, and reads the headers.
    pub(crate) fn look(&mut self) -> Result<(Area, Slots)> {
        let Some(area) = self.run(async |store| store.area().await)? else {
            bail!("the disk is too small, or its partition table has no image partition");
        };
        let slots = self.run(async |store| store.look(area).await)?;
        Ok((area, slots))
    }
}

/// A file is done with a request at once: nothing here ever waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Waiting::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

/// A key as 64 hexadecimal digits.
pub(crate) fn parse_key(text: &str) -> Result<Key, String> {
    let wrong = || "a key is 64 hexadecimal digits".to_owned();
    let digits: Option<Vec<u8>> = text.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|d| d.len() == 64).ok_or_else(wrong)?;
    let mut secret = [0; 32];
    for (byte, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(Key { secret })
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_image::{BuildId, Cpu, Damage, Error, Heap, How, Meta, Reason, Source, Verdict};
    use std::os::unix::fs::FileExt;

    #[test]
    fn keys_are_64_digits() {
        let key = parse_key(&"0a".repeat(32)).unwrap();
        assert_eq!(key.secret, [10; 32]);
        for wrong in ["", "0a", &"0g".repeat(32), &"0".repeat(65)] {
            assert!(parse_key(wrong).is_err(), "{wrong}");
        }
    }

    /// Freezes two chunks of memory onto a disk file.
    fn freeze(image: &mut ImageFile) {
        let memory = firn_peers::memory::take(512);
        memory.copy_in(5000, b"what a guest remembers");
        memory.copy_in(1 << 20, &[1; 4096]);
        let meta = Meta {
            build: BuildId::from_bytes(b"some build"),
            heap: Heap {
                address: 1 << 40,
                bytes: memory.len() as u64,
            },
            cpu: Cpu::default(),
            disks: Vec::new(),
            time: 0,
            reason: Reason::new("a test"),
        };
        let (area, slots) = image.look().unwrap();
        let source = Source {
            memory: &memory,
            free: &[],
        };
        let plan = image
            .store
            .plan(area, &slots, &source, &meta, How::default());
        let mut plan = plan.unwrap();
        image
            .run(async |store| {
                store.write_chunks(&mut plan, &source).await?;
                store.write_table(&mut plan).await?;
                store.flush().await?;
                store.commit(&mut plan).await.expect("a file");
                store.flush().await
            })
            .unwrap();
        firn_peers::memory::give_back(memory);
    }

    #[test]
    fn an_image_on_a_file_is_shown_and_verified() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        freeze(&mut ImageFile::open(file.path(), true).unwrap());

        let mut image = ImageFile::open(file.path(), false).unwrap();
        let (area, slots) = image.look().unwrap();
        assert!(matches!(slots.verdict(), Verdict::Valid(..)));
        let table = image.run(async |store| store.read_table(area, &slots, None).await);
        let table = table.unwrap();
        let mut report = report::Report::new("file".into(), area, &slots);
        report.add_table(&table);
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["verdict"], "valid");
        assert_eq!(json["image"]["pages"], 2);
        assert_eq!(json["image"]["generation"], 1);
        assert_eq!(json["table"]["stored_chunks"], 2);
        assert_eq!(json["slots"][1]["state"], "empty");
        let text = report.to_string();
        assert!(text.contains("2 pages in 2 chunks"), "{text}");

        assert!(image.run(async |store| store.verify(&table).await).is_ok());
        file.as_file()
            .write_all_at(b"?", 65_536 + 4096 + 4096)
            .unwrap();
        let wrong = image.run(async |store| store.verify(&table).await);
        let what = "its checksum is wrong";
        assert_eq!(wrong, Err(Error::Damaged(Damage::Chunk { index: 1, what })));
    }

    #[test]
    fn what_is_no_image_disk_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let verdict = || {
            let mut image = ImageFile::open(file.path(), false).unwrap();
            let (area, slots) = image.look().unwrap();
            report::Report::new("file".into(), area, &slots).verdict
        };
        assert_eq!(verdict(), "blank");
        file.as_file().write_all_at(b"root", 1024).unwrap();
        assert_eq!(verdict(), "foreign");
    }
}
