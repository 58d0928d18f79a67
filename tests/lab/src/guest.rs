//! Guests of a lab: what to start, and a handle on one that runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use firn_lab_agent::Request;

use crate::cache::sha256;
use crate::client::Client;
use crate::complaints::Destroyed;
use crate::lab::Lab;
use crate::machine::Host;
use crate::transcript::{Sink, Transcript};
use crate::{hyperv, moves, openvmm, qemu_xen, stuck, xl};

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisk {
    /// A block device of the lab, as an absolute path.
    pub source: String,
    /// What the guest sees it as: `xvda`, `xvdb`...
    pub vdev: String,
    /// The guest may only read.
    pub read_only: bool,
    /// The backend offers discard.
    pub discard: bool,
}

impl GuestDisk {
    /// A writable disk. `source` is the name of one of the lab's disks
    /// (`d0` is `/dev/firn/d0`), or the path of a device in the lab.
    #[must_use]
    pub fn new(source: &str, vdev: &str) -> Self {
        let named = || format!("/dev/firn/{source}");
        Self {
            source: if source.starts_with('/') {
                source.into()
            } else {
                named()
            },
            vdev: vdev.into(),
            read_only: false,
            discard: true,
        }
    }

    /// The same disk, to be read only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// The same disk, without discard.
    #[must_use]
    pub fn without_discard(mut self) -> Self {
        self.discard = false;
        self
    }
}

/// A guest to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// The start of its name; the lab adds a number.
    pub name: String,
    /// The ELF file (or Linux image) on the driving machine.
    pub kernel: PathBuf,
    /// What it names is a boot medium with a command line of its own, which becomes
    /// the guest's first disk (on Hyper-V).
    pub medium: bool,
    /// A ramdisk on the driving machine.
    pub ramdisk: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Disks.
    pub disks: Vec<GuestDisk>,
    /// Create it, but do not let it run yet (on Xen); see [`Guest::unpause`].
    pub paused: bool,
    /// Further lines for the `xl` config file; on Hyper-V, further words for the
    /// host's command line.
    pub extra: Vec<String>,
}

impl GuestSpec {
    /// A guest with one vCPU, 128 MiB and no disks.
    #[must_use]
    pub fn new(name: &str, kernel: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            kernel: kernel.into(),
            medium: false,
            ramdisk: None,
            cmdline: String::new(),
            memory: 128,
            vcpus: 1,
            disks: Vec::new(),
            paused: false,
            extra: Vec::new(),
        }
    }

    /// A guest like that, started from a boot medium: raw, VHD or VHDX.
    #[must_use]
    pub fn from_medium(name: &str, medium: impl Into<PathBuf>) -> Self {
        Self {
            medium: true,
            ..Self::new(name, medium)
        }
    }

    /// With this command line.
    #[must_use]
    pub fn with_cmdline(mut self, cmdline: &str) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// With so many MiB of memory.
    #[must_use]
    pub fn with_memory(mut self, memory: u32) -> Self {
        self.memory = memory;
        self
    }

    /// With one more disk.
    #[must_use]
    pub fn with_disk(mut self, disk: GuestDisk) -> Self {
        self.disks.push(disk);
        self
    }

    /// Not running yet after its creation.
    #[must_use]
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// With a ramdisk.
    #[must_use]
    pub fn with_ramdisk(mut self, ramdisk: impl Into<PathBuf>) -> Self {
        self.ramdisk = Some(ramdisk.into());
        self
    }
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reboot.
    Reboot,
    /// It reported a crash.
    Crash,
    /// Anything else, in the host's words.
    Other(String),
}

/// A guest's files in the lab.
pub(crate) struct Files {
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) ramdisk: Option<String>,
}

/// A running (or ended) guest. Dropping it destroys it.
pub struct Guest {
    name: String,
    pub(crate) client: Arc<Client>,
    console: Arc<Transcript>,
    /// The host's own account of the guest, for its end.
    pub(crate) log: Arc<Transcript>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Xen(Domain),
    Kvm {
        process: u64,
        host: Host,
        /// Where the lab counts those whose processor the emulator lost.
        lost: Arc<AtomicUsize>,
    },
}

/// A guest of Xen.
pub(crate) struct Domain {
    /// Changes whenever it was restored or migrated.
    pub(crate) domain: u32,
    /// Who follows its console: under its own name, and under the one that it
    /// has while it is on its way here.
    console_tails: [u64; 2],
    /// Who follows what `xl` says of it.
    pub(crate) log_tail: u64,
    /// Where the lab notes which domains it ended itself.
    destroyed: Destroyed,
}

impl Guest {
    pub(crate) fn start(lab: &Lab, spec: &GuestSpec) -> Result<Self> {
        ensure!(
            !spec.medium || lab.host() == Host::HyperV,
            "this host starts no boot media"
        );
        let files = upload(lab, spec)?;
        let name = files.name.clone();
        let started = match lab.host() {
            Host::Xen => Self::start_xen(lab, spec, files),
            Host::Kvm | Host::HyperV | Host::OpenVmm => Self::start_kvm(lab, spec, &files),
        };
        started.with_context(|| format!("starting guest {name}"))
    }

    fn start_xen(lab: &Lab, spec: &GuestSpec, files: Files) -> Result<Self> {
        let (console, log) = <(Arc<Transcript>, Arc<Transcript>)>::default();
        let tail = |path: String, to: &Arc<Transcript>| {
            lab.client.stream(&Request::Tail { path }, Arc::clone(to))
        };
        let name = &files.name;
        let of = |name: &str| tail(format!("/var/log/xen/guest-{name}.log"), &console);
        let console_tails = [of(name)?, of(&moves::incoming(name))?];
        let log_tail = tail(format!("/var/log/xen/xl-{name}.log"), &log)?;
        xl::create(lab, spec, &files)?;
        // A quick guest may be gone by now; `xl`'s own log still knows its id.
        let line = log.wait_for("Waiting for domain", Duration::from_secs(30))?;
        let domain = xl::domain(&line).with_context(|| format!("no domain id in {line:?}"))?;
        Ok(Self {
            name: files.name,
            client: Arc::clone(&lab.client),
            console,
            log,
            kind: Kind::Xen(Domain {
                domain,
                console_tails,
                log_tail,
                destroyed: lab.destroyed.clone(),
            }),
        })
    }

    fn start_kvm(lab: &Lab, spec: &GuestSpec, files: &Files) -> Result<Self> {
        let console = Arc::<Transcript>::default();
        let host = lab.host();
        let argv = match host {
            Host::HyperV => hyperv::command_line(&lab.monitor, spec, files),
            Host::OpenVmm => openvmm::command_line(&lab.monitor, spec, files)?,
            _ => qemu_xen::command_line(&lab.monitor, spec, files),
        };
        let request = Request::Exec {
            argv,
            deadline_ms: 24 * 3600 * 1000,
        };
        let process = lab.client.stream(&request, Arc::clone(&console))?;
        Ok(Self {
            name: files.name.clone(),
            client: Arc::clone(&lab.client),
            log: Arc::clone(&console),
            console,
            kind: Kind::Kvm {
                process,
                host,
                lost: Arc::clone(&lab.lost),
            },
        })
    }

    /// Its name in the host's tools.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its domain id, on Xen.
    #[must_use]
    pub fn domain(&self) -> Option<u32> {
        match self.kind {
            Kind::Xen(Domain { domain, .. }) => Some(domain),
            Kind::Kvm { .. } => None,
        }
    }

    /// All that it wrote to its console.
    #[must_use]
    pub fn console(&self) -> &Transcript {
        &self.console
    }

    /// Calls `sink` with all console bytes, those of the past first; see
    /// [`by_line`](crate::by_line) for lines.
    pub fn stream_to(&self, sink: Sink) {
        self.console.stream_to(sink);
    }

    /// Waits for the next whole console line that contains `pattern`.
    ///
    /// # Errors
    /// As [`Transcript::wait_for`].
    pub fn wait_for(&self, pattern: &str, deadline: Duration) -> Result<String> {
        let came = self.console.wait_for(pattern, deadline);
        came.with_context(|| format!("guest {}{}", self.name, self.hosts_view()))
    }

    /// Whether the emulator lost its processor, as our Hyper-V host told.
    pub(crate) fn is_lost(&self) -> bool {
        let on_hyperv = matches!(
            self.kind,
            Kind::Kvm {
                host: Host::HyperV,
                ..
            }
        );
        on_hyperv
            && self
                .console
                .ended()
                .is_some_and(|said| hyperv::is_lost(&said))
    }

    /// What the host knows of a guest that does not go on.
    pub(crate) fn hosts_view(&self) -> String {
        match self.kind {
            Kind::Xen(_) => format!(
                "\nxl says:\n{}\nXen says:\n{}",
                self.log.text(),
                stuck::view(&self.client)
            ),
            Kind::Kvm { .. } => String::new(),
        }
    }

    /// Types `bytes` at its console.
    ///
    /// # Errors
    /// The guest is gone, or does not read within 10 s.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        match &self.kind {
            Kind::Xen(Domain { domain, .. }) => {
                xl::console_tty(&self.client, *domain).and_then(|tty| self.client.send(&tty, bytes))
            }
            Kind::Kvm { process, .. } => self.client.input(*process, bytes),
        }
        .with_context(|| format!("typing at guest {}'s console", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It goes on after the deadline; the message shows its last lines.
    pub fn wait_exit(&self, deadline: Duration) -> Result<Exit> {
        let exit = match self.kind {
            Kind::Xen(_) => self.log.wait_for("has shut down, reason", deadline),
            Kind::Kvm { .. } => self.console.wait_end(deadline),
        };
        let said = exit.with_context(|| {
            let lines = self.console.tail(25);
            format!(
                "guest {} goes on; its console ended with:\n{lines}{}",
                self.name,
                self.hosts_view()
            )
        })?;
        // The console's daemon and our tail of its log may be a moment behind.
        std::thread::sleep(Duration::from_millis(100));
        Ok(match self.kind {
            Kind::Xen(_) => xl::exit(&said),
            Kind::Kvm {
                host: Host::HyperV, ..
            } => hyperv::exit(&said, &self.console.text()),
            Kind::Kvm {
                host: Host::OpenVmm,
                ..
            } => openvmm::exit(&said),
            Kind::Kvm { .. } => qemu_xen::exit(&said),
        })
    }

    /// Ends it at once, whatever it does.
    ///
    /// # Errors
    /// The host cannot; a guest that is gone already is no error.
    pub fn destroy(&self) -> Result<()> {
        match &self.kind {
            Kind::Xen(there) => self.destroy_domain(there),
            Kind::Kvm { process, .. } => self.client.kill(*process),
        }
    }

    fn destroy_domain(&self, there: &Domain) -> Result<()> {
        let noted = there.destroyed.note(there.domain);
        let id = there.domain.to_string();
        let output = self
            .client
            .exec(&["xl", "destroy", &id], Duration::from_secs(60))?;
        // It may have ended before, or while `xl` was at it.
        let before = output.stderr.contains("is invalid");
        let meanwhile = output.stderr.contains("No such process");
        if noted && before {
            there.destroyed.strike(there.domain);
        }
        if output.code != Some(0) && !before && !meanwhile {
            bail!("xl destroy {id}: {}{}", output.stdout, output.stderr);
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Best effort: the lab may be gone before its guests.
        let _gone = self.destroy();
        match &self.kind {
            Kind::Xen(there) => {
                for tail in there.console_tails.into_iter().chain([there.log_tail]) {
                    let _gone = self.client.kill(tail);
                }
            }
            Kind::Kvm { lost, .. } => {
                lost.fetch_add(usize::from(self.is_lost()), Relaxed);
            }
        }
    }
}

/// Brings the guest's files into the lab, each content once.
fn upload(lab: &Lab, spec: &GuestSpec) -> Result<Files> {
    let put = |path: &PathBuf| -> Result<String> {
        let content =
            std::fs::read(path).with_context(|| format!("the guest's {}", path.display()))?;
        let there = format!("{}/{}", lab.folder(), &sha256([content.as_slice()])[..16]);
        let known = lab.exec(&["test", "-e", &there], Duration::from_secs(10))?;
        if known.code != Some(0) {
            lab.put(&there, 0o644, &content)?;
        }
        Ok(there)
    };
    let name = format!("{}-{}", spec.name, lab.next_number());
    Ok(Files {
        name,
        kernel: put(&spec.kernel)?,
        ramdisk: spec.ramdisk.as_ref().map(put).transpose()?,
    })
}
