//! The ledger on a disk in memory: what it acknowledges is there, and what is
//! wrong with its disk after a restore it finds.

use crate::ledger_format::{Acks, Audit, Layout, Tally};
use crate::testing::{FakeMachine, Order, RamDisk, results, run};
use firn_block::Durability;
use serde_json::Value;
use std::string::String;
use std::vec::Vec;

const XVDA: u32 = 0;
const MIB: usize = 1 << 20;
const ROOM: &str = "disk=xvda at=64k size=1M bs=512";

fn layout() -> Layout {
    Layout::new(1, 128, MIB as u64, 512).expect("it fits")
}

fn machine() -> FakeMachine {
    let mut disk = RamDisk::new(XVDA, 4 * MIB);
    disk.moods.order = Order::Random;
    FakeMachine::with_disk(disk)
}

/// What the host would count: the disk, and what the console said.
fn tally(machine: &FakeMachine, output: &str) -> Tally {
    let mut acks = Acks::default();
    for line in output.lines() {
        acks.line(1, line);
    }
    machine.disk(XVDA, |disk| {
        let mut audit = Audit::new(layout());
        let places = disk.data[64 << 10..][..MIB].chunks(512);
        for (slot, bytes) in (0..).zip(places) {
            audit.look(slot, bytes);
        }
        audit.tally(&acks)
    })
}

fn ended<'a>(results: &'a [Value], job: &str) -> &'a Value {
    let found = results.iter().find(|result| result["job"] == job);
    found.expect("the job ended")
}

fn run_line(machine: &FakeMachine, line: &str) -> (String, Vec<Value>) {
    let output = run(machine, line);
    let results = results(&output);
    (output, results)
}

#[test]
fn every_record_is_acknowledged_and_present() {
    for durability in [Durability::Flush, Durability::None] {
        let machine = machine();
        machine.disk(XVDA, |disk| disk.info.durability = durability);
        let line = std::format!("ledger {ROOM} records=700 qd=16 reads=30; poweroff");
        let (output, results) = run_line(&machine, &line);
        let ledger = ended(&results, "ledger");
        assert_eq!(ledger["ok"], true, "{ledger}");
        assert_eq!(ledger["upto"], 700);
        assert!(ledger["checked"].as_u64() > Some(0), "{ledger}");
        let tally = tally(&machine, &output);
        assert!(tally.is_whole(), "{tally:?}");
        assert_eq!((tally.present, tally.newest), (700, 700));
        assert_eq!(machine.pages(), 0);
    }
}

#[test]
fn a_full_ledger_goes_round() {
    let machine = machine();
    let line = std::format!("ledger {ROOM} records=9000 qd=32 reads=20; poweroff");
    let (output, results) = run_line(&machine, &line);
    assert_eq!(ended(&results, "ledger")["ok"], true, "{results:?}");
    let tally = tally(&machine, &output);
    assert!(tally.is_whole(), "{tally:?}");
    assert_eq!(tally.due, 2048 - 512);
}

#[test]
fn it_goes_on_after_a_freeze_from_memory() {
    let machine = machine();
    let line = std::format!(
        "ledger {ROOM} rate=2000 qd=4 &; sleep time=100ms; freeze; sleep time=100ms; suspend; sleep time=100ms; stop; poweroff"
    );
    let (output, results) = run_line(&machine, &line);
    let ledger = ended(&results, "ledger");
    assert_eq!(ledger["ok"], true, "{ledger}");
    assert_eq!(
        (&ledger["restores"], &ledger["resumes"]),
        (&1.into(), &1.into())
    );
    assert!(output.contains("after the restore: all"), "{output}");
    assert!(output.contains("after the resume: all"), "{output}");
    let tally = tally(&machine, &output);
    assert!(tally.is_whole(), "{tally:?}");
    assert_eq!(tally.boots, 2);
    assert!(tally.acknowledged > 400, "{tally:?}");
}

#[test]
fn a_disk_that_lost_or_gained_records_is_found_after_the_restore() {
    type Harm = fn(&mut RamDisk);
    let cases: [(Harm, &str); 3] = [
        (
            |disk| disk.data[(64 << 10) + 512 * 9] ^= 1,
            "record 10 is not on the disk",
        ),
        (
            |disk| disk.data[64 << 10..][..512 * 5].fill(0),
            "record 1 is not on the disk",
        ),
        (
            |disk| {
                // Another life of the same memory has written the next record.
                let mut audit = Audit::new(layout());
                let places = disk.data[64 << 10..][..MIB].chunks(512);
                for (slot, bytes) in (0..).zip(places) {
                    audit.look(slot, bytes);
                }
                let (mut record, seal) = audit.chain_end().expect("a chain");
                record.seq += 1;
                record.chain = seal.link;
                let at = (64 << 10) + 512 * layout().slot(record.seq) as usize;
                record.fill(&layout(), &mut disk.data[at..at + 512]);
            },
            "was written by another life of this memory",
        ),
    ];
    for (harm, what) in cases {
        let machine = machine();
        machine.when_frozen(move |machine| {
            machine.settle();
            machine.disk(XVDA, harm);
        });
        let line = std::format!(
            "ledger {ROOM} records=50 &; wait; ledger {ROOM} rate=100 &; sleep time=300ms; freeze; sleep time=200ms; stop; poweroff"
        );
        let (_, results) = run_line(&machine, &line);
        let ledger = results.iter().rfind(|result| result["job"] == "ledger");
        let ledger = ledger.expect("it ended");
        assert_eq!(ledger["error"], "ledger", "{ledger}");
        let said = ledger["what"].as_str().expect("text");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn without_its_memory_it_goes_on_after_the_last_record_on_the_disk() {
    let machine = machine();
    let line = std::format!("ledger {ROOM} records=30; ledger {ROOM} records=30; poweroff");
    let (output, results) = run_line(&machine, &line);
    assert_eq!(results[1]["upto"], 60, "{results:?}");
    assert!(output.contains("goes on after record 30"), "{output}");
    assert!(tally(&machine, &output).is_whole());
    // Anew, it acknowledges the first records a second time: the host tells.
    let line = std::format!("ledger {ROOM} records=10 recover=no; poweroff");
    let (again, _) = run_line(&machine, &line);
    let tally = tally(&machine, &again);
    assert_eq!(tally.acknowledged, 60);
    assert!(tally.doubled > 0, "{tally:?}");
}

#[test]
fn a_lost_write_is_lost_only_once_it_was_flushed() {
    let machine = machine();
    machine.disk(XVDA, |disk| disk.moods.lost_sector = Some(128 + 7));
    let line = std::format!("ledger {ROOM} records=20; poweroff");
    let (output, _) = run_line(&machine, &line);
    let tally = tally(&machine, &output);
    assert_eq!((tally.lost, tally.first_lost), (1, Some(8)));
}

#[test]
fn failed_writes_are_never_acknowledged() {
    let machine = machine();
    machine.disk(XVDA, |disk| disk.moods.bad_sector = Some(128 + 7));
    let line = std::format!("ledger {ROOM} records=20 qd=4; poweroff");
    let (output, results) = run_line(&machine, &line);
    assert_eq!(ended(&results, "ledger")["error"], "io-error");
    let tally = tally(&machine, &output);
    assert!(tally.acknowledged < 8 && tally.is_whole(), "{tally:?}");
}

#[test]
fn what_makes_no_ledger_is_refused() {
    for words in [
        "size=4k",
        "bs=128k size=1M",
        "size=4M bs=1k reads=100",
        "size=4M qd=0",
    ] {
        let (_, results) = run_line(&machine(), &std::format!("ledger disk=xvda {words}"));
        assert_eq!(results[0]["error"], "bad-argument", "{words}");
    }
}
