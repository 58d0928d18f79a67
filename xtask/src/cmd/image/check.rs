//! `cargo xtask image verify` and `restore-check`: what a restore would say.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use firn_block::DiskId;
use firn_image::{
    Area, BuildId, Cpu, Damage, Error, Heap, Key, Machine, PresentDisk, Refusal, SavedDisk, Slots,
    Table, Verdict, bind, check,
};
use firn_kernel::bootinfo::{MemoryEntry, MemoryKind};
use firn_kernel::mm::{JOB_WINDOW, Plan};
use object::{Object, ObjectSegment};
use serde_json::json;

use crate::imagefile::{ImageFile, parse_key};
use crate::workspace;

/// Reads a whole image and verifies every checksum.
#[derive(clap::Args)]
pub(crate) struct VerifyArgs {
    /// The disk file or block device.
    file: PathBuf,
    /// The image's key, if it is sealed: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    key: Option<Key>,
    /// One JSON object instead of a line.
    #[arg(long)]
    json: bool,
}

/// Tells what a restore would say on a given machine; changes nothing.
#[derive(clap::Args)]
pub(crate) struct RestoreArgs {
    /// The disk file or block device.
    file: PathBuf,
    /// The guest's memory in MiB.
    #[arg(long, value_name = "MIB")]
    mem: u64,
    /// The ELF that would boot; without it, the one that was built last.
    #[arg(long, value_name = "FILE")]
    elf: Option<PathBuf>,
    /// A data disk of the guest, such as `xvda=disk.img` (repeatable). Without
    /// any, disks are not compared.
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_disk)]
    disk: Vec<(DiskId, PathBuf)>,
    /// The key that the guest would be given: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = parse_key)]
    key: Option<Key>,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

fn parse_disk(text: &str) -> Result<(DiskId, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE")?;
    let id = name.parse();
    let id = id.map_err(|_| format!("{name} is no disk's name, such as xvda"))?;
    Ok((id, path.into()))
}

/// An image that would not be restored.
struct No(Refusal);

pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let mut image = ImageFile::open(&args.file, false)?;
    let (area, slots) = image.look()?;
    let outcome = match header(&slots)? {
        Err(refusal) => Err(refusal),
        Ok(header) => match (header.sealed, &args.key) {
            (true, None) => Err(No(Refusal::NoKey)),
            (false, Some(_)) => Err(No(Refusal::NotSealed)),
            _ => read(&mut image, area, &slots, args.key.as_ref())?,
        },
    };
    tell(&args.file, args.json, outcome)
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<()> {
    let mut image = ImageFile::open(&args.file, false)?;
    let (area, slots) = image.look()?;
    let machine = machine(args)?;
    let outcome = match header(&slots)? {
        Err(refusal) => Err(refusal),
        Ok(header) => match check(&header, area, &with_cpu(machine, header.cpu)) {
            Err(refusal) => Err(No(refusal)),
            Ok(()) => read(&mut image, area, &slots, args.key.as_ref())?,
        },
    };
    let outcome = match outcome {
        Ok(table) if !args.disk.is_empty() => {
            let present = present(&args.disk, table.disks())?;
            match bind(table.disks(), &present) {
                Ok(_) => Ok(table),
                Err(error) => Err(No(Refusal::Disk(error))),
            }
        }
        other => other,
    };
    tell(&args.file, args.json, outcome)
}

/// The CPU is whatever the image asks for: no file tells what the host's is.
const fn with_cpu(machine: Machine, cpu: Cpu) -> Machine {
    Machine { cpu, ..machine }
}

/// The header of the image that a restore would take.
fn header(slots: &Slots) -> Result<Result<firn_image::Header, No>> {
    match slots.verdict() {
        Verdict::Valid(header, _) => Ok(Ok(header)),
        Verdict::Damaged(damage) => Ok(Err(No(Refusal::Damaged(damage)))),
        Verdict::Ended(header, _) => bail!(
            "there is no image to restore: {} is {}",
            header.generation,
            header.state
        ),
        Verdict::Blank | Verdict::Foreign => bail!("this is no image disk"),
        Verdict::Version(version) => bail!("the image has format {version}, not ours"),
    }
}

/// Reads and verifies everything.
fn read(
    image: &mut ImageFile,
    area: Area,
    slots: &Slots,
    key: Option<&Key>,
) -> Result<Result<Table, No>> {
    let read = image.run(async |store| {
        let table = store.read_table(area, slots, key).await?;
        store.verify(&table).await?;
        Ok::<_, Error>(table)
    });
    match read {
        Ok(table) => Ok(Ok(table)),
        Err(Error::Damaged(damage)) => Ok(Err(No(Refusal::Damaged(damage)))),
        // The file ends before the image does.
        Err(Error::Refused { .. }) => {
            let damage = Damage::Table("the file ends before the image does");
            Ok(Err(No(Refusal::Damaged(damage))))
        }
        Err(error) => Err(error.into()),
    }
}

fn tell(file: &Path, json: bool, outcome: Result<Table, No>) -> Result<()> {
    let shown = file.display();
    match outcome {
        Ok(table) => {
            let header = table.header();
            let generation = header.generation.0;
            if json {
                let bytes = header.stored;
                println!(
                    "{}",
                    json!({"ok": true, "generation": generation, "bytes": bytes})
                );
            } else {
                println!(
                    "{shown}: image {generation} is whole, {} chunks verified",
                    table.chunks().count()
                );
            }
            Ok(())
        }
        Err(No(refusal)) => {
            let (why, hint) = (refusal.word(), refusal.hint());
            if json {
                let what = refusal.to_string();
                println!(
                    "{}",
                    json!({"ok": false, "why": why, "what": what, "hint": hint})
                );
            }
            bail!("{shown}: refused: {refusal}; {hint}")
        }
    }
}

/// What the guest would have, by the kernel's own rules.
fn machine(args: &RestoreArgs) -> Result<Machine> {
    let built = || workspace::target().join("firn.elf");
    let path = args.elf.clone().unwrap_or_else(built);
    let shown = path.display();
    let bytes = std::fs::read(&path)
        .with_context(|| format!("{shown}: `cargo xtask build` makes one, or say --elf"))?;
    let elf = object::File::parse(&*bytes).with_context(|| shown.to_string())?;
    let build = elf.build_id()?.context("the ELF has no build id")?;
    let bytes = args
        .mem
        .checked_mul(1 << 20)
        .context("--mem is too large")?;
    let ram = MemoryEntry {
        start: 0,
        size: bytes,
        kind: MemoryKind::Ram,
    };
    let plan = Plan::new(&[ram], &[], loaded_at(&elf));
    let plan = plan.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Machine {
        build: BuildId::from_bytes(build),
        heap: Heap {
            address: JOB_WINDOW,
            bytes: plan.job.end - plan.job.start,
        },
        cpu: Cpu::default(),
        has_key: args.key.is_some(),
    })
}

/// Where the ELF lies in memory: from 1 MiB on, as long as its segments are.
fn loaded_at(elf: &object::File<'_>) -> std::ops::Range<u64> {
    let bytes: u64 = elf
        .segments()
        .map(|s| s.size().next_multiple_of(4096))
        .sum();
    (1 << 20)..(1 << 20) + bytes
}

/// The guest's data disks, as a restore would know them.
fn present(disks: &[(DiskId, PathBuf)], saved: &[SavedDisk]) -> Result<Vec<PresentDisk>> {
    let one = |(id, path): &(DiskId, PathBuf)| {
        let mut file = ImageFile::open(path, false)?;
        let capacity = file.capacity();
        let guid = file.run(async |store| store.disk_guid().await)?;
        let mut prints = Vec::new();
        for disk in saved {
            let fits = disk.capacity <= capacity;
            let print = file.run(async |store| store.fingerprint(disk.capacity).await);
            prints.push(if fits { Some(print?) } else { None });
        }
        Ok(PresentDisk {
            id: *id,
            capacity,
            logical_block: 512,
            read_only: false,
            guid,
            prints,
        })
    };
    disks.iter().map(one).collect()
}
