//! Every job against a disk in memory.

use crate::machine::{Machine, Mode, Power};
use crate::shell::PROMPT;
use crate::testing::{FakeMachine, Order, RamDisk, result, results, run};
use crate::verify_format::Pattern;
use firn_block::gate::Lifecycle;
use firn_block::{Discard, DiskId, Durability, lost_tokens};
use serde_json::Value;
use std::string::String;

const MIB: usize = 1 << 20;

fn machine() -> FakeMachine {
    FakeMachine::with_disk(RamDisk::new(0, 2 * MIB))
}

fn error(machine: &FakeMachine, line: &str) -> Value {
    let result = result(machine, line);
    assert_eq!(result["ok"], false, "{line}: {result}");
    for key in ["what", "where", "hint"] {
        let text = result[key].as_str().expect("text");
        assert!(!text.is_empty(), "{line}: {result}");
    }
    result
}

fn ok(machine: &FakeMachine, line: &str) -> Value {
    let result = result(machine, line);
    assert_eq!(result["ok"], true, "{line}: {result}");
    result
}

/// After any job: no page is held, nothing is in flight, no token was lost.
fn assert_clean(machine: &FakeMachine) {
    machine.settle();
    crate::io::reclaim(machine);
    assert_eq!(machine.pages(), 0, "pages are held");
    assert!(machine.channels().is_empty(), "channels are open");
    assert_eq!(lost_tokens(), 0);
}

#[test]
fn verify_writes_flushes_and_checks() {
    for order in [Order::First, Order::Last, Order::Random] {
        let machine = machine();
        machine.disk(0, |disk| disk.moods.order = order);
        let line = "verify xvda at=64k size=1M bs=16k qd=8 seed=7 generation=3";
        let result = ok(&machine, line);
        assert_eq!(result["disk"], "xvda");
        assert_eq!(result["bytes"], 2 * MIB, "written and read");
        assert_eq!(result["flushed"], true);
        machine.disk(0, |disk| {
            assert_eq!(disk.flushed, 1);
            let pattern = Pattern {
                seed: 7,
                generation: 3,
                block: 16 << 10,
            };
            let written = &disk.data[64 << 10..][..MIB];
            assert_eq!(pattern.check(128, written), Ok(()));
            assert!(disk.data[..64 << 10].iter().all(|byte| *byte == 0));
            assert!(disk.data[(64 << 10) + MIB..].iter().all(|byte| *byte == 0));
        });
        assert_clean(&machine);
    }
}

#[test]
fn partitions_shows_a_table_and_names_what_is_wrong_with_it() {
    let machine = machine();
    let none = ok(&machine, "partitions xvda");
    assert_eq!(none["guid"], Value::Null);
    assert_clean(&machine);

    let machine = self::machine();
    // A header's signature alone, with nothing behind it that fits.
    machine.disk(0, |disk| disk.data[512..520].copy_from_slice(b"EFI PART"));
    let damaged = error(&machine, "partitions xvda");
    assert_eq!(damaged["error"], "partition-table");
    assert_eq!(damaged["where"], "xvda");
    assert_clean(&machine);
}

#[test]
fn verify_names_the_sector_that_was_lost() {
    let machine = machine();
    machine.disk(0, |disk| disk.moods.lost_sector = Some(1234));
    let result = error(&machine, "verify xvda size=all qd=4");
    assert_eq!(result["error"], "mismatch");
    assert_eq!(result["where"], "xvda sector 1234");
    assert_eq!(result["sector"], 1234);
    assert_eq!(result["difference"], "zero");
    assert_clean(&machine);
}

#[test]
fn verify_holds_while_the_host_flips_a_byte() {
    let machine = machine();
    machine.when("waiting for a line 'go'", |machine| {
        machine.disk(0, |disk| disk.data[512 * 77 + 300] ^= 1);
        machine.type_in("not yet\ngo\n");
    });
    let result = error(&machine, "verify xvda size=1M hold");
    assert!(
        machine
            .output()
            .contains("verify: written, waiting for a line 'go'")
    );
    assert_eq!(result["sector"], 77);
    assert_eq!(result["difference"], "damaged");
}

#[test]
fn verify_does_not_hold_for_ever() {
    let machine = machine();
    let result = error(&machine, "verify xvda size=64k hold timeout=5s");
    assert_eq!(result["error"], "timed-out");
    assert!(result["seconds"].as_f64().expect("a number") >= 5.0);
    assert_clean(&machine);
}

#[test]
fn verify_checks_what_an_earlier_run_wrote() {
    let machine = machine();
    ok(&machine, "verify xvda size=1M seed=1 generation=5");
    let machine = again(&machine);
    ok(&machine, "verify xvda size=1M seed=1 generation=5 write=no");
    let machine = again(&machine);
    let result = error(&machine, "verify xvda size=1M seed=1 generation=6 write=no");
    assert_eq!(result["difference"], "generation");
    let machine = again(&machine);
    let result = error(&machine, "verify xvda size=1M seed=2 generation=5 write=no");
    assert_eq!(result["difference"], "other-seed");
}

/// A fresh machine with the disk of another.
fn again(machine: &FakeMachine) -> FakeMachine {
    let data = machine.disk(0, |disk| disk.data.clone());
    let mut disk = RamDisk::new(0, data.len());
    disk.data = data;
    FakeMachine::with_disk(disk)
}

#[test]
fn an_io_error_ends_a_job_with_its_sector() {
    let machine = machine();
    machine.disk(0, |disk| disk.moods.bad_sector = Some(500));
    for line in [
        "verify xvda size=1M bs=4k",
        "bench xvda rw=read bs=4k time=1s",
        "read xvda at=256000 size=512",
        "write xvda at=256000 text=hello",
    ] {
        let machine = {
            let fresh = again(&machine);
            fresh.disk(0, |disk| disk.moods.bad_sector = Some(500));
            if line.starts_with("verify") {
                // When the result is out, nothing is in flight any more.
                fresh.when("verify: FAILED", |machine| {
                    assert!(machine.channels().is_empty());
                    machine.type_in("disks\r");
                });
            }
            fresh
        };
        let result = results(&run(&machine, line)).remove(0);
        assert_eq!(result["error"], "io-error", "{line}");
        let looked = machine.output().contains("disks: ok");
        assert_eq!(looked, line.starts_with("verify"));
        let place = result["where"].as_str().expect("text");
        assert!(
            ["xvda sector 496", "xvda sector 500"].contains(&place),
            "{place}"
        );
        assert_clean(&machine);
    }
}

#[test]
fn a_disk_that_does_not_answer_is_given_up() {
    for line in [
        "verify xvda size=64k",
        "bench xvda",
        "flush xvda",
        "load xvda size=1M qd=4",
    ] {
        let machine = machine();
        machine.disk(0, |disk| disk.moods.stuck = true);
        let result = error(&machine, line);
        assert_eq!(result["error"], "stuck", "{line}");
        // It comes back later: nothing was lost.
        machine.disk(0, |disk| disk.moods.stuck = false);
        assert_clean(&machine);
    }
}

#[test]
fn a_disk_that_goes_away_ends_every_request_once() {
    for line in [
        "verify xvda size=1M bs=4k",
        "bench xvda rw=randread time=5s",
    ] {
        let machine = machine();
        machine.disk(0, |disk| disk.moods.detach_after = Some(100));
        let result = error(&machine, line);
        let kind = result["error"].as_str().expect("text");
        assert!(["io-error", "disk-not-live"].contains(&kind), "{kind}");
        assert_clean(&machine);
    }
    let machine = machine();
    machine.disk(0, |disk| disk.moods.detach_after = Some(1000));
    let result = ok(&machine, "load xvda size=1M bs=4k qd=32 time=60s");
    assert_eq!(result["gone"], true);
    assert_eq!(result["submitted"], result["completed"]);
    assert!(result["ended_gone"].as_u64().expect("a number") > 0);
    assert_clean(&machine);
}

#[test]
fn load_checks_what_it_reads() {
    let machine = machine();
    machine.disk(0, |disk| disk.moods.order = Order::Random);
    let result = ok(&machine, "load xvda size=256k bs=4k qd=16 time=1ms");
    assert!(
        result["checked"].as_u64().expect("a number") > 100,
        "{result}"
    );
    assert_eq!(result["submitted"], result["completed"]);
    let machine = again(&machine);
    machine.disk(0, |disk| disk.moods.lost_sector = Some(40));
    let result = error(&machine, "load xvda size=256k bs=4k qd=16 time=1ms");
    assert_eq!(
        (&result["error"], &result["sector"]),
        (&"mismatch".into(), &40.into())
    );
    let machine = again(&machine);
    machine.disk(0, |disk| disk.moods.bad_sector = Some(40));
    let result = error(&machine, "load xvda size=256k bs=4k qd=16 time=1ms");
    assert_eq!(result["error"], "io-error");
    assert_clean(&machine);
}

#[test]
fn bench_measures_in_both_modes() {
    for (mode, rw) in [
        ("poll", "randread"),
        ("event", "read"),
        ("poll", "randwrite"),
        ("event", "rw"),
    ] {
        let machine = machine();
        let line = std::format!("bench xvda rw={rw} bs=4k qd=8 time=3s mode={mode}");
        let before = machine.disk(0, |disk| disk.data.clone());
        machine.disk(0, |disk| disk.moods.pace = 64);
        let slow = machine.clone();
        // Time passes in this machine only when somebody looks at the clock.
        slow.set_tick(100_000);
        let result = ok(&machine, &line);
        assert_eq!(result["mode"], mode);
        let ios = result["ios"].as_u64().expect("a number");
        assert!(ios > 1000, "{result}");
        let seconds = result["steady_seconds"].as_f64().expect("a number");
        assert!((3.0..3.1).contains(&seconds), "{result}");
        let iops = result["iops"].as_f64().expect("a number");
        assert!((iops - ios as f64 / seconds).abs() < 1.0, "{result}");
        assert!(result["p50_us"].as_f64() <= result["p99_us"].as_f64());
        assert!(result["p99_us"].as_f64() <= result["max_us"].as_f64());
        assert_eq!(result["allocations"], 0, "printing is not counted");
        assert!(machine.output().contains("bench: measuring"), "progress");
        let changed = machine.disk(0, |disk| disk.data != before);
        assert_eq!(changed, rw.contains('w'), "{rw}");
        assert_eq!(
            machine.mode(DiskId(0)),
            Mode::Event,
            "the mode was put back"
        );
        assert_clean(&machine);
    }
}

#[test]
fn arguments_are_checked_before_any_io() {
    let cases = [
        ("verify xvdq", "no-such-disk", "there is xvda, xvdc"),
        ("verify xvda size=1G", "beyond-end", "smaller"),
        ("verify xvda at=2M size=512", "beyond-end", "smaller"),
        ("verify xvda at=16000000T", "beyond-end", "smaller"),
        ("verify xvda size=1000", "bad-argument", "size="),
        ("verify xvda size=0", "bad-argument", "size="),
        ("verify xvda at=100 size=512", "bad-argument", "at="),
        ("verify xvda size=1M bs=700", "bad-argument", "bs="),
        ("verify xvda size=1M bs=0", "bad-argument", "bs="),
        ("verify xvda size=1M bs=64M", "bad-argument", "bs="),
        ("verify xvda size=1M qd=0", "bad-argument", "qd="),
        ("verify xvda size=1M qd=5000", "bad-argument", "qd="),
        ("verify xvdc size=64k", "read-only", "writable"),
        ("bench xvdc rw=randwrite", "read-only", "writable"),
        ("load xvdc size=1M qd=4", "read-only", "writable"),
        ("write xvdc at=0 text=a", "read-only", "writable"),
        ("discard xvdc at=0 size=all", "read-only", "writable"),
        ("bench xvda bs=4k size=2k", "bad-argument", "size="),
        ("load xvda size=64k bs=16k qd=32", "bad-argument", "size="),
        ("read xvda size=1M", "bad-argument", "size="),
        ("read xvda size=0", "bad-argument", "size="),
        ("read xvda at=2M", "beyond-end", "smaller"),
        ("write xvda at=0", "bad-argument", "text="),
        ("write xvda at=0 fill=1", "bad-argument", "size="),
        (
            "write xvda at=0 fill=1 text=a size=512",
            "bad-argument",
            "fill=",
        ),
        (
            "write xvda at=0 text='a long text' size=0",
            "bad-argument",
            "size=",
        ),
        ("write xvda at=100 text=a", "bad-argument", "at="),
        ("discard xvda at=0 size=512 secure", "unsupported", "disks"),
        ("mode xvdq poll", "no-such-disk", "there is"),
        ("stats xvdq", "no-such-disk", "there is"),
        ("store rm /x", "bad-argument", "verb="),
        ("help nothing", "unknown-job", "help"),
        ("bench xvda qd=x", "bad-value", "number"),
        ("wait-disk xvdq timeout=100ms", "timed-out", "timeout="),
    ];
    for (line, kind, hint) in cases {
        let machine = machine();
        let mut disk = RamDisk::new(2, MIB);
        disk.info.read_only = true;
        machine.attach(disk);
        let result = error(&machine, line);
        assert_eq!(result["error"], kind, "{line}: {result}");
        let text = result["hint"].as_str().expect("text");
        assert!(text.contains(hint), "{line}: {result}");
        machine.disk(0, |disk| {
            use firn_block::Queue;
            assert_eq!(disk.stats().submitted, 0, "{line}");
        });
        assert_clean(&machine);
    }
}

#[test]
fn a_disk_with_large_sectors_wants_multiples_of_them() {
    let machine = machine();
    machine.disk(0, |disk| disk.info.logical_block = 4096);
    let result = error(&machine, "verify xvda size=1M bs=512");
    assert!(result["what"].as_str().expect("text").contains("4096"));
    let machine = again(&machine);
    machine.disk(0, |disk| disk.info.logical_block = 4096);
    ok(&machine, "write xvda at=4k text=firn");
    assert!(machine.disk(0, |disk| disk.data[4096..].starts_with(b"firn\0")));
    let machine = again(&machine);
    machine.disk(0, |disk| disk.info.logical_block = 4096);
    ok(&machine, "read xvda at=4097 size=3");
    assert!(
        machine.output().contains("69 72 6e"),
        "{}",
        machine.output()
    );
}

#[test]
fn a_tiny_disk_is_enough_for_size_all() {
    let machine = FakeMachine::with_disk(RamDisk::new(0, 512));
    ok(&machine, "verify xvda size=all");
    let machine = FakeMachine::with_disk(RamDisk::new(0, 0));
    assert_eq!(
        error(&machine, "verify xvda size=all")["error"],
        "beyond-end"
    );
}

#[test]
fn a_disk_that_is_not_live_says_why() {
    let machine = machine();
    machine.disk(0, |disk| disk.state = Lifecycle::Failed);
    let result = error(&machine, "bench xvda");
    assert_eq!(result["error"], "disk-not-live");
    assert_eq!(result["what"], "xvda is failed: in memory");
}

#[test]
fn a_disk_without_flush_promises_nothing() {
    let machine = machine();
    machine.disk(0, |disk| disk.info.durability = Durability::None);
    assert_eq!(error(&machine, "flush xvda")["error"], "unsupported");
    let machine = again(&machine);
    machine.disk(0, |disk| disk.info.durability = Durability::None);
    let result = ok(&machine, "verify xvda size=64k");
    assert_eq!(result["flushed"], false);
    // A host that takes flush back makes the job fail.
    let machine = again(&machine);
    machine.disk(0, |disk| disk.moods.refuses_flush = true);
    assert_eq!(error(&machine, "verify xvda size=64k")["error"], "io-error");
}

#[test]
fn write_read_discard_do_what_they_say() {
    let machine = machine();
    machine.disk(0, |disk| {
        disk.info.discard = Some(Discard {
            granularity: 512,
            alignment: 0,
            secure: true,
        });
    });
    let line = "write xvda at=1k text='hello firn'; write xvda at=128k fill=0x55 size=256k; \
                read xvda at=1k size=48; discard xvda at=128k size=64k; \
                discard xvda at=192k size=4k secure; flush xvda";
    let output = run(&machine, line);
    assert!(
        results(&output).iter().all(|result| result["ok"] == true),
        "{output}"
    );
    let row = "000000000400  68 65 6c 6c 6f 20 66 69 72 6e 00 00 00 00 00 00  hello firn......";
    assert!(output.contains(row), "{output}");
    assert!(output.contains("\n*\n"), "equal lines are left out");
    machine.disk(0, |disk| {
        assert_eq!(&disk.data[1024..1035], b"hello firn\0");
        let filled = &disk.data[196 << 10..384 << 10];
        assert!(filled.iter().all(|byte| *byte == 0x55));
        assert_eq!(disk.data[384 << 10], 0);
        assert_eq!(disk.discarded, [(256, 128, false), (384, 8, true)]);
        assert_eq!(disk.flushed, 3);
    });
    assert_clean(&machine);
}

#[test]
fn jobs_that_tell() {
    let machine = machine();
    machine.store_value("device/vbd/51712/state", "4");
    let line = "help; help verify; disks; stats; stats xvda; grants; trace; mem; sleep 1s; \
                store ls device; store read device/vbd/51712/state; mode xvda poll; disks; \
                wait-disk xvda; wait-disk xvdz gone";
    let line = line.replace("sleep 1s", "sleep time=1s");
    let output = run(&machine, &line);
    let results = results(&output);
    assert_eq!(results.len(), 15);
    assert!(
        results.iter().all(|result| result["ok"] == true),
        "{output}"
    );
    assert_eq!(results[2]["disks"][0]["bytes"], 2 * MIB);
    assert_eq!(results[12]["disks"][0]["mode"], "poll");
    assert_eq!(results[3]["disks"][0]["submitted"], 0);
    assert_eq!(results[10]["value"], "4");
    assert!(output.contains("vbd/51712/state = \"4\""), "{output}");
    assert!(output.contains("one line of Grants"));
    let machine = again(&machine);
    assert_eq!(error(&machine, "store read nowhere")["error"], "xenstore");
}

#[test]
fn a_disk_that_comes_later_is_waited_for() {
    let machine = machine();
    machine.when("ready", |machine| machine.attach(RamDisk::new(1, MIB)));
    let handle = machine.clone();
    machine.when("`help` lists all jobs.", move |_| {
        handle.type_in("wait-disk xvdb timeout=5s; verify xvdb size=1M\r");
    });
    machine.when("wait-disk xvdb", |machine| {
        machine.attach(RamDisk::new(1, MIB))
    });
    let output = run(&machine, "");
    let results = results(&output);
    assert_eq!(results.len(), 2, "{output}");
    assert!(
        results.iter().all(|result| result["ok"] == true),
        "{output}"
    );
}

#[test]
fn the_shell_goes_on_after_mistakes() {
    let machine = machine();
    machine.type_in("verfy\rdisks\r\r;;\rpoweroff\rdisks\r");
    let output = run(&machine, "bench xvdq; disks");
    let results = results(&output);
    let jobs: std::vec::Vec<&str> = results
        .iter()
        .map(|result| result["job"].as_str().expect("text"))
        .collect();
    assert_eq!(jobs, ["bench", "disks", "verfy", "disks", "poweroff"]);
    assert!(output.contains("did you mean `verify`?"), "{output}");
    assert_eq!(output.matches(PROMPT).count(), 5, "{output}");
    assert_eq!(machine.power_used(), Some(Power::Off));
}

#[test]
fn the_machine_ends_once_the_result_is_out() {
    for (job, power) in [
        ("poweroff", Power::Off),
        ("reboot", Power::Reboot),
        ("crash", Power::Crash),
    ] {
        let machine = machine();
        ok(&machine, job);
        assert_eq!(machine.power_used(), Some(power));
        assert!(!machine.output().contains(PROMPT));
    }
    let machine = machine();
    machine.make_powerless();
    let output = run(&machine, "poweroff");
    let last: Value = results(&output).pop().expect("a result");
    assert_eq!(last["error"], "power");
    assert!(output.contains(PROMPT), "the shell is there instead");
}

#[test]
fn an_interrupt_ends_a_job_and_nothing_else() {
    let machine = machine();
    machine.when("load: keeping busy", |machine| machine.type_in("\x03"));
    machine.set_tick(1_000_000);
    let output = run(&machine, "load xvda size=1M bs=4k time=60s; disks");
    let results = results(&output);
    assert_eq!(results[0]["error"], "interrupted");
    assert_eq!(results[1]["ok"], true);
    assert_clean(&machine);
}

#[test]
fn what_is_typed_ahead_is_not_lost() {
    let machine = machine();
    machine.when("load: keeping busy", |machine| machine.type_in("disks\r"));
    machine.set_tick(1_000_000);
    let output = run(&machine, "load xvda size=1M bs=4k time=3s");
    let results: std::vec::Vec<Value> = results(&output);
    assert_eq!(results.len(), 2, "{output}");
    assert_eq!(results[1]["job"], "disks");
}

#[test]
fn every_job_prints_exactly_one_result() {
    for spec in crate::lang::SPECS {
        let machine = machine();
        machine.set_tick(1_000_000);
        let mut line = String::from(spec.name);
        for arg in spec.args.iter().filter(|arg| arg.is_needed()) {
            let value = match arg.key {
                "disk" => "xvda",
                "time" => "1ms",
                "mode" => "poll",
                "verb" => "ls",
                _ => "0",
            };
            line += &std::format!(" {}={value}", arg.key);
        }
        result(&machine, &line);
        assert_clean(&machine);
    }
}
