//! `cargo xtask run`: the ELF on real Xen or on a Hyper-V host, with a real disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use firn_boot_tests::disks::{self, DiskArg, vdev};
use firn_boot_tests::{Watched, judge, verify};
use firn_lab::{Cache, DiskSpec, Guest, GuestDisk, GuestSpec, Host, Images, Lab, LabConfig};

use crate::progress::Progress;
use crate::{cmd, demo, elf, terminal};

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
    /// openvmm's program, for `--on openvmm` [default: what FIRN_OPENVMM names]
    #[arg(long, value_name = "FILE")]
    openvmm: Option<PathBuf>,
    /// Invert this byte of the first disk's file between write and read-back.
    #[arg(long, value_name = "OFFSET")]
    flip_byte: Option<u64>,
    /// Show something instead of running a job, with disks of its own.
    #[arg(long, value_enum, conflicts_with_all = ["job", "shell", "flip_byte", "disk", "mem"])]
    demo: Option<Demo>,
    /// How much memory the demonstration fills, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, requires = "demo",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    fill: u32,
    /// How often the demonstration freezes its guest [default: 3, small memories up
    /// to 8 times; there and back]
    #[arg(long, value_name = "COUNT", requires = "demo",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
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
    /// The same from Xen to Hyper-V and back (or the other way round, `--on hyperv`).
    Cross,
}

/// The hosts.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// Real Xen, driven with `xl`.
    Xen,
    /// QEMU's own Xen emulation on KVM.
    QemuXen,
    /// Our own Hyper-V host on KVM.
    Hyperv,
    /// Microsoft's openvmm on this machine's KVM; its program is not ours to bring.
    Openvmm,
}

impl On {
    /// The hosts that a demonstration visits in turn.
    fn hosts(self, demo: Demo) -> Result<Vec<Host>> {
        match (demo, self) {
            (Demo::Freeze, Self::Xen | Self::Hyperv) => Ok(vec![self.host()]),
            (Demo::Cross, Self::Xen) => Ok(vec![Host::Xen, Host::HyperV]),
            (Demo::Cross, Self::Hyperv) => Ok(vec![Host::HyperV, Host::Xen]),
            (_, Self::QemuXen) => bail!("QEMU's Xen has no demonstration; `--on xen` has"),
            (_, Self::Openvmm) => bail!("openvmm has no demonstration; `--on hyperv` has"),
        }
    }

    fn host(self) -> Host {
        match self {
            Self::Xen => Host::Xen,
            Self::QemuXen => Host::Kvm,
            Self::Hyperv => Host::HyperV,
            Self::Openvmm => Host::OpenVmm,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(which) = args.demo {
        return demo::show(&demo::Options {
            hosts: args.on.hosts(which)?,
            fill: args.fill,
            rounds: args.rounds(which),
            json: args.json,
            deadline: Duration::from_secs(args.timeout),
        });
    }
    let line = args.line();
    let jobs = verify::parse(&line)?;
    let openvmm = args.openvmm()?;
    let elf = cmd::build::build()?;
    elf::check(&elf.stripped, &elf.debug)?;
    let progress = Progress::new();
    let folder = Cache::open()?.run_folder()?;
    let files = disks::files(&args.disk, &folder)?;
    let mut config = LabConfig::new(args.on.host());
    for (number, file) in files.iter().enumerate() {
        config = config.with_disk(DiskSpec::new(&format!("d{number}"), file));
    }
    let lab = match openvmm {
        Some(program) => Lab::openvmm(&program, Path::new("/dev/kvm"), &config)?,
        None => boot(&cmd::lab::prepare(&progress)?, &config, &progress)?,
    };
    println!("host: {}", lab.describe()?);
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
        let file = file_of(args.on.host(), &files, &job.disk.to_string())?;
        println!("host: {}", verify::check_disk_file(file, job)?);
    }
    Ok(())
}

impl Args {
    fn rounds(&self, demo: Demo) -> u32 {
        self.rounds.unwrap_or(match demo {
            // What is over in a twentieth of a second is measured more often.
            Demo::Freeze => (256 / self.fill).clamp(3, 8),
            Demo::Cross => 2,
        })
    }

    /// Where openvmm is, if it is the host.
    fn openvmm(&self) -> Result<Option<PathBuf>> {
        if self.on != On::Openvmm {
            return Ok(None);
        }
        let named = || std::env::var_os("FIRN_OPENVMM").map(PathBuf::from);
        let program = self.openvmm.clone().or_else(named);
        program.map(Some).context(
            "openvmm is not part of this project: say where its program is, \
             with --openvmm FILE or in FIRN_OPENVMM",
        )
    }

    /// The job line: unless told otherwise, the first disk is written and read
    /// back, with a pause for whoever flips a byte between.
    fn line(&self) -> String {
        let disk = vdev(self.on.host(), 0);
        let hold = if self.flip_byte.is_some() {
            " hold=yes"
        } else {
            ""
        };
        match (&self.job, self.shell) {
            (_, true) => String::new(),
            (Some(job), false) => job.clone(),
            (None, false) => {
                format!("disks; verify disk={disk} size=64M seed=1{hold}; poweroff")
            }
        }
    }
}

/// Boots a lab; on this very machine, where its KVM does.
pub(crate) fn boot(images: &Images, config: &LabConfig, progress: &Progress) -> Result<Lab> {
    if config.host == Host::Xen {
        return emulated(images, config, progress);
    }
    Lab::here(images, config).or_else(|why| {
        progress.step(&format!(
            "emulating a KVM host, as this machine's own does not do: {why:#}"
        ));
        emulated(images, config, progress)
    })
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
        let vdev = vdev(args.on.host(), number);
        spec = spec.with_disk(GuestDisk::new(&format!("d{number}"), &vdev));
    }
    spec
}

fn shell(guest: &Guest) -> Result<()> {
    println!("host: Ctrl-] ends the session (and the guest)");
    guest.stream_to(Box::new(terminal::show));
    terminal::pass_keys(|keys| guest.send(keys))
}

/// The file behind the guest's disk.
fn file_of<'a>(host: Host, files: &'a [PathBuf], disk: &str) -> Result<&'a PathBuf> {
    let found = (0..files.len()).find(|n| vdev(host, *n) == disk);
    match found {
        Some(number) => Ok(&files[number]),
        None => bail!("the job verified {disk}, which the guest was not given"),
    }
}
