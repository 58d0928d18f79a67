//! The lab itself, with a Linux guest: if these fail, nothing else here means
//! anything.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::Result;
use firn_boot_tests::Bench;
use firn_lab::{Exit, GuestDisk, GuestSpec, Host};

const UP: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

/// A Linux guest sees the disk, reads what the host wrote and writes what the
/// host then reads; its end is told.
#[test]
fn a_linux_guest_shares_a_disk_with_the_host() -> Result<()> {
    let bench = Bench::shared(Host::Xen)?;
    let disk = bench.disk(512)?;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(disk.file())?;
    file.write_all_at(b"written by the host", 512)?;
    let spec = GuestSpec::new("linux", bench.images.linux())
        .with_ramdisk(bench.images.guest())
        .with_cmdline("console=hvc0 quiet loglevel=4")
        .with_memory(384)
        .with_disk(GuestDisk::new(disk.name(), "xvda"));
    let guest = bench.lab.guest(&spec)?;
    guest.wait_for("GUEST: ready", UP)?;
    guest.send(b"dd if=/dev/xvda bs=512 skip=1 count=1 | head -c 19; echo\n")?;
    guest.wait_for("written by the host", SOON)?;
    guest.send(b"echo written by the guest | dd of=/dev/xvda bs=512 seek=3 conv=sync,fsync; echo done=$?\n")?;
    guest.wait_for("done=0", SOON)?;
    let mut seen = [0; 20];
    file.read_exact_at(&mut seen, 3 * 512)?;
    assert_eq!(&seen, b"written by the guest");
    guest.send(b"poweroff -f\n")?;
    assert_eq!(guest.wait_exit(SOON)?, Exit::PowerOff);
    Ok(())
}

/// A command that outlives its deadline is ended, and said so.
#[test]
fn a_command_has_a_deadline() -> Result<()> {
    let bench = Bench::shared(Host::Xen)?;
    let error = bench.lab.exec(&["sleep", "60"], Duration::from_millis(200));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("did not end within 200ms"), "{error}");
    assert_eq!(bench.lab.run("echo still here")?, "still here\n");
    Ok(())
}

/// What cannot be created fails with the tool stack's own words.
#[test]
fn a_file_that_is_no_kernel_is_refused_with_a_reason() -> Result<()> {
    let bench = Bench::shared(Host::Xen)?;
    let junk = tempfile_with(b"no ELF at all")?;
    let Err(error) = bench.lab.guest(&GuestSpec::new("junk", junk.path("junk"))) else {
        panic!("it was created");
    };
    let error = format!("{error:#}");
    assert!(error.contains("xl create"), "{error}");
    Ok(())
}

fn tempfile_with(content: &[u8]) -> Result<firn_lab::RunFolder> {
    let folder = firn_lab::Cache::open()?.run_folder()?;
    std::fs::write(folder.path("junk"), content)?;
    Ok(folder)
}
