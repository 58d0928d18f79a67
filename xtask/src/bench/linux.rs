//! The Linux side: fio on xen-blkfront.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use firn_lab::{Guest, GuestSpec, Images, Lab};
use serde_json::Value;

use super::{Sample, Workload, backend_events};

/// Emulated, on a busy machine.
const UP: Duration = Duration::from_secs(240);
const SLACK: Duration = Duration::from_secs(90);

/// A small Linux PVH guest.
pub(crate) fn spec(images: &Images, disk: &str) -> GuestSpec {
    super::spec("linux", images.linux(), disk)
        .with_ramdisk(images.guest())
        .with_cmdline("console=hvc0 quiet loglevel=3 mitigations=off")
        .with_memory(384)
}

/// Boots one with fio to its prompt.
pub(crate) fn boot(lab: &Lab, images: &Images, disk: &str) -> Result<Guest> {
    let guest = lab.guest(&spec(images, disk).with_ramdisk(images.guest_with_fio()))?;
    guest.wait_for("GUEST: ready", UP)?;
    Ok(guest)
}

/// Types fio's command line, and reads what it says.
pub(crate) fn measure(
    lab: &Lab,
    guest: &Guest,
    what: Workload,
    time: Duration,
    engine: &str,
) -> Result<Sample> {
    let before = backend_events(lab)?;
    guest.send(command(what, time, engine).as_bytes())?;
    let line = guest.wait_for("fio-result ", time + SLACK)?;
    let after = backend_events(lab)?;
    read(&line, after.saturating_sub(before))
}

/// The marker is broken by quotes, so that the echo of what is typed is not
/// taken for the answer.
fn command(what: Workload, time: Duration, engine: &str) -> String {
    let Workload { rw, bs, qd, .. } = what;
    let seconds = time.as_secs();
    format!(
        "e() {{ awk '/ blkif$/ {{ n += $2 }} END {{ print n + 0 }}' /proc/interrupts; }}; \
         a=$(e); r=$(fio --name=j --filename=/dev/xvda --direct=1 --ioengine={engine} \
         --rw={rw} --bs={bs} --iodepth={qd} --time_based --runtime={seconds} --norandommap \
         --randrepeat=0 --output-format=json | tr -d ' \\n'); \
         echo \"fio-\"\"result $a $(e) $r\"\n"
    )
}

/// Reads `fio-result EVENTS-BEFORE EVENTS-AFTER JSON`.
fn read(line: &str, notifications: u64) -> Result<Sample> {
    let (_, rest) = line.split_once("fio-result ").context("no result")?;
    let mut words = rest.splitn(3, ' ');
    let mut number = || words.next().and_then(|w| w.parse::<u64>().ok());
    let (Some(before), Some(after)) = (number(), number()) else {
        bail!("no event counts in {rest:?}");
    };
    let rest = words.next().unwrap_or_default();
    // fio's remarks come first.
    let json = rest.find('{').map_or("", |at| &rest[at..]);
    let fio: Value = serde_json::from_str(json).with_context(|| format!("fio said {rest:?}"))?;
    let read = &fio["jobs"][0]["read"];
    let value = |value: &Value, name: &str| {
        let value = value[name].as_f64();
        value.with_context(|| format!("no {name} in fio's result"))
    };
    let ios = value(read, "total_ios")?;
    let share = |count: u64| count as f64 / ios.max(1.0);
    let latency = &read["clat_ns"]["percentile"];
    Ok(Sample {
        iops: value(read, "iops")?,
        mean_us: value(&read["lat_ns"], "mean")? / 1000.0,
        p50_us: value(latency, "50.000000")? / 1000.0,
        p99_us: value(latency, "99.000000")? / 1000.0,
        events: share(after.saturating_sub(before)),
        notifications: share(notifications),
        hypercalls: None,
        cycles: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_fio_is_read() {
        let line = r#"fio-result 10 30 note:x{"jobs":[{"read":{"iops":5.5,"total_ios":40,
            "lat_ns":{"mean":2000.0},
            "clat_ns":{"percentile":{"50.000000":1000,"99.000000":9000}}}}]}"#;
        let sample = read(&line.replace('\n', ""), 20).unwrap();
        assert_eq!(sample.iops, 5.5);
        assert_eq!((sample.events, sample.notifications), (0.5, 0.5));
        let times = (sample.mean_us, sample.p50_us, sample.p99_us);
        assert_eq!(times, (2.0, 1.0, 9.0));
        assert!(read("fio-result 1 2 fio: no such file", 0).is_err());
    }

    #[test]
    fn the_echo_of_the_command_is_no_result() {
        let typed = command(
            super::super::WORKLOADS[0],
            Duration::from_secs(5),
            "io_uring",
        );
        assert!(!typed.contains("fio-result "));
    }
}
