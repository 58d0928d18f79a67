//! The emulated machine: QEMU's command line and process.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::RunFolder;
use crate::client::Silent;
use crate::images::Images;
use crate::transcript::tail;

/// SIGABRT.
const ABORTED: i32 = 6;

/// What Linux says on the machine's serial line of a processor of its whose timer
/// stands still, and with it whatever runs there.
const TIMER_STANDS: &str = "Possible timer handling issue on cpu=";

/// Emulators that may break down before one boots.
const MOST_BOOTS: usize = 3;

/// What runs in the emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Xen with Linux as dom0.
    Xen,
    /// Linux with KVM (through emulated SVM) and a QEMU of its own, whose guests are
    /// on Xen.
    Kvm,
    /// The same, with `firn-hyperv-host`, whose guests are on Hyper-V.
    HyperV,
    /// openvmm, on this very machine's KVM: see [`Lab::openvmm`](crate::Lab::openvmm).
    OpenVmm,
}

/// A disk file of the driving machine that the lab gets as `/dev/firn/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// At most 20 characters; the disk's serial number.
    pub name: String,
    /// A raw disk image.
    pub file: PathBuf,
    /// Logical (and physical) sector size in bytes, 512 or 4096.
    pub sector: u32,
}

impl DiskSpec {
    /// A disk with sectors of 512 bytes.
    #[must_use]
    pub fn new(name: &str, file: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            file: file.into(),
            sector: 512,
        }
    }

    /// The same disk with another sector size.
    #[must_use]
    pub fn with_sector(mut self, sector: u32) -> Self {
        self.sector = sector;
        self
    }
}

/// How large the emulated machine is and what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabConfig {
    /// What runs in it.
    pub host: Host,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// Its memory in MiB; dom0 takes 1024 of them.
    pub memory: u32,
    /// Its CPUs.
    pub cpus: u32,
    /// How long it may live at most, whatever happens to the driving machine.
    pub lifetime: Duration,
}

impl LabConfig {
    /// The usual size: two CPUs, 3000 MiB, at most two hours.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self {
            host,
            disks: Vec::new(),
            memory: 3000,
            cpus: 2,
            lifetime: Duration::from_secs(2 * 3600),
        }
    }

    /// With one more disk.
    #[must_use]
    pub fn with_disk(mut self, disk: DiskSpec) -> Self {
        self.disks.push(disk);
        self
    }
}

/// The running emulator.
pub(crate) struct Machine {
    pub(crate) child: Child,
    /// What it said on its serial line.
    pub(crate) log: PathBuf,
    /// What the program itself complained of.
    pub(crate) errors: PathBuf,
}

/// The machine with both of its ports connected.
pub(crate) struct Started {
    pub(crate) machine: Machine,
    pub(crate) agent: UnixStream,
    pub(crate) shell: UnixStream,
}

/// Starts the emulator. `overlay` is an archive that is laid over the image.
pub(crate) fn start(
    images: &Images,
    config: &LabConfig,
    run: &RunFolder,
    overlay: &[u8],
) -> Result<Started> {
    let initrd = run.path("initrd");
    let base = match config.host {
        Host::Xen => images.dom0(),
        Host::Kvm | Host::HyperV => images.kvm(),
        Host::OpenVmm => bail!("openvmm is not in the lab's images"),
    };
    let mut image = fs::read(&base).with_context(|| base.display().to_string())?;
    image.extend_from_slice(overlay);
    fs::write(&initrd, image)?;
    // The emulator connects to sockets that listen already, so that the agent
    // never meets a port without another end.
    let agent = UnixListener::bind(run.path("agent"))?;
    let shell = UnixListener::bind(run.path("shell"))?;
    let argv = command_line(images, config, run, &initrd)?;
    let errors = run.path("qemu.log");
    let child = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(File::create(&errors)?)
        .stderr(File::options().append(true).open(&errors)?)
        .spawn()
        .with_context(|| format!("cannot start {}", argv[0]))?;
    let log = run.path("serial.log");
    let mut machine = Machine { child, log, errors };
    let agent = accept(&agent, &mut machine)?;
    let shell = accept(&shell, &mut machine)?;
    Ok(Started {
        machine,
        agent,
        shell,
    })
}

fn accept(listener: &UnixListener, machine: &mut Machine) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            return Ok(stream);
        }
        machine.check()?;
        if start.elapsed() > Duration::from_secs(30) {
            bail!("QEMU did not connect within 30 s:\n{}", machine.tails());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every line here was paid for; the reasons are in `docs/lab.md`.
fn command_line(
    images: &Images,
    config: &LabConfig,
    run: &RunFolder,
    initrd: &Path,
) -> Result<Vec<String>> {
    let path = |name: &str| run.path(name).to_string_lossy().into_owned();
    let shown = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut argv = bounded(config.lifetime);
    argv.extend(
        images
            .packages
            .command("usr/bin/qemu-system-x86_64", "qemu-system-x86_64"),
    );
    argv.extend(firmware(images));
    let mut add = |words: &str| argv.extend(words.split_whitespace().map(str::to_owned));
    add("-accel tcg,thread=multi -nodefaults -display none -no-reboot");
    add(&format!("-smp {} -m {}", config.cpus, config.memory));
    add(&format!(
        "-chardev file,id=serial,path={} -serial chardev:serial",
        path("serial.log")
    ));
    add("-device virtio-serial-pci");
    add(&format!("-chardev socket,id=agent,path={}", path("agent")));
    add(&format!(
        "-device virtserialport,chardev=agent,name={}",
        firn_lab_agent::PORT_NAME
    ));
    add(&format!("-chardev socket,id=shell,path={}", path("shell")));
    add("-device virtconsole,chardev=shell,name=firn.shell");
    for (number, disk) in config.disks.iter().enumerate() {
        add(&format!(
            "-blockdev driver=raw,node-name=d{number},discard=unmap,file.driver=file,file.filename={}",
            disk_file(&disk.file)?
        ));
        add(&format!(
            "-device virtio-blk-pci,drive=d{number},serial={},write-cache=on,\
             logical_block_size={sector},physical_block_size={sector}",
            disk.name,
            sector = disk.sector
        ));
    }
    let linux = shown(images.linux());
    let initrd = initrd.display();
    let kernel = match config.host {
        Host::Xen => {
            add("-M pc -cpu qemu64,+svm,+npt,+nrip-save");
            let modules = format!(
                "{linux} console=hvc0 earlyprintk=xen quiet loglevel=4 \
                 mitigations=off rodata=off,{initrd}"
            );
            let xen = "loglvl=all guest_loglvl=all console=com1 com1=115200,8n1 \
                dom0_mem=1024M dom0_max_vcpus=1 noreboot=1 watchdog=0";
            [shown(images.xen()), modules, xen.into()]
        }
        Host::Kvm | Host::HyperV | Host::OpenVmm => {
            add("-M q35 -cpu EPYC,+svm,+npt");
            let linux_words = "console=ttyS0 quiet loglevel=4 mitigations=off highres=off nohz=off";
            [linux, initrd.to_string(), linux_words.into()]
        }
    };
    for (flag, value) in ["-kernel", "-initrd", "-append"].into_iter().zip(kernel) {
        argv.extend([flag.into(), value]);
    }
    Ok(argv)
}

/// The start of the command line of a program that lives so long at most, and no
/// longer than the process that this starts: one that is killed takes it along,
/// whatever state it is in.
fn bounded(lifetime: Duration) -> Vec<String> {
    let seconds = lifetime.as_secs().to_string();
    let timeout = ["timeout", "--foreground", "--signal=KILL", &seconds];
    let words = timeout.into_iter().chain(["setpriv", "--pdeathsig=KILL"]);
    words.map(str::to_owned).collect()
}

/// Where QEMU finds its firmware.
pub(crate) fn firmware(images: &Images) -> Vec<String> {
    let folders = ["usr/share/qemu", "usr/share/seabios"];
    let shown = |folder| images.packages.path(folder).to_string_lossy().into_owned();
    folders
        .into_iter()
        .flat_map(|f| ["-L".into(), shown(f)])
        .collect()
}

/// QEMU's option syntax doubles commas; white space would end our words.
fn disk_file(path: &Path) -> Result<String> {
    let path = std::path::absolute(path)?;
    let text = path.to_string_lossy();
    if text.contains(char::is_whitespace) {
        bail!("{text}: a disk file's path must not contain white space");
    }
    if !path.exists() {
        bail!("{text}: no such disk file");
    }
    Ok(text.replace(',', ",,"))
}

/// The emulator is gone.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    tails: String,
}

impl Ended {
    /// It found a fault in itself (a failed assertion), rather than being told to
    /// end or refusing its command line.
    fn is_its_own_fault(&self) -> bool {
        self.status.signal() == Some(ABORTED)
    }
}

/// Boots until it goes well, or fails for another reason than that the emulator
/// broke down by itself or the machine in it stood still: before the end of a boot
/// that costs nothing but time.
pub(crate) fn until_it_runs<T>(
    report: &dyn Fn(&str),
    mut boot: impl FnMut() -> Result<T>,
) -> Result<T> {
    for _ in 1..MOST_BOOTS {
        let error = match boot() {
            Ok(booted) => return Ok(booted),
            Err(error) => error,
        };
        let broke_down = error.downcast_ref().is_some_and(Ended::is_its_own_fault);
        if !broke_down && !error.is::<Silent>() && !error.is::<TimerStands>() {
            return Err(error);
        }
        report(&format!("{error:#}\nnothing ran in it yet: once more"));
    }
    boot()
}

/// A processor of the machine has no time any more: it will not come back.
#[derive(Debug)]
pub(crate) struct TimerStands;

impl fmt::Display for TimerStands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a timer in the lab's machine stands still")
    }
}

impl std::error::Error for TimerStands {}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, tails } = self;
        write!(f, "the lab's emulator ended ({status}):\n{tails}")
    }
}

impl std::error::Error for Ended {}

impl Machine {
    /// Fails with [`Ended`] if the emulator has, and with [`TimerStands`].
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None if self.serial().contains(TIMER_STANDS) => Err(TimerStands.into()),
            None => Ok(()),
            Some(status) => Err(Ended {
                status,
                tails: self.tails(),
            }
            .into()),
        }
    }

    /// What the machine's serial line said: Xen, dom0, guests' port 0xE9.
    pub(crate) fn serial(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// The ends of both logs, for an error message.
    pub(crate) fn tails(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        format!(
            "--- QEMU said:\n{}\n--- the machine's serial line ended with:\n{}",
            tail(&errors, 10),
            tail(&self.serial(), 25)
        )
    }

    /// Waits for the machine to power off by itself, then kills it.
    pub(crate) fn stop(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{BufRead, BufReader, Read};

    use super::*;

    const SILENT: i32 = -1;
    const STANDS: i32 = -2;

    fn failed(status: i32) -> anyhow::Error {
        if status == SILENT {
            return anyhow::Error::from(Silent(Duration::ZERO)).context("its logs");
        }
        if status == STANDS {
            return anyhow::Error::from(TimerStands).context("its logs");
        }
        let status = ExitStatus::from_raw(status);
        let tails = String::new();
        anyhow::Error::from(Ended { status, tails }).context("while it booted")
    }

    /// How often a machine is booted that fails like this, and whether it runs.
    fn boots(failures: &[i32]) -> (usize, bool) {
        let (boots, told) = (Cell::new(0), Cell::new(0));
        let outcome = until_it_runs(&|_| told.set(told.get() + 1), || {
            boots.set(boots.get() + 1);
            match failures.get(boots.get() - 1) {
                Some(&status) => Err(failed(status)),
                None => Ok(()),
            }
        });
        assert!(told.get() < boots.get(), "each further boot is told of");
        (boots.get(), outcome.is_ok())
    }

    #[test]
    fn only_an_emulator_that_breaks_down_or_stands_still_is_started_again() {
        assert_eq!(boots(&[]), (1, true));
        assert_eq!(boots(&[ABORTED]), (2, true));
        assert_eq!(boots(&[SILENT, ABORTED]), (3, true));
        assert_eq!(boots(&[STANDS]), (2, true));
        assert_eq!(boots(&[ABORTED; 9]), (MOST_BOOTS, false));
        let refused = 1 << 8;
        assert_eq!(boots(&[refused]), (1, false));
    }

    #[test]
    fn a_machine_whose_timer_stands_is_told_from_one_that_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let said = |line: &str| {
            let log = folder.path().join("log");
            fs::write(&log, line).unwrap();
            let child = Command::new("sleep").arg("30").spawn().unwrap();
            let errors = PathBuf::new();
            let mut machine = Machine { child, log, errors };
            let stands = machine
                .check()
                .is_err_and(|error| error.is::<TimerStands>());
            machine.stop(Duration::ZERO);
            stands
        };
        assert!(!said("[    1.0] rcu: up\r\n"));
        assert!(said(
            "[   48.3] rcu: \tPossible timer handling issue on cpu=1 timer-softirq=6\r\n"
        ));
    }

    #[test]
    fn an_emulator_is_killed_with_its_guardian() {
        let argv = bounded(Duration::from_secs(60));
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .args(["sh", "-c", "echo up; exec sleep 40"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        let (log, errors) = <(PathBuf, PathBuf)>::default();
        let start = Instant::now();
        Machine { child, log, errors }.stop(Duration::ZERO);
        // Its end is the end of what it may say.
        out.read_to_end(&mut Vec::new()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
