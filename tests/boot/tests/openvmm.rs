//! `cargo xtask run --on openvmm`, with a stand-in for openvmm: a program that writes
//! down how it was called, and says what a guest says. What openvmm itself makes of
//! that command line is not tested here, nor anywhere yet.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Watched, check_file, judge};
use firn_lab::{Cache, DiskSpec, Exit, GuestDisk, GuestSpec, Host, Lab, LabConfig, RunFolder};

const SOON: Duration = Duration::from_secs(30);
const LINE: &str = "log=info -- verify disk=sda size=1M seed=1; poweroff";
const GOOD: &str = r#"firn-result {"job":"verify","ok":true,"disk":"sda","bytes":1048576}"#;
const BAD: &str = r#"firn-result {"job":"verify","ok":false,"error":"mismatch"}"#;
/// Nobody needs KVM for a stand-in.
const NO_KVM: &str = "/dev/null";

struct Stage {
    folder: RunFolder,
    lab: Lab,
    spec: GuestSpec,
}

impl Stage {
    /// A stand-in that runs these lines of shell, and a guest for it.
    fn new(script: &str) -> Result<Self> {
        let folder = Cache::open()?.run_folder()?;
        let path = |name: &str| folder.path(name);
        let (called, program) = (path("called"), path("open vmm"));
        let called = called.display();
        let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > '{called}'\n{script}\n");
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::write(path("kernel"), "an ELF file")?;
        fs::File::create(path("disk"))?.set_len(1 << 20)?;
        let config = LabConfig::new(Host::OpenVmm).with_disk(DiskSpec::new("d0", path("disk")));
        let lab = Lab::openvmm(&program, Path::new(NO_KVM), &config)?;
        let spec = GuestSpec::new("firn", path("kernel"))
            .with_cmdline(LINE)
            .with_disk(GuestDisk::new("d0", "sda"));
        Ok(Self { folder, lab, spec })
    }

    fn disk(&self) -> PathBuf {
        self.folder.path("disk")
    }

    fn exit(&self) -> Result<(Exit, String)> {
        let guest = self.lab.guest(&self.spec)?;
        let exit = guest.wait_exit(SOON)?;
        Ok((exit, guest.console().text()))
    }
}

#[test]
fn it_is_called_with_the_kernel_its_words_and_the_disks() -> Result<()> {
    let stage = Stage::new("")?;
    let (exit, console) = stage.exit()?;
    ensure!(exit == Exit::PowerOff, "{exit:?}:\n{console}");
    let called = fs::read_to_string(stage.folder.path("called"))?;
    let words: Vec<&str> = called.lines().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag);
        at.and_then(|at| words.get(at + 1)).context(called.clone())
    };
    ensure!(words.contains(&"--hv"), "{called}");
    ensure!(*after("--cmdline")? == LINE);
    ensure!(*after("--memory")? == "128MB");
    ensure!(*after("--com1")? == "console");
    ensure!(*after("--disk")? == format!("file:{}", stage.disk().display()));
    ensure!(fs::read_to_string(after("--kernel")?)? == "an ELF file");
    Ok(())
}

#[test]
fn what_the_guest_says_is_judged_and_the_disk_looked_at() -> Result<()> {
    let run = |said: &str| {
        let stage = Stage::new(&format!("echo '{said}'"))?;
        let guest = stage.lab.guest(&stage.spec)?;
        let results = Watched::new(&stage.lab, guest).finish(SOON)?;
        ensure!(results.len() == 1, "{} results", results.len());
        anyhow::Ok((judge(&results), stage))
    };
    ensure!(run(BAD)?.0.is_err());
    let (judged, stage) = run(GOOD)?;
    judged?;
    // Nothing was written: it was only said.
    ensure!(check_file("verify disk=sda size=1M seed=1", &stage.disk()).is_err());
    Ok(())
}

#[test]
fn what_is_typed_arrives_through_a_terminal() -> Result<()> {
    let stage = Stage::new("test -t 0 || exit 3; echo ready; read word; echo \"got $word\"")?;
    let guest = stage.lab.guest(&stage.spec)?;
    guest.wait_for("ready", SOON)?;
    guest.send(b"go\n")?;
    guest.wait_for("got go", SOON)?;
    ensure!(guest.wait_exit(SOON)? == Exit::PowerOff);
    Ok(())
}

#[test]
fn its_own_complaints_are_shown_if_it_ends_badly() -> Result<()> {
    let stage = Stage::new("echo 'no such option' >&2; exit 2")?;
    let (exit, console) = stage.exit()?;
    ensure!(matches!(exit, Exit::Other(_)), "{exit:?}");
    ensure!(console.contains("no such option"), "{console}");
    let stage = Stage::new("echo 'all is well' >&2; exit 10")?;
    ensure!(stage.exit()?.0 == Exit::Reboot);
    Ok(())
}

#[test]
fn without_program_or_kvm_it_says_what_is_missing() -> Result<()> {
    let config = LabConfig::new(Host::OpenVmm);
    let refused = |program: &str, kvm: &str| {
        let lab = Lab::openvmm(Path::new(program), Path::new(kvm), &config);
        lab.err().map(|why| format!("{why:#}")).unwrap_or_default()
    };
    let (none, sh) = ("/no/such/file", "/bin/sh");
    ensure!(refused(none, NO_KVM).contains("openvmm's program, /no/such/file"));
    ensure!(refused(sh, none).contains("openvmm needs a machine with KVM"));
    Ok(())
}
