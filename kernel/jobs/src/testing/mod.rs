//! A machine in memory for the tests: disks whose moods a test sets, a console
//! that is a string, and time that passes only when nothing else happens.

mod disk;
mod machine;

pub(crate) use disk::{Order, RamDisk};
pub(crate) use machine::FakeMachine;

use crate::shell;
use firn_task::Executor;
use std::string::{String, ToString};
use std::vec::Vec;

/// How often the main loop of a test may turn before it counts as hung.
const MAX_TURNS: usize = 20_000_000;

/// Runs the jobs of `line`, and what is typed, until the machine is off or
/// waits for input that never comes. Returns what was printed.
pub(crate) fn run(machine: &FakeMachine, line: &str) -> String {
    let executor = Executor::new();
    executor.spawn(shell::run(machine.clone(), line.to_string()));
    turn(machine, &executor);
    // The machine is off: nobody runs any more, and nobody holds it.
    machine.executor().clear();
    machine.output()
}

/// Polls tasks and lets the host work until nothing moves any more.
pub(crate) fn turn(machine: &FakeMachine, executor: &Executor) {
    for _ in 0..MAX_TURNS {
        let ran = executor.poll_ready() | machine.executor().poll_ready();
        let moved = machine.host_turn();
        if executor.is_empty() {
            return;
        }
        if !ran && !moved && !machine.skip_to_next_timer() {
            return;
        }
    }
    panic!("hung; so far: {}", machine.output());
}

/// The `firn-result` lines of an output.
pub(crate) fn results(output: &str) -> Vec<serde_json::Value> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix(crate::result::RESULT_PREFIX))
        .map(|json| serde_json::from_str(json).expect("valid JSON"))
        .collect()
}

/// Runs one job and returns its result.
pub(crate) fn result(machine: &FakeMachine, line: &str) -> serde_json::Value {
    let mut results = results(&run(machine, line));
    assert_eq!(results.len(), 1, "{line}: {}", machine.output());
    results.remove(0)
}
