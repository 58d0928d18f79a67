//! What jobs ask of the machine as a whole.

use crate::machine::Machine;
use crate::power::PowerRefusal;
use crate::testing::{FakeMachine, RamDisk, result, results, run};

const XVDB: u32 = 1;

#[test]
fn the_machine_answers_what_jobs_ask_of_it_all() {
    let machine = FakeMachine::with_disk(RamDisk::new(XVDB, 1 << 20));
    for line in [
        "freeze image=xvdb --check",
        "freeze image=xvdb check level=drain then=thaw compress=lz4",
        "image show xvdb",
        "image format disk=xvdb",
        "suspend",
        "cold",
        "memhash",
    ] {
        let machine = machine.clone();
        let mut results = results(&run(&machine, line));
        assert_eq!(results.pop().unwrap()["ok"], true, "{line}");
    }
    let refused = result(&FakeMachine::default(), "freeze image=xvdb");
    assert_eq!(refused["error"], "no-such-disk");
    let unclear = result(&FakeMachine::default(), "image burn xvdb");
    assert_eq!(unclear["error"], "bad-value");
}

#[test]
fn a_refusal_of_the_machine_keeps_its_own_words() {
    let machine = FakeMachine::with_disk(RamDisk::new(XVDB, 1 << 20));
    machine.refuse(PowerRefusal {
        error: "no-room",
        what: "the image needs more".into(),
        place: "xvdb".into(),
        hint: "use a larger disk".into(),
    });
    let result = result(&machine, "freeze xvdb");
    assert_eq!(result["error"], "no-room");
    assert_eq!(result["what"], "the image needs more");
    assert_eq!(result["hint"], "use a larger disk");
}

#[test]
fn the_jobs_after_a_freeze_run_after_the_restore() {
    let machine = FakeMachine::with_disk(RamDisk::new(XVDB, 1 << 20));
    machine.when_frozen(|machine| machine.type_in("memhash\n"));
    let results = results(&run(&machine, "freeze xvdb; disks"));
    let jobs: std::vec::Vec<_> = results.iter().map(|result| &result["job"]).collect();
    assert_eq!(jobs, ["freeze", "disks", "memhash"]);
    assert_eq!(machine.era().restores, 1);
}

#[test]
fn filled_memory_is_checked_and_freed() {
    let machine = FakeMachine::default();
    let line =
        "fill size=1M seed=3; fill size=128k data=text; freeze; fill-check; fill-free; fill-check";
    let results = results(&run(&machine, line));
    let bytes: std::vec::Vec<_> = results.iter().map(|r| r["bytes"].as_u64()).collect();
    assert!(
        results.iter().all(|result| result["ok"] == true),
        "{results:?}"
    );
    assert_eq!(bytes[3], Some((1 << 20) + (128 << 10)));
    assert_eq!(bytes[5], Some(0));
    let odd = result(&FakeMachine::default(), "fill size=1");
    assert_eq!(odd["error"], "bad-argument");
}

#[test]
fn background_jobs_run_beside_others_and_are_waited_for() {
    let machine = FakeMachine::with_disk(RamDisk::new(XVDB, 4 << 20));
    let line = "load xvdb size=2M time=1ms & verify xvdb at=2M size=1M; wait; stop; poweroff";
    let results = results(&run(&machine, line));
    let jobs: std::vec::Vec<_> = results.iter().map(|result| &result["job"]).collect();
    assert_eq!(jobs, ["verify", "load", "wait", "stop", "poweroff"]);
    assert!(
        results.iter().all(|result| result["ok"] == true),
        "{results:?}"
    );
    let machine = FakeMachine::with_disk(RamDisk::new(XVDB, 4 << 20));
    let output = run(&machine, "sleep time=100s & wait timeout=1s");
    assert!(
        output.contains("1 jobs in the background go on"),
        "{output}"
    );
}
