//! QEMU on this machine, emulating a PC without a hypervisor in it.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result};
use firn_lab::{Cache, Images, Packages, RunFolder};

/// How long a boot may take on a machine that is busy.
const SECONDS: &str = "180";
const MACHINE: &str = "-accel tcg -nodefaults -display none -no-reboot \
    -device isa-debug-exit,iobase=0xf4,iosize=1";

/// The emulator, with a folder for one run's files.
pub struct Emulator {
    packages: Packages,
    /// Disappears with the emulator.
    pub folder: RunFolder,
}

/// What a guest said, and how it ended.
pub struct Said {
    /// What it wrote to port 0xE9.
    pub early: String,
    /// QEMU's exit code; 124 if the time ran out.
    pub code: i32,
}

impl Emulator {
    /// What QEMU's exit device makes of a crash.
    pub const CRASHED: i32 = 5;

    /// Gets QEMU ready.
    ///
    /// # Errors
    /// The lab cannot be prepared.
    pub fn new() -> Result<Self> {
        let cache = Cache::open()?;
        Images::prepare(&cache, &|step| eprintln!("lab: {step}"))?;
        let packages = Packages::unpacked(&cache).context("the packages are not unpacked")?;
        let folder = cache.run_folder()?;
        Ok(Self { packages, folder })
    }

    /// Emulates a PC until its guest ends it. `args` are QEMU's, for what the
    /// PC has.
    ///
    /// # Errors
    /// QEMU cannot be started, or was killed.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Said> {
        let early = self.folder.path("early");
        let qemu = "qemu-system-x86_64";
        let program = self.packages.command(&format!("usr/bin/{qemu}"), qemu);
        let firmware = ["usr/share/qemu", "usr/share/seabios"];
        let firmware = firmware.map(|folder| self.packages.path(folder));
        let status = Command::new("timeout")
            .arg(SECONDS)
            .args(program)
            .args(
                firmware
                    .iter()
                    .flat_map(|f| [OsStr::new("-L"), f.as_os_str()]),
            )
            .args(MACHINE.split_whitespace())
            .arg("-debugcon")
            .arg(format!("file:{}", early.display()))
            .args(args)
            .status()
            .context("cannot start timeout")?;
        let early = std::fs::read_to_string(&early)?;
        let code = status.code().context("QEMU was killed")?;
        Ok(Said { early, code })
    }
}
