//! A booted lab.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::broken::{Image, broken_by_emulator};
use crate::cache::{Cache, RunFolder};
use crate::client::{Client, Output};
use crate::complaints::Destroyed;
use crate::guest::{Guest, GuestSpec};
use crate::images::Images;
use crate::machine::{self, Ended, Host, LabConfig, Machine};
use crate::monitor::Monitor;
use crate::programs::{self, AGENT, MONITOR};
use crate::{here, tree::Tree};

/// From power-on to the agent's first word, also on a machine that is busy.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);

/// A booted lab. Dropping it powers it off.
pub struct Lab {
    pub(crate) client: Arc<Client>,
    machine: Mutex<Machine>,
    /// The stream of a root prompt; there is none on this very machine.
    shell: Option<UnixStream>,
    host: Host,
    /// How a KVM host starts guests.
    pub(crate) monitor: Monitor,
    /// From power-on to the agent's first word.
    boot_time: Duration,
    /// Number of the next guest or mark, so that names are never used twice.
    next: AtomicU32,
    /// Domains that were destroyed by their [`Guest`].
    pub(crate) destroyed: Destroyed,
    /// Guests on Hyper-V, of those that were dropped, whose processor the emulator lost.
    pub(crate) lost: Arc<AtomicUsize>,
    run: RunFolder,
}

impl Lab {
    /// Boots a lab and waits until its agent answers. Where the emulator breaks
    /// down by itself before that, it is started again: nothing has run yet.
    ///
    /// # Errors
    /// A disk file is missing, QEMU does not start, or the machine does not
    /// come up; the message shows the end of its serial line.
    pub fn boot(images: &Images, config: &LabConfig, report: &dyn Fn(&str)) -> Result<Self> {
        machine::until_it_runs(report, || Self::boot_once(images, config, report))
    }

    fn boot_once(images: &Images, config: &LabConfig, report: &dyn Fn(&str)) -> Result<Self> {
        let run = Cache::open()?.run_folder()?;
        let mut overlay = Tree::default();
        overlay.file(&format!("bin/{AGENT}"), 0o755, programs::build(AGENT)?);
        // QEMU's guests in a KVM host are none of its own, but it can tell whether KVM
        // does.
        if matches!(config.host, Host::Kvm | Host::HyperV) {
            overlay.file(&format!("bin/{MONITOR}"), 0o755, programs::build(MONITOR)?);
        }
        report(match config.host {
            Host::Xen => "booting Xen and its dom0",
            Host::Kvm | Host::HyperV | Host::OpenVmm => "booting the KVM host",
        });
        let start = Instant::now();
        let mut started = machine::start(images, config, &run, &overlay.archive()?)?;
        let client = Client::new(started.agent, BOOT_DEADLINE, &mut || {
            started.machine.check()
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                let tails = started.machine.tails();
                started.machine.stop(Duration::ZERO);
                return Err(match error.is::<Ended>() {
                    true => error,
                    false => error.context(tails),
                });
            }
        };
        Ok(Self {
            client: Arc::new(client),
            machine: Mutex::new(started.machine),
            shell: Some(started.shell),
            host: config.host,
            monitor: Monitor::in_lab(config.host),
            boot_time: start.elapsed(),
            next: AtomicU32::new(1),
            destroyed: Destroyed::default(),
            lost: Arc::default(),
            run,
        })
    }

    /// Uses this very machine as the KVM host of `config`, without emulation.
    ///
    /// # Errors
    /// It has no KVM, gives no right to it, or its KVM cannot do what the host asks
    /// of it.
    pub fn here(images: &Images, config: &LabConfig) -> Result<Self> {
        let run = Cache::open()?.run_folder()?;
        let monitor = here::monitor(images, &run, config)?;
        Self::with(run, monitor, config)
    }

    /// Uses openvmm, the program at `program`, on this very machine. `kvm` is the
    /// device that it needs: `/dev/kvm`.
    ///
    /// # Errors
    /// There is no such program, or this machine has no KVM for us.
    pub fn openvmm(program: &Path, kvm: &Path, config: &LabConfig) -> Result<Self> {
        let run = Cache::open()?.run_folder()?;
        let monitor = here::openvmm(program, kvm, &run, config)?;
        Self::with(run, monitor, config)
    }

    fn with(run: RunFolder, monitor: Monitor, config: &LabConfig) -> Result<Self> {
        let start = Instant::now();
        let (mut machine, agent) = here::start(&run)?;
        let client = Client::new(agent, BOOT_DEADLINE, &mut || machine.check())?;
        Ok(Self {
            client: Arc::new(client),
            machine: Mutex::new(machine),
            shell: None,
            host: config.host,
            monitor,
            boot_time: start.elapsed(),
            next: AtomicU32::new(1),
            destroyed: Destroyed::default(),
            lost: Arc::default(),
            run,
        })
    }

    /// What runs in this lab.
    #[must_use]
    pub fn host(&self) -> Host {
        self.host
    }

    /// One line about what runs here, in its own words.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn describe(&self) -> Result<String> {
        let ask = match self.host {
            Host::Xen => "echo Xen $(xl info xen_version), dom0 Linux $(uname -r)",
            Host::HyperV => "echo firn-hyperv-host on KVM, Linux $(uname -r)",
            Host::OpenVmm => "echo openvmm on KVM, Linux $(uname -r)",
            Host::Kvm => {
                let qemu = self.monitor.program.join(" ");
                &format!("echo $({qemu} --version | head -n 1) on KVM, Linux $(uname -r)")
            }
        };
        let said = self.run(ask)?;
        let seconds = self.boot_time.as_secs_f64();
        Ok(format!("{}, up after {seconds:.1} s", said.trim()))
    }

    /// How long it took from power-on to the agent's first word.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// This run's own folder; it disappears with the lab.
    #[must_use]
    pub fn run_folder(&self) -> &RunFolder {
        &self.run
    }

    /// Runs a command in dom0 (or the KVM host) to its end.
    ///
    /// # Errors
    /// It cannot be started or does not end within the deadline. A non-zero
    /// exit code is no error here; see [`Lab::run`].
    pub fn exec(&self, argv: &[&str], deadline: Duration) -> Result<Output> {
        self.client.exec(argv, deadline)
    }

    /// Runs a shell command that must succeed within 30 s; gives its output.
    ///
    /// # Errors
    /// As [`Lab::exec`], and a non-zero exit code.
    pub fn run(&self, command: &str) -> Result<String> {
        let output = self.exec(&["sh", "-c", command], Duration::from_secs(30))?;
        if output.code != Some(0) {
            let Output {
                code,
                stdout,
                stderr,
            } = output;
            bail!("`{command}` in the lab ended with {code:?}:\n{stdout}{stderr}");
        }
        Ok(output.stdout)
    }

    /// Creates a file in the lab.
    ///
    /// # Errors
    /// No room, or the lab is gone.
    pub fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.client.put(path, mode, content)
    }

    /// Copies a file of this machine into the lab.
    ///
    /// # Errors
    /// As [`Lab::put`], or the file cannot be read.
    pub fn put_file(&self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| from.display().to_string())?;
        self.put(path, mode, &content)
    }

    /// Reads a file of the lab.
    ///
    /// # Errors
    /// No such file, or the lab is gone.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.client.get(path)
    }

    /// Creates and starts a guest.
    ///
    /// # Errors
    /// The tool stack refuses; the message shows what it said.
    pub fn guest(&self, spec: &GuestSpec) -> Result<Guest> {
        Guest::start(self, spec)
    }

    /// Everything on the machine's serial line so far: Xen's own messages,
    /// dom0's, and each guest's port 0xE9 as `(dN) ...`.
    #[must_use]
    pub fn xen_log(&self) -> String {
        self.machine().serial()
    }

    /// How many guests the emulator broke so far, if all run this ELF: their failures
    /// are not theirs. Guests on Hyper-V are counted once they are dropped. Without the
    /// ELF some of them are not known.
    #[must_use]
    pub fn broken(&self, elf: &Path) -> usize {
        let image = Image::read(elf).unwrap_or_default();
        let domains = broken_by_emulator(&self.xen_log(), &image).len();
        domains + self.lost.load(Relaxed)
    }

    /// Whether the emulator broke this guest, which runs this ELF.
    #[must_use]
    pub fn broke(&self, guest: &Guest, elf: &Path) -> bool {
        let Some(domain) = guest.domain() else {
            return guest.is_lost();
        };
        let image = Image::read(elf).unwrap_or_default();
        broken_by_emulator(&self.xen_log(), &image).contains(&domain)
    }

    /// dom0's (or the KVM host's) kernel log.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn dmesg(&self) -> Result<String> {
        self.run("dmesg")
    }

    /// The byte stream of a root prompt in the lab, for a person.
    ///
    /// # Errors
    /// The stream cannot be shared.
    pub fn shell(&self) -> Result<UnixStream> {
        let shell = self.shell.as_ref().context("this machine has its own")?;
        Ok(shell.try_clone()?)
    }

    /// Sees whether KVM does in a KVM host, with a guest of a few instructions.
    ///
    /// # Errors
    /// It does not, or not within the deadline.
    pub fn probe(&self, deadline: Duration) -> Result<()> {
        let probe = self.exec(&[MONITOR, "--probe"], deadline)?;
        ensure!(probe.code == Some(0), "KVM there does not: {probe:#?}");
        Ok(())
    }

    /// Fails if the lab's emulator has ended, with the end of its logs, or if a
    /// processor's timer in its machine stands still.
    ///
    /// # Errors
    /// One of these.
    pub fn check(&self) -> Result<()> {
        self.machine().check()
    }

    /// Whether its machine is emulated, rather than this very machine.
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.shell.is_some()
    }

    /// Ends it at once, whatever state it is in. Whoever waits for something in it
    /// hears that it is gone.
    pub fn kill(&self) {
        // The machine first: its end ends a request that it does not read, too,
        // and we could not hang up before.
        self.machine().stop(Duration::ZERO);
        self.client.hang_up();
    }

    /// A folder of the lab for guests' files.
    pub(crate) fn folder(&self) -> String {
        if self.is_emulated() {
            return "/tmp".into();
        }
        let own = self.run.path("");
        own.to_string_lossy().trim_end_matches('/').into()
    }

    /// A number that was not given before.
    pub(crate) fn next_number(&self) -> u32 {
        self.next.fetch_add(1, Relaxed)
    }

    fn machine(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The agent ends when it is alone, and the lab's init then powers off:
        // the same way as when this process dies.
        self.client.hang_up();
        self.machine().stop(Duration::from_secs(4));
    }
}
