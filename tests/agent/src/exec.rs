//! Running a program with streamed output and a deadline.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use firn_lab_agent::Event;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Agent, Control};

/// How long output may trail the program's end: a daemon that it left behind
/// can hold the pipe open for ever.
const TRAIL: Duration = Duration::from_millis(300);

/// Runs `argv` and reports as request `id`.
pub(crate) fn run(
    agent: &Arc<Agent>,
    id: u64,
    argv: &[String],
    deadline: Duration,
    control: mpsc::Receiver<Control>,
) {
    let mut child = match spawn(argv) {
        Ok(child) => child,
        Err(what) => return agent.send(id, &Event::Failed { what }, b""),
    };
    let readers = [
        child.stdout.take().map(|s| pump(agent, id, Event::Out, s)),
        child.stderr.take().map(|s| pump(agent, id, Event::Err, s)),
    ];
    let timed_out = Arc::new(Mutex::new(false));
    watch(&mut child, deadline, control, Arc::clone(&timed_out));
    let status = child.wait();
    let end = Instant::now();
    for reader in readers.into_iter().flatten() {
        while !reader.is_finished() && end.elapsed() < TRAIL {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let timed_out = *timed_out.lock().unwrap_or_else(PoisonError::into_inner);
    let event = match status {
        Ok(status) => Event::Exit {
            code: status.code(),
            signal: status.signal(),
            timed_out,
        },
        Err(error) => Event::Failed {
            what: format!("waiting for {}: {error}", argv[0]),
        },
    };
    agent.send(id, &event, b"");
}

fn spawn(argv: &[String]) -> Result<Child, String> {
    let (program, args) = argv.split_first().ok_or("an empty command")?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))
}

/// Sends everything that `source` gives as `event` frames.
fn pump(
    agent: &Arc<Agent>,
    id: u64,
    event: Event,
    mut source: impl Read + Send + 'static,
) -> JoinHandle<()> {
    let agent = Arc::clone(agent);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n @ 1..) = source.read(&mut buffer) {
            agent.send(id, &event, &buffer[..n]);
        }
    })
}

/// Feeds standard input and kills the group on request or at the deadline.
/// The thread ends when the request leaves the table of running ones.
fn watch(
    child: &mut Child,
    deadline: Duration,
    control: mpsc::Receiver<Control>,
    timed_out: Arc<Mutex<bool>>,
) {
    let mut stdin = child.stdin.take();
    let group = Pid::from_child(child);
    let end = Instant::now() + deadline;
    thread::spawn(move || {
        loop {
            match control.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Control::Input(bytes)) if bytes.is_empty() => stdin = None,
                Ok(Control::Input(bytes)) => {
                    if let Some(pipe) = &mut stdin {
                        let _ended = pipe.write_all(&bytes).and_then(|()| pipe.flush());
                    }
                }
                Ok(Control::Kill) => kill_group(group),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    *timed_out.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    kill_group(group);
                    return;
                }
            }
        }
    });
}

/// By the system call, not by a `kill` program: some take a negative number
/// for something else.
fn kill_group(group: Pid) {
    // It fails only when nothing of the group is left.
    let _gone = kill_process_group(group, Signal::KILL);
}
