//! What is known of an image, for people and for programs.

use std::fmt;

use firn_image::{
    Area, BuildId, DiskIdentity, Header, SavedDisk, Slot, SlotId, Slots, Table, Verdict,
};
use serde::Serialize;

/// A disk file and the image on it.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) file: String,
    pub(crate) sectors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    pub(crate) slots: Vec<SlotReport>,
    /// `blank`, `foreign`, `version`, `damaged`, `ended` or `valid`.
    pub(crate) verdict: &'static str,
    /// The verdict in words.
    pub(crate) means: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<ImageReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<TableReport>,
}

#[derive(Serialize)]
pub(crate) struct SlotReport {
    slot: String,
    /// `blank`, `foreign`, `version`, `damaged`, or the state of a header.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
}

#[derive(Serialize)]
pub(crate) struct ImageReport {
    generation: u64,
    state: String,
    build: String,
    heap_address: u64,
    heap_bytes: u64,
    cpu: [u64; 4],
    /// Nanoseconds since 1970.
    time: u64,
    reason: String,
    chunks: u32,
    disks: u32,
    pages: u64,
    stored_bytes: u64,
    /// Stored bytes per byte of memory.
    ratio: f64,
    sealed: bool,
}

#[derive(Serialize)]
pub(crate) struct TableReport {
    stored_chunks: usize,
    compressed_chunks: usize,
    /// Stored bytes per byte of the pages that are stored.
    ratio: f64,
    disks: Vec<DiskReport>,
}

#[derive(Serialize)]
struct DiskReport {
    disk: String,
    sectors: u64,
    logical_block: u32,
    read_only: bool,
    identity: String,
}

impl Report {
    pub(crate) fn new(file: String, area: Area, slots: &Slots) -> Self {
        let (verdict, means, image) = judge(slots);
        Self {
            file,
            sectors: area.sectors,
            partition: area.partition,
            slots: SlotId::ALL.map(|id| slot(id, slots.get(id))).into(),
            verdict,
            means,
            image,
            table: None,
        }
    }

    pub(crate) fn add_table(&mut self, table: &Table) {
        self.table = Some(TableReport::new(table));
    }
}

fn judge(slots: &Slots) -> (&'static str, String, Option<ImageReport>) {
    match slots.verdict() {
        Verdict::Blank => ("blank", "nothing was ever written here".into(), None),
        Verdict::Foreign => ("foreign", "this is no image disk".into(), None),
        Verdict::Version(version) => ("version", format!("format {version}, not ours"), None),
        Verdict::Damaged(damage) => ("damaged", damage.to_string(), None),
        Verdict::Ended(header, _) if header.chunks == 0 => {
            let means = format!("no image; generation {}", header.generation);
            ("ended", means, None)
        }
        Verdict::Ended(header, _) => {
            let means = format!("image {} is {}", header.generation, header.state);
            ("ended", means, Some(ImageReport::new(&header)))
        }
        Verdict::Valid(header, slot) => {
            let means = format!("image {} in slot {slot} may be restored", header.generation);
            ("valid", means, Some(ImageReport::new(&header)))
        }
    }
}

fn slot(id: SlotId, slot: &Slot) -> SlotReport {
    let mut report = SlotReport {
        slot: id.to_string(),
        state: String::new(),
        generation: None,
        what: None,
    };
    report.state = match slot {
        Slot::Blank => "blank".into(),
        Slot::Foreign => "foreign".into(),
        Slot::Version(version) => format!("version {version}"),
        Slot::Damaged(what) => {
            report.what = Some(what);
            "damaged".into()
        }
        Slot::Header(header) => {
            report.generation = Some(header.generation.0);
            header.state.to_string()
        }
    };
    report
}

/// A build id as the ELF's note has it: of 20 bytes, without the zeros behind.
fn build(id: &BuildId) -> String {
    id.to_string()
}

impl ImageReport {
    fn new(header: &Header) -> Self {
        Self {
            generation: header.generation.0,
            state: header.state.to_string(),
            build: build(&header.build),
            heap_address: header.heap.address,
            heap_bytes: header.heap.bytes,
            cpu: header.cpu.0,
            time: header.time,
            reason: header.reason.as_str().to_owned(),
            chunks: header.chunks,
            disks: header.disks,
            pages: header.pages,
            stored_bytes: header.stored,
            ratio: ratio(header.stored, header.heap.bytes),
            sealed: header.sealed,
        }
    }
}

impl TableReport {
    fn new(table: &Table) -> Self {
        let header = table.header();
        Self {
            stored_chunks: table.chunks().count(),
            compressed_chunks: table.chunks().filter(|(.., lz4)| *lz4).count(),
            ratio: ratio(header.stored, header.pages * 4096),
            disks: table.disks().iter().map(disk).collect(),
        }
    }
}

fn disk(disk: &SavedDisk) -> DiskReport {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    DiskReport {
        disk: disk.id.to_string(),
        sectors: disk.capacity,
        logical_block: disk.logical_block,
        read_only: disk.read_only,
        identity: match disk.identity {
            DiskIdentity::Guid(guid) => format!("guid {}", hex(&guid)),
            DiskIdentity::Print(print) => format!("print {print:016x}"),
        },
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} sectors", self.file, self.sectors)?;
        match self.partition {
            Some(number) => writeln!(f, " in partition {number}")?,
            None => writeln!(f)?,
        }
        for slot in &self.slots {
            write!(f, "  slot {}: {}", slot.slot, slot.state)?;
            if let Some(generation) = slot.generation {
                write!(f, ", generation {generation}")?;
            }
            match slot.what {
                Some(what) => writeln!(f, ": {what}")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "  {}", self.means)?;
        if let Some(image) = &self.image {
            image.fmt(f)?;
        }
        if let Some(table) = &self.table {
            table.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for ImageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "  build    {}", self.build)?;
        writeln!(
            f,
            "  memory   {:.1} MiB at {:#x}",
            mib(self.heap_bytes),
            self.heap_address
        )?;
        let [a, b, c, d] = self.cpu;
        writeln!(f, "  cpu      {a:x} {b:x} {c:x} {d:x}")?;
        let seconds = self.time / 1_000_000_000;
        writeln!(f, "  frozen   {seconds} s after 1970: {:?}", self.reason)?;
        writeln!(
            f,
            "  stored   {} pages in {} chunks, {:.1} MiB, {:.1} % of the memory{}",
            self.pages,
            self.chunks,
            mib(self.stored_bytes),
            self.ratio * 100.0,
            if self.sealed { ", sealed" } else { "" }
        )
    }
}

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  table    {} chunks stored, {} compressed, {:.1} % of their pages' size",
            self.stored_chunks,
            self.compressed_chunks,
            self.ratio * 100.0
        )?;
        for disk in &self.disks {
            let access = if disk.read_only { ", read-only" } else { "" };
            writeln!(
                f,
                "  disk     {}: {} sectors, blocks of {} bytes{access}, {}",
                disk.disk, disk.sectors, disk.logical_block, disk.identity
            )?;
        }
        Ok(())
    }
}
