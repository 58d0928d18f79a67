//! What people type wrong: each mistake has its name, and the shell goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use firn_boot_tests::{Scene, again};
use firn_lab::{Exit, GuestDisk, Host};

const SOON: Duration = Duration::from_secs(60);

/// A line, its error's name, and where that says the mistake is.
const MISTAKES: [(&str, &str, &str); 20] = [
    ("frobnicate", "unknown-job", "`frobnicate`"),
    (
        "verify disk=xvda sice=1M",
        "unknown-argument",
        "verify: sice=",
    ),
    (
        "verify disk=xvda whatever",
        "unexpected-word",
        "verify: `whatever`",
    ),
    ("verify disk=xvda size=1Q", "bad-value", "verify: size="),
    ("verify disk=xvda qd=-1", "bad-value", "verify: qd="),
    ("verify disk=floppy", "bad-value", "verify: disk="),
    ("verify", "missing-argument", "verify: disk="),
    (
        "verify disk=xvda qd=1 qd=2",
        "doubled-argument",
        "verify: qd=",
    ),
    (
        "write disk=xvda at=0 text=\"open",
        "unclosed-quote",
        "character 27",
    ),
    ("verify disk=xvdz", "no-such-disk", "xvdz"),
    ("verify disk=xvda at=1G", "beyond-end", "xvda"),
    (
        "verify disk=xvda at=0xffffffffffffffff",
        "beyond-end",
        "xvda",
    ),
    ("verify disk=xvda at=100", "bad-argument", "at="),
    ("verify disk=xvda bs=100", "bad-argument", "bs="),
    ("verify disk=xvda bs=1T", "bad-argument", "bs="),
    ("verify disk=xvda size=0", "bad-argument", "size="),
    ("verify disk=xvda qd=0", "bad-argument", "qd="),
    ("verify disk=xvda qd=1000000", "bad-argument", "qd="),
    ("verify disk=xvda bs=16M qd=512", "no-memory", "job memory"),
    ("store ls /no/such/path", "xenstore", "/no/such/path"),
];

#[test]
fn mistakes_at_the_shell_have_names() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("", &[GuestDisk::new(disk.name(), "xvda")])?;
        for (line, error, place) in MISTAKES {
            let result = live.refused(line, error)?;
            let told = (result.text("where"), result.text("hint"));
            ensure!(told.0 == Some(place), "{line}: {}", result.fields);
            ensure!(told.1.is_some_and(|hint| !hint.is_empty()), "{line}");
        }
        live.verify("verify disk=xvda size=1M", disk.file())?;
        live.off()?;
        scene.finish()
    })
}

/// A mistake on the command line does not keep the rest of it from running.
#[test]
fn mistakes_on_the_command_line_do_not_stop_it() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let live = scene.start("shout=yes", "frobnicate; verify disk=xvdz; poweroff", &[])?;
        live.guest.wait_for("option 'shout=yes' is unknown", SOON)?;
        for (job, error) in [("frobnicate", "unknown-job"), ("verify", "no-such-disk")] {
            let result = live.result(SOON)?;
            ensure!(result.job == job, "{}", result.fields);
            ensure!(result.text("error") == Some(error), "{}", result.fields);
        }
        live.result(SOON)?.into_ok()?;
        ensure!(live.guest.wait_exit(SOON)? == Exit::PowerOff);
        scene.finish()
    })
}
