//! The agent: runs inside the lab's dom0 or KVM host, serves the requests of
//! [`firn_lab_agent::Request`] that come in over the port, and ends when the
//! driving machine hangs up (its init then powers the lab off, so that no
//! emulator is ever left behind). With `--stdin` it serves a socket that it
//! was given as standard input, on a machine whose own KVM is used.
#![forbid(unsafe_code)]

mod exec;
mod files;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use firn_lab_agent::{Event, PORT_NAME, Request, read_frame, write_frame};

/// How long to wait for the port to appear and for its other end.
const PORT_DEADLINE: Duration = Duration::from_secs(30);

/// How long commands may take to die when the other end has hung up.
const END_DEADLINE: Duration = Duration::from_secs(3);

/// What can be told to a request that is being served.
enum Control {
    /// Bytes for its standard input; empty closes it.
    Input(Vec<u8>),
    /// End it.
    Kill,
}

/// The write side and the requests in progress, shared by all threads.
struct Agent {
    out: Mutex<File>,
    running: Mutex<HashMap<u64, mpsc::Sender<Control>>>,
}

impl Agent {
    /// Sends one event; a stream that is gone ends the agent in its reader.
    fn send(&self, id: u64, event: &Event, payload: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _gone = write_frame(&mut *out, id, event, payload);
    }

    fn finish(&self, id: u64, result: Result<(), String>) {
        match result {
            Ok(()) => self.send(id, &Event::Done, b""),
            Err(what) => self.send(id, &Event::Failed { what }, b""),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<Control>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self, id: u64, target: u64, what: Control) {
        let sent = self
            .running()
            .get(&target)
            .is_some_and(|to| to.send(what).is_ok());
        let result = if sent {
            Ok(())
        } else {
            Err(format!("request {target} is not running"))
        };
        self.finish(id, result);
    }

    /// Kills every command; waits for their ends, but not for ever.
    fn end_all(&self) {
        for to in self.running().values() {
            // One that has just ended needs no killing.
            let _ended = to.send(Control::Kill);
        }
        let start = Instant::now();
        while !self.running().is_empty() && start.elapsed() < END_DEADLINE {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Serves one request; long ones go on in threads of their own.
    fn serve(self: &Arc<Self>, id: u64, request: Request, payload: Vec<u8>) {
        match request {
            Request::Input { target } => self.control(id, target, Control::Input(payload)),
            Request::Kill { target } => self.control(id, target, Control::Kill),
            Request::Exec { argv, deadline_ms } => {
                let deadline = Duration::from_millis(deadline_ms);
                self.spawn(id, move |agent, control| {
                    exec::run(&agent, id, &argv, deadline, control);
                });
            }
            Request::Tail { path } => {
                self.spawn(id, move |agent, control| {
                    let result = files::tail(&agent, id, &path, &control);
                    agent.finish(id, result);
                });
            }
            Request::Put { path, mode } => self.spawn(id, move |agent, _| {
                agent.finish(id, files::put(&path, mode, &payload));
            }),
            Request::Get { path } => self.spawn(id, move |agent, _| {
                let result = files::get(&agent, id, &path);
                agent.finish(id, result);
            }),
            Request::Send { path } => self.spawn(id, move |agent, _| {
                agent.finish(id, files::send(&path, &payload));
            }),
        }
    }

    fn spawn(
        self: &Arc<Self>,
        id: u64,
        work: impl FnOnce(Arc<Self>, mpsc::Receiver<Control>) + Send + 'static,
    ) {
        let (to, control) = mpsc::channel();
        self.running().insert(id, to);
        let agent = Arc::clone(self);
        thread::spawn(move || {
            work(Arc::clone(&agent), control);
            agent.running().remove(&id);
        });
    }
}

/// Finds the port by its name; udev's `/dev/virtio-ports` does not exist here.
fn find_port() -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Some(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    None
}

fn open_port() -> io::Result<File> {
    let start = Instant::now();
    loop {
        if let Some(path) = find_port() {
            return OpenOptions::new().read(true).write(true).open(path);
        }
        if start.elapsed() > PORT_DEADLINE {
            return Err(io::Error::other(format!("no virtio port {PORT_NAME}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Serves requests until the other end hangs up; then ends what still runs.
/// For `patience` the stream may look ended before the first request: so does
/// a port until its other end's "open" arrives.
fn serve(port: File, patience: Duration) -> io::Result<()> {
    let agent = Arc::new(Agent {
        out: Mutex::new(port.try_clone()?),
        running: Mutex::default(),
    });
    agent.send(0, &Event::Hello, b"");
    let mut input = BufReader::new(port);
    let start = Instant::now();
    let mut greeted = false;
    loop {
        match read_frame::<Request>(&mut input)? {
            Some((id, request, payload)) => {
                greeted = true;
                agent.serve(id, request, payload);
            }
            None if !greeted && start.elapsed() < patience => {
                thread::sleep(Duration::from_millis(20));
            }
            None => break,
        }
    }
    agent.end_all();
    Ok(())
}

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--stdin") {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        return serve(File::from(socket), Duration::ZERO);
    }
    serve(open_port()?, PORT_DEADLINE)
}

#[cfg(test)]
mod tests;
