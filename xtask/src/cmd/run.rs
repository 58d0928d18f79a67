//! `cargo xtask run`: the ELF on real Xen, with a real disk.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use firn_boot_tests::disks::{self, DiskArg, vdev};
use firn_boot_tests::{Watched, judge, verify};
use firn_lab::{Cache, DiskSpec, Guest, GuestDisk, GuestSpec, Host, Images, Lab, LabConfig};

use crate::progress::Progress;
use crate::{cmd, demo, elf, terminal};

/// What runs unless `--job` says otherwise.
const JOB: &str = "disks; verify disk=xvda size=64M seed=1; poweroff";
/// The same with a pause for the host between writing and reading back.
const HOLD_JOB: &str = "disks; verify disk=xvda size=64M seed=1 hold=yes; poweroff";

/// Boots the ELF and runs a job on a disk file; checks the file afterwards.
///
/// Prepares everything by itself: the ELF, the lab's packages and images, a
/// fresh disk file. Exits with 0 only if every job and the host's own check of
/// the disk file succeed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A disk file, or the size of a fresh disk such as 256M (repeatable).
    #[arg(long, value_name = "FILE|SIZE", default_value = "256M")]
    disk: Vec<DiskArg>,
    /// What to run, as `help` in the guest's shell explains it.
    #[arg(long, value_name = "JOBS")]
    job: Option<String>,
    /// Give the guest's shell to this terminal instead of running a job.
    #[arg(long, conflicts_with_all = ["job", "flip_byte"])]
    shell: bool,
    /// The guest's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    mem: u32,
    /// The guest's log level.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
    /// Which host to boot on.
    #[arg(long, value_enum, default_value = "xen")]
    on: On,
    /// Invert this byte of the first disk's file between write and read-back.
    #[arg(long, value_name = "OFFSET")]
    flip_byte: Option<u64>,
    /// Show something instead of running a job, with disks of its own.
    #[arg(long, value_enum, conflicts_with_all = ["job", "shell", "flip_byte", "disk", "mem", "on"])]
    demo: Option<Demo>,
    /// How much memory the demonstration fills, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, requires = "demo",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    fill: u32,
    /// How often the demonstration freezes its guest.
    #[arg(long, value_name = "COUNT", default_value_t = 3, requires = "demo",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The demonstration's outcome as one line of JSON.
    #[arg(long, requires = "demo")]
    json: bool,
    /// Seconds that the job may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

/// What there is to see.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Demo {
    /// A guest is frozen to a disk, switched off, and goes on in a fresh boot.
    Freeze,
}

/// The hosts.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// Real Xen, driven with `xl`.
    Xen,
    /// QEMU's own Xen emulation on KVM.
    QemuXen,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Demo::Freeze) = args.demo {
        return demo::freeze(&demo::Options {
            fill: args.fill,
            rounds: args.rounds,
            json: args.json,
            deadline: Duration::from_secs(args.timeout),
        });
    }
    let line = args.line();
    let jobs = verify::parse(line)?;
    let elf = cmd::build::build()?;
    elf::check(&elf.stripped, &elf.debug)?;
    let progress = Progress::new();
    let images = cmd::lab::prepare(&progress)?;
    let folder = Cache::open()?.run_folder()?;
    let files = disks::files(&args.disk, &folder)?;
    let lab = boot(args, &images, &files, &progress)?;
    progress.step("creating the guest");
    let guest = lab.guest(&spec(args, elf.stripped, &files))?;
    progress.done();
    if args.shell {
        return shell(&guest);
    }
    let deadline = Duration::from_secs(args.timeout);
    let watched = Watched::new(&lab, guest);
    if let Some(offset) = args.flip_byte {
        watched.flip(&files[0], offset, deadline)?;
    }
    let results = watched.finish(deadline)?;
    judge(&results)?;
    for job in verify::lasting(&jobs) {
        let file = file_of(&files, &job.disk.to_string())?;
        println!("host: {}", verify::check_disk_file(file, job)?);
    }
    Ok(())
}

impl Args {
    /// The job line.
    fn line(&self) -> &str {
        let default = if self.flip_byte.is_some() {
            HOLD_JOB
        } else {
            JOB
        };
        match (&self.job, self.shell) {
            (_, true) => "",
            (Some(job), false) => job,
            (None, false) => default,
        }
    }
}

fn boot(args: &Args, images: &Images, files: &[PathBuf], progress: &Progress) -> Result<Lab> {
    let host = match args.on {
        On::Xen => Host::Xen,
        On::QemuXen => Host::Kvm,
    };
    let mut config = LabConfig::new(host);
    for (number, file) in files.iter().enumerate() {
        config = config.with_disk(DiskSpec::new(&vdev(number), file));
    }
    let lab = match args.on {
        On::Xen => emulated(images, &config, progress)?,
        On::QemuXen => Lab::here(images, &config).or_else(|why| {
            println!("host: emulating a KVM host, as this machine's own does not do: {why:#}");
            emulated(images, &config, progress)
        })?,
    };
    println!("host: {}", lab.describe()?);
    Ok(lab)
}

fn emulated(images: &Images, config: &LabConfig, progress: &Progress) -> Result<Lab> {
    let lab = Lab::boot(images, config, &|step| progress.step(step))?;
    progress.done();
    Ok(lab)
}

fn spec(args: &Args, elf: PathBuf, files: &[PathBuf]) -> GuestSpec {
    let mut cmdline = format!("log={}", args.log);
    if !args.shell {
        cmdline += &format!(" -- {}", args.line());
    }
    let mut spec = GuestSpec::new("firn", elf)
        .with_cmdline(&cmdline)
        .with_memory(args.mem);
    for number in 0..files.len() {
        let vdev = vdev(number);
        spec = spec.with_disk(GuestDisk::new(&vdev, &vdev));
    }
    spec
}

fn shell(guest: &Guest) -> Result<()> {
    println!("host: Ctrl-] ends the session (and the guest)");
    guest.stream_to(Box::new(terminal::show));
    terminal::pass_keys(|keys| guest.send(keys))
}

/// The file behind the guest's disk.
fn file_of<'a>(files: &'a [PathBuf], disk: &str) -> Result<&'a PathBuf> {
    let found = (0..files.len()).find(|n| vdev(*n) == disk);
    match found {
        Some(number) => Ok(&files[number]),
        None => bail!("the job verified {disk}, which the guest was not given"),
    }
}
