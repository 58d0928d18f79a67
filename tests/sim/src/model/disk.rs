//! The image disk in the model: two header slots, a body, a cache.

/// What a header slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Slot {
    /// Zeros, or something whose checksum is wrong.
    Nothing,
    /// A header.
    Header(Header),
}

/// A header: which image, and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Header {
    pub(super) generation: u8,
    /// Which freeze wrote the body that the checksums in here fit.
    pub(super) freeze: u8,
    pub(super) state: Mark,
}

/// Later marks beat earlier ones of the same generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Mark {
    Valid,
    /// Consumed, abandoned, void: never to be restored.
    Spent,
}

/// One write that the disk may still lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Write {
    Chunks(u8),
    Table(u8),
    Slot(usize, Slot),
}

/// The image disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Disk {
    pub(super) slots: [Slot; 2],
    /// Which freeze wrote the chunks and the table that are there.
    pub(super) chunks: u8,
    pub(super) table: u8,
    /// Not yet durable, in the order of writing.
    pub(super) cache: Vec<Write>,
}

impl Disk {
    pub(super) const fn blank() -> Self {
        Self {
            slots: [Slot::Nothing; 2],
            chunks: 0,
            table: 0,
            cache: Vec::new(),
        }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Chunks(freeze) => self.chunks = freeze,
            Write::Table(freeze) => self.table = freeze,
            Write::Slot(at, slot) => self.slots[at] = slot,
        }
    }

    /// As the guest reads it, cache included.
    pub(super) fn seen(&self) -> Self {
        let mut seen = self.clone();
        seen.flush();
        seen
    }

    pub(super) fn flush(&mut self) {
        for write in std::mem::take(&mut self.cache) {
            self.apply(write);
        }
    }

    /// Every disk that may be left after the power failed: each cached write
    /// arrived, or did not. A header is one sector, so it does not tear.
    pub(super) fn after_power_cut(&self) -> Vec<Self> {
        let mut left = vec![Self {
            cache: Vec::new(),
            ..self.clone()
        }];
        for write in &self.cache {
            for at in 0..left.len() {
                let mut arrived = left[at].clone();
                arrived.apply(*write);
                left.push(arrived);
            }
        }
        left.sort();
        left.dedup();
        left
    }

    /// The newest header and its slot.
    pub(super) fn newest(&self) -> Option<(usize, Header)> {
        let headers = self.slots.iter().enumerate();
        headers
            .filter_map(|(at, slot)| match slot {
                Slot::Header(header) => Some((at, *header)),
                Slot::Nothing => None,
            })
            .max_by_key(|(_, header)| (header.generation, header.state))
    }
}
