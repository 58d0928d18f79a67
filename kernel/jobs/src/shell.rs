//! The shell: runs the jobs of the command line, then what is typed.

use crate::editor::{Action, Editor};
use crate::error::JobError;
use crate::input::Input;
use crate::io::reclaim;
use crate::jobs;
use crate::lang::{self, Call, LangError};
use crate::machine::Machine;
use crate::result::{self, Common, Outcome};
use crate::shelf::Shelf;
use crate::task::Task;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use core::time::Duration;
use firn_task::Instant;

/// What the shell says when it waits for a line.
pub const PROMPT: &str = "firn> ";

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a machine that was ended runs nothing more"]
pub enum Flow {
    /// The machine is on.
    On,
    /// A job ended the machine.
    Ended,
}

/// Runs the jobs of `line`, then a shell on the console. Returns when a job
/// ended the machine (so in practice only in tests).
pub async fn run<M: Machine>(machine: M, line: String) {
    let shell = Shell::new(machine);
    if shell.run_line(&line).await == Flow::Ended {
        return;
    }
    shell.interact().await;
}

/// One console with somebody at it.
pub struct Shell<M: Machine> {
    machine: M,
    input: Rc<Input<M>>,
    shelf: Rc<Shelf>,
}

impl<M: Machine> Shell<M> {
    /// A shell on the machine's console.
    pub fn new(machine: M) -> Self {
        Self {
            input: Rc::new(Input::new(machine.clone())),
            machine,
            shelf: Rc::default(),
        }
    }

    /// Reads lines and runs them, until a job ends the machine.
    pub async fn interact(&self) {
        let mut editor = Editor::new(PROMPT);
        self.machine.print(format_args!("`help` lists all jobs.\n"));
        loop {
            let line = self.read(&mut editor).await;
            if self.run_line(&line).await == Flow::Ended {
                return;
            }
        }
    }

    /// Runs the jobs of a line one after the other, whether they succeed or not.
    pub async fn run_line(&self, line: &str) -> Flow {
        for call in lang::calls(line) {
            if self.run_call(call).await == Flow::Ended {
                return Flow::Ended;
            }
        }
        Flow::On
    }

    async fn read(&self, editor: &mut Editor) -> String {
        let mut echo = String::new();
        editor.prompt(&mut echo);
        loop {
            self.machine.print(format_args!("{echo}"));
            echo.clear();
            match editor.feed(self.input.byte().await, &mut echo) {
                Action::More => {}
                Action::Line(line) => {
                    self.machine.print(format_args!("{echo}"));
                    return line;
                }
                Action::Interrupted => editor.prompt(&mut echo),
            }
        }
    }

    async fn run_call(&self, call: Result<Call, LangError>) -> Flow {
        let Call { job, beside } = match call {
            Ok(call) => call,
            Err(error) => {
                self.print_failure(error.job(), JobError::Line(error.clone()));
                return Flow::On;
            }
        };
        let name = job.name();
        let power = jobs::power(&job);
        let (input, shelf) = (self.input.clone(), self.shelf.clone());
        let task = Task::new(name, self.machine.clone(), input, shelf);
        if beside && power.is_none() {
            let running = self.shelf.begin(task.stop());
            self.machine.spawn(Box::pin(async move {
                let started = task.machine.now();
                let outcome = jobs::run(&task, job).await;
                print_outcome(&task, started, outcome);
                drop(running);
            }));
            return Flow::On;
        }
        let started = self.machine.now();
        let run = jobs::run(&task, job);
        let outcome = self.input.unless_interrupted(run).await;
        let outcome = outcome.unwrap_or(Err(JobError::Interrupted));
        print_outcome(&task, started, outcome);
        match power.map(|power| self.machine.power(power)) {
            None => Flow::On,
            Some(Ok(())) => Flow::Ended,
            Some(Err(why)) => {
                self.print_failure(name, JobError::Power(why));
                Flow::On
            }
        }
    }

    /// The result of a job that never ran.
    fn print_failure(&self, job: &str, error: JobError) {
        let common = Common {
            job,
            disk: None,
            bytes: 0,
            took: Duration::ZERO,
        };
        result::print(&self.machine, &common, Err(error));
    }
}

/// Prints how a job ended, and gives back what it left behind.
fn print_outcome<M: Machine>(task: &Task<M>, started: Instant, outcome: Result<Outcome, JobError>) {
    reclaim(&task.machine);
    let common = Common {
        job: task.job,
        disk: task.disk(),
        bytes: task.bytes(),
        took: task.machine.now().since(started),
    };
    result::print(&task.machine, &common, outcome);
}
