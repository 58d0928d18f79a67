//! One lab per test program, booted when the first test needs it, with a pool
//! of disk files that tests lend.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use firn_lab::{Cache, DiskSpec, Exit, Host, Images, Lab, LabConfig, RunFolder};

use crate::shared::{Replaceable, Shared};
use crate::tiny::{self, Code};

/// Disks of 512-byte sectors in the pool: `d0`, `d1`...
const DISKS_512: usize = 6;
/// Disks of 4096-byte sectors in the pool: `k0`, `k1`...
const DISKS_4096: usize = 2;
/// For a guest of a few instructions, which takes a quarter of a second under
/// emulation, and a second where it is the first. A machine so busy that this is not
/// enough costs the boot of a lab that was not broken, and hides nothing: the scenario
/// still has to pass.
const KNOWN: Duration = Duration::from_secs(30);
/// How long the labs of this program may live, where that was said.
static LIFETIME: OnceLock<Duration> = OnceLock::new();

/// Size of every disk in the pool, in bytes.
pub const DISK_BYTES: u64 = 256 << 20;

/// A lab with its pool of disks.
pub struct Bench {
    /// The lab.
    pub lab: Lab,
    /// The built images; a Linux guest for comparison is among them.
    pub images: Images,
    free: Mutex<Vec<DiskSpec>>,
    files: RunFolder,
}

/// A disk of the pool, lent to one test: nobody else writes to it.
pub struct Lent<'a> {
    spec: DiskSpec,
    pool: &'a Mutex<Vec<DiskSpec>>,
}

impl Lent<'_> {
    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its file on this machine.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.spec.file
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        lock(self.pool).push(self.spec.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bench {
    /// The test program's lab of this kind; booted by the first caller, and by the
    /// first after one that broke down ([`again`](crate::again)).
    ///
    /// # Errors
    /// It does not come up; later callers get the same error.
    pub fn shared(host: Host) -> Result<&'static Self> {
        Self::labs(host)?.get(|| Self::boot(host))
    }

    /// The place of the test program's lab of this kind.
    pub(crate) fn labs(host: Host) -> Result<&'static Shared<Self>> {
        static XEN: Shared<Bench> = Shared::new();
        static KVM: Shared<Bench> = Shared::new();
        static HYPERV: Shared<Bench> = Shared::new();
        Ok(match host {
            Host::Xen => &XEN,
            Host::Kvm => &KVM,
            Host::HyperV => &HYPERV,
            Host::OpenVmm => bail!("openvmm has no shared lab"),
        })
    }

    /// Lets labs that are not booted yet live so long at most, instead of the
    /// two hours of a test program. The first word counts.
    pub fn live_for(lifetime: Duration) {
        let _said = LIFETIME.set(lifetime);
    }

    fn boot(host: Host) -> Result<Self> {
        let report = |step: &str| eprintln!("lab: {step}");
        let cache = Cache::open()?;
        let images = Images::prepare(&cache, &report)?;
        let files = cache.run_folder()?;
        let mut free = Vec::new();
        for (prefix, count, sector) in [("k", DISKS_4096, 4096), ("d", DISKS_512, 512)] {
            for number in 0..count {
                let name = format!("{prefix}{number}");
                let file = files.path(&name);
                std::fs::File::create(&file)?.set_len(DISK_BYTES)?;
                free.push(DiskSpec::new(&name, file).with_sector(sector));
            }
        }
        let mut config = LabConfig::new(host);
        config.disks.clone_from(&free);
        if let Some(lifetime) = LIFETIME.get() {
            config.lifetime = *lifetime;
        }
        // Our own Hyper-V host asks little of KVM: many machines have that.
        let here = (host == Host::HyperV).then(|| Lab::here(&images, &config).ok());
        let lab = match here.flatten() {
            Some(lab) => lab,
            None => Lab::boot(&images, &config, &report)?,
        };
        Ok(Self {
            lab,
            images,
            free: Mutex::new(free),
            files,
        })
    }

    /// Lends a disk with this sector size, emptied to zeros.
    ///
    /// # Errors
    /// All are lent.
    pub fn disk(&self, sector: u32) -> Result<Lent<'_>> {
        let mut free = lock(&self.free);
        let at = free
            .iter()
            .rposition(|d| d.sector == sector)
            .with_context(|| format!("all disks with {sector}-byte sectors are lent"))?;
        let spec = free.remove(at);
        let file = std::fs::File::options().write(true).open(&spec.file)?;
        file.set_len(0)?;
        file.set_len(DISK_BYTES)?;
        let pool = &self.free;
        Ok(Lent { spec, pool })
    }

    /// The ELF under test; `cargo xtask build` makes it.
    #[must_use]
    pub fn elf() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/firn.elf")
    }
}

impl Bench {
    /// Runs the smallest guest of our own Hyper-V host.
    fn known_guest(&self) -> Result<()> {
        let kernel = self.files.path("known.elf");
        std::fs::write(&kernel, Code::default().off().elf())?;
        let (exit, console) = tiny::run(&self.lab, &kernel, b"", &[], KNOWN)?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}: {console}");
        Ok(())
    }
}

impl Replaceable for Bench {
    fn broken_guests(&self) -> usize {
        self.lab.broken(&Self::elf())
    }

    /// This very machine always does: there is no other one.
    fn works(&self) -> Result<()> {
        if !self.lab.is_emulated() {
            return Ok(());
        }
        self.lab.check()?;
        match self.lab.host() {
            Host::HyperV => {
                let known = self.known_guest();
                known.context("a guest that only switches itself off")
            }
            Host::Kvm => self.lab.probe(KNOWN),
            // The other hosts have no guest as small as that.
            Host::Xen | Host::OpenVmm => self.lab.run("true").map(drop),
        }
    }

    fn kill(&self) {
        self.lab.kill();
    }
}
