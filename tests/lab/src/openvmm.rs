//! Guests of openvmm, Microsoft's own monitor: its VMBus and storvsp. Its options
//! are those of its command-line help (`openvmm_entry/src/cli_args.rs`, 2026).
//!
//! openvmm talks to a terminal, so it gets one (by `script`): COM1 is read from it
//! and typed at it. What it says itself goes to a file, and its end onto the console
//! if it did not end well.

use anyhow::{Result, ensure};

use crate::guest::{Exit, Files, GuestSpec};
use crate::monitor::Monitor;

/// Exit codes that we ask for.
const REBOOT: u8 = 10;
const CRASH: u8 = 11;
/// Lines of its own that are shown if it ends badly.
const SHOWN: u8 = 20;

/// openvmm's command line, in a terminal of its own. Disks are units of its first
/// controller, in the order of the spec.
///
/// # Errors
/// It could not be told a disk's path.
pub(crate) fn command_line(
    monitor: &Monitor,
    spec: &GuestSpec,
    files: &Files,
) -> Result<Vec<String>> {
    let mut argv = monitor.program.clone();
    argv.push("--hv".into());
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    add("--processors", spec.vcpus.to_string());
    add("--memory", format!("{}MB", spec.memory));
    add("--kernel", files.kernel.clone());
    if let Some(ramdisk) = &files.ramdisk {
        add("--initrd", ramdisk.clone());
    }
    add("--cmdline", spec.cmdline.clone());
    add("--com1", "console".into());
    for disk in &spec.disks {
        let file = monitor.file(&disk.source);
        ensure!(
            !file.contains([',', ';']),
            "{file}: openvmm takes no disk with `,` or `;` in its path"
        );
        let read_only = if disk.read_only { ",ro" } else { "" };
        add("--disk", format!("file:{file}{read_only}"));
    }
    add("--guest-shutdown-action", "exit:0".into());
    add("--guest-reset-action", format!("exit:{REBOOT}"));
    add("--guest-crash-action", format!("exit:{CRASH}"));
    argv.extend(spec.extra.iter().cloned());

    let (line, log) = (shell_words::join(&argv), &monitor.early);
    let log = shell_words::quote(log);
    let line =
        format!("{line} 2>{log}; code=$?; [ $code = 0 ] || tail -n {SHOWN} {log}; exit $code");
    let words = ["script", "--quiet", "--flush", "--return", "--command"];
    let mut all = words.map(str::to_owned).to_vec();
    all.extend([line, "/dev/null".into()]);
    Ok(all)
}

/// Reads how it ended.
pub(crate) fn exit(said: &str) -> Exit {
    match said.strip_prefix("exit code ").map(str::parse) {
        Some(Ok(0)) => Exit::PowerOff,
        Some(Ok(REBOOT)) => Exit::Reboot,
        Some(Ok(CRASH)) => Exit::Crash,
        _ => Exit::Other(format!("openvmm ended with {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GuestDisk;

    fn line(spec: &GuestSpec) -> Result<Vec<String>> {
        let monitor = Monitor {
            program: vec!["/o v/openvmm".into()],
            early: "/run/log".into(),
            disks: vec![("/dev/firn/d0".into(), "/disks/a b.img".into())],
        };
        let files = Files {
            name: "g-1".into(),
            kernel: "/run/k".into(),
            ramdisk: None,
        };
        command_line(&monitor, spec, &files)
    }

    #[test]
    fn words_arrive_as_they_are() {
        let spec = GuestSpec::new("g", "k")
            .with_cmdline("log=info -- it's $x; poweroff")
            .with_disk(GuestDisk::new("d0", "sda").read_only());
        let argv = line(&spec).unwrap();
        assert_eq!(
            argv[..5].join(" "),
            "script --quiet --flush --return --command"
        );
        let (ours, rest) = argv[5].split_once(" 2>/run/log;").unwrap();
        assert!(rest.contains("tail -n 20 /run/log"), "{rest}");
        let expected = [
            "/o v/openvmm",
            "--hv",
            "--processors",
            "1",
            "--memory",
            "128MB",
            "--kernel",
            "/run/k",
            "--cmdline",
            "log=info -- it's $x; poweroff",
            "--com1",
            "console",
            "--disk",
            "file:/disks/a b.img,ro",
            "--guest-shutdown-action",
            "exit:0",
            "--guest-reset-action",
            "exit:10",
            "--guest-crash-action",
            "exit:11",
        ];
        assert_eq!(shell_words::split(ours).unwrap(), expected);
    }

    #[test]
    fn a_disk_that_it_would_read_otherwise_is_refused() {
        let spec = GuestSpec::new("g", "k").with_disk(GuestDisk::new("/a,ro", "sda"));
        assert!(line(&spec).unwrap_err().to_string().contains("/a,ro"));
    }

    #[test]
    fn each_end_is_told_from_the_others() {
        assert_eq!(exit("exit code 0"), Exit::PowerOff);
        assert_eq!(exit("exit code 10"), Exit::Reboot);
        assert_eq!(exit("exit code 11"), Exit::Crash);
        for bad in ["exit code 2", "signal 9"] {
            assert!(matches!(exit(bad), Exit::Other(why) if why.ends_with(bad)));
        }
    }
}
