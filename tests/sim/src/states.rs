//! Every state that a power cut may leave of what the real code wrote.
//!
//! One life is recorded: every write and flush of a freeze, of the restore and
//! of the first records after it. At each point of that, every subset of the
//! writes that were not flushed may be what is left, and each of them may be
//! torn between any two sectors. From each such state a machine boots.

use crate::boot::{Boot, Hardware};
use crate::life::{DATA, IMAGE, Life};
use crate::script::Ask;
use crate::witness::{Event, Witness};
use crate::writer;
use firn_block::{DiskId, SECTOR};
use firn_peers::Disk;
use firn_power::{Boot as Booted, BootOptions};
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// So many cached writes are combined in every way; of more, only the first.
const COMBINED: usize = 12;
/// While one is torn, so many others are.
const TORN: usize = 6;
/// Pages of odd content in job memory, with holes between them.
const PAGES: usize = 5;
/// Passes after the restore: some dozens of writes.
const AFTER: u64 = 250;

/// What was looked at.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// Points of time.
    pub points: usize,
    /// States, no two the same at one point.
    pub states: usize,
    /// States from which the image went on.
    pub restored: usize,
    /// What was wrong, at which point.
    pub wrong: Vec<String>,
}

/// A write that is only cached.
type Cached = (DiskId, u64, Vec<u8>);

/// Records the life of `seed` and boots from every state.
///
/// # Panics
/// When the life itself does not come to its end.
#[must_use]
pub fn explore(seed: u64) -> Explored {
    let (life, events, hash) = record(seed);
    let mut explorer = Explorer {
        life: &life,
        hash,
        durable: vec![
            (DATA, Disk::new(writer::ROOM)),
            (IMAGE, Disk::new(life.hardware.disks[1].1.capacity())),
        ],
        cached: Vec::new(),
        acked: Vec::new(),
        promised: false,
        consuming: false,
        opened: 0,
        found: Explored::default(),
    };
    for event in events {
        let new = matches!(event, Event::Wrote { .. });
        explorer.step(event);
        explorer.cut(new);
    }
    explorer.found
}

fn record(seed: u64) -> (Life, Vec<Event>, u64) {
    let life = Life::new(false, false);
    life.hardware.witness.borrow_mut().events = Some(Vec::new());
    let boot = life.switch_on(seed);
    let boot = boot.unwrap_or_else(|| panic!("no first boot"));
    let ran = boot.run_for(200 + seed % 64);
    let scattered: Vec<_> = (0..2 * PAGES).map(|_| boot.arena.alloc_pages(1)).collect();
    for (number, page) in scattered.iter().flatten().enumerate() {
        match number % 2 {
            0 => page.copy_in(0, &seed.to_le_bytes()),
            _ => boot.arena.free(page),
        }
    }
    let frozen = life.freeze(&boot, Ask::FULL);
    assert!(ran.is_ok() && matches!(frozen, Ok(Ok(_))), "{frozen:?}");
    life.hardware.witness.borrow_mut().off();
    boot.end();
    let boot = Boot::start(&life.hardware, seed + 1);
    let restored = life.boot(&boot, BootOptions::default());
    assert!(matches!(restored, Ok(Booted::Restored(_))), "{restored:?}");
    let ran = boot.run_for(AFTER);
    boot.end();
    let mut witness = life.hardware.witness.borrow_mut();
    assert!(
        ran.is_ok() && witness.wrong.is_none(),
        "{:?}",
        witness.wrong
    );
    let events = witness.events.take().unwrap_or_default();
    let hash = witness.last_hash().unwrap_or_default();
    drop(witness);
    (life, events, hash)
}

struct Explorer<'a> {
    life: &'a Life,
    hash: u64,
    durable: Vec<(DiskId, Disk)>,
    cached: Vec<Cached>,
    acked: Vec<u64>,
    promised: bool,
    consuming: bool,
    opened: usize,
    found: Explored,
}

impl Explorer<'_> {
    fn step(&mut self, event: Event) {
        match event {
            Event::Wrote { disk, sector, data } => self.cached.push((disk, sector, data)),
            Event::Flushed(disk) => {
                for (_, sector, data) in self.cached.extract_if(.., |(on, ..)| *on == disk) {
                    apply(&self.durable, disk, sector, &data);
                }
            }
            Event::Acked(seq) => self.acked.push(seq),
            Event::Off => self.promised = true,
            Event::Consuming => self.consuming = true,
            Event::Opened => self.opened += 1,
        }
    }

    /// The power fails here, in every way; `new` if there is one more write.
    fn cut(&mut self, new: bool) {
        self.found.points += 1;
        let mut seen = HashSet::new();
        let combined = self.cached.len().min(COMBINED);
        for subset in 0..1_u32 << combined {
            let whole = |at: usize| subset & 1 << at != 0;
            self.look(&mut seen, |at, data| whole(at).then_some(0..data.len()));
        }
        if !new {
            return;
        }
        // Each write torn at each sector, from both ends, with every choice of
        // the others.
        for torn in 0..combined {
            let length = self.cached[torn].2.len();
            let others = (0..1_u32 << combined.min(TORN)).filter(|subset| subset & 1 << torn == 0);
            for (subset, at) in others.flat_map(|subset| {
                let places = (SECTOR as usize..length).step_by(SECTOR as usize);
                places.map(move |at| (subset, at))
            }) {
                for part in [0..at, at..length] {
                    self.look(&mut seen, |write, data| match write == torn {
                        true => Some(part.clone()),
                        false => (subset & 1 << write != 0).then_some(0..data.len()),
                    });
                }
            }
        }
    }

    /// Boots from one state: of each cached write, `arrived` says which bytes.
    fn look(
        &mut self,
        seen: &mut HashSet<u64>,
        arrived: impl Fn(usize, &[u8]) -> Option<std::ops::Range<usize>>,
    ) {
        let disks: Vec<_> = self.durable.iter().map(|(id, d)| (*id, d.fork())).collect();
        let mut key = DefaultHasher::new();
        for (at, (disk, sector, data)) in self.cached.iter().enumerate() {
            let part = arrived(at, data).filter(|part| !part.is_empty());
            (at, &part).hash(&mut key);
            if let Some(part) = part {
                let first = sector + (part.start / SECTOR as usize) as u64;
                apply(&disks, *disk, first, &data[part]);
            }
        }
        if !seen.insert(key.finish()) {
            return;
        }
        self.found.states += 1;
        if let Err(wrong) = self.boot(disks) {
            let point = self.found.points;
            self.found.wrong.push(format!("at point {point}: {wrong}"));
        }
    }

    fn boot(&mut self, disks: Vec<(DiskId, Disk)>) -> Result<(), String> {
        writer::check(&disks[0].1, self.acked.iter().rev().take(8).copied())?;
        let witness = Witness::of_image(self.hash, self.opened > 1);
        let hardware = Hardware {
            disks,
            witness: Rc::new(RefCell::new(witness)),
            ..self.life.hardware.clone()
        };
        let first = self.one_boot(&hardware)?;
        match first {
            Booted::Restored(_) => self.found.restored += 1,
            Booted::Cold(_) if self.promised && !self.consuming => {
                return Err("a promised image was lost".into());
            }
            Booted::Cold(_) => {}
            Booted::Refused(refused) => return Err(refused.trouble.to_string()),
        }
        // Whatever went on: nothing goes on a second time.
        match self.one_boot(&hardware)? {
            Booted::Cold(_) => Ok(()),
            other => Err(format!("the second boot: {other:?}")),
        }
    }

    fn one_boot(&self, hardware: &Hardware) -> Result<Booted, String> {
        let boot = Boot::start(hardware, 5);
        let booted = self.life.boot(&boot, BootOptions::default());
        boot.end();
        for (_, disk) in &hardware.disks {
            disk.crash();
        }
        let wrong = hardware.witness.borrow().wrong.clone();
        match (wrong, booted) {
            (Some(wrong), _) => Err(wrong.to_string()),
            (None, Ok(booted)) => Ok(booted),
            (None, Err(cut)) => Err(format!("{cut:?}")),
        }
    }
}

fn apply(disks: &[(DiskId, Disk)], disk: DiskId, sector: u64, data: &[u8]) {
    for (_, on) in disks.iter().filter(|(id, _)| *id == disk) {
        on.set_content(sector, data);
    }
}
