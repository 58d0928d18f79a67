//! The driving end of the agent's stream.

use std::collections::HashMap;
use std::fmt;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use firn_lab_agent::{Event, Request, read_frame, write_frame};

use crate::transcript::Transcript;

/// On top of a command's own deadline: for the way there and back.
const GRACE: Duration = Duration::from_secs(10);

/// How long the other end may read nothing of what is sent.
const UNREAD: Duration = Duration::from_secs(30);

type Reply = (Event, Vec<u8>);

/// Waiting requests by id; `None` once the stream has ended.
type Waiting = Mutex<Option<HashMap<u64, mpsc::Sender<Reply>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The agent never began.
#[derive(Debug)]
pub(crate) struct Silent(pub(crate) Duration);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no word from the lab's agent within {:?}", self.0)
    }
}

impl std::error::Error for Silent {}

/// The client; any number of threads may use it at once.
pub(crate) struct Client {
    out: Mutex<(UnixStream, u64)>,
    waiting: Arc<Waiting>,
}

impl Client {
    /// Takes over a stream whose other end is (or will be) an agent, and
    /// waits for its greeting; `alive` is asked now and then.
    pub(crate) fn new(
        stream: UnixStream,
        deadline: Duration,
        alive: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Self> {
        let (to, greeting) = mpsc::channel();
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(Some(HashMap::from([(0, to)]))));
        let reader = BufReader::new(stream.try_clone()?);
        stream.set_write_timeout(Some(UNREAD))?;
        let shared = Arc::clone(&waiting);
        std::thread::spawn(move || dispatch(reader, &shared));
        let end = Instant::now() + deadline;
        while Instant::now() < end {
            match greeting.recv_timeout(Duration::from_millis(200)) {
                Ok((Event::Hello, _)) => {
                    let out = Mutex::new((stream, 1));
                    return Ok(Self { out, waiting });
                }
                Ok((event, _)) => bail!("the agent began with {event:?}"),
                Err(_) => alive()?,
            }
        }
        Err(Silent(deadline).into())
    }

    /// Ends the stream: the agent at its other end then ends, too.
    pub(crate) fn hang_up(&self) {
        // It fails only when the other end was quicker.
        let _gone = lock(&self.out).0.shutdown(Shutdown::Both);
    }

    /// Sends a request; its replies come through the channel.
    pub(crate) fn start(
        &self,
        request: &Request,
        payload: &[u8],
    ) -> Result<(u64, mpsc::Receiver<Reply>)> {
        let mut out = lock(&self.out);
        let id = out.1;
        out.1 += 1;
        let (to, replies) = mpsc::channel();
        lock(&self.waiting)
            .as_mut()
            .context("the lab has gone away")?
            .insert(id, to);
        if let Err(error) = write_frame(&mut out.0, id, request, payload) {
            // What follows half a frame would not be understood.
            let _gone = out.0.shutdown(Shutdown::Both);
            return Err(error).context("the lab does not listen");
        }
        Ok((id, replies))
    }

    /// Sends a request and collects its output until it is done.
    fn request(&self, request: &Request, payload: &[u8], deadline: Duration) -> Result<Vec<u8>> {
        let (_, replies) = self.start(request, payload)?;
        let end = Instant::now() + deadline;
        let mut content = Vec::new();
        loop {
            match next(&replies, end).with_context(|| format!("{request:?}"))? {
                (Event::Out, bytes) => content.extend(bytes),
                (Event::Done, _) => return Ok(content),
                (Event::Failed { what }, _) => bail!("in the lab: {what}"),
                (event, _) => bail!("unexpected answer to {request:?}: {event:?}"),
            }
        }
    }

    /// Runs a command to its end.
    pub(crate) fn exec(&self, argv: &[&str], deadline: Duration) -> Result<Output> {
        let argv: Vec<_> = argv.iter().map(|a| (*a).to_owned()).collect();
        let said = argv.join(" ");
        let request = Request::Exec {
            argv,
            deadline_ms: u64::try_from(deadline.as_millis())?,
        };
        let (_, replies) = self.start(&request, b"")?;
        let end = Instant::now() + deadline + GRACE;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        loop {
            match next(&replies, end).with_context(|| said.clone())? {
                (Event::Out, bytes) => stdout.extend(bytes),
                (Event::Err, bytes) => stderr.extend(bytes),
                (
                    Event::Exit {
                        timed_out: true, ..
                    },
                    _,
                ) => {
                    let (stdout, stderr) = (text(stdout), text(stderr));
                    bail!("`{said}` did not end within {deadline:?}:\n{stdout}{stderr}");
                }
                (Event::Exit { code, .. }, _) => {
                    let (stdout, stderr) = (text(stdout), text(stderr));
                    return Ok(Output {
                        code,
                        stdout,
                        stderr,
                    });
                }
                (Event::Failed { what }, _) => bail!("in the lab: {what}"),
                (event, _) => bail!("unexpected answer to `{said}`: {event:?}"),
            }
        }
    }

    pub(crate) fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.to_owned();
        // A serial port under emulation still moves some MiB per second.
        let deadline = GRACE * 6;
        self.request(&Request::Put { path, mode }, content, deadline)?;
        Ok(())
    }

    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>> {
        let path = path.to_owned();
        self.request(&Request::Get { path }, b"", GRACE * 6)
    }

    pub(crate) fn send(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = path.to_owned();
        self.request(&Request::Send { path }, bytes, GRACE)?;
        Ok(())
    }

    pub(crate) fn input(&self, target: u64, bytes: &[u8]) -> Result<()> {
        self.request(&Request::Input { target }, bytes, GRACE)?;
        Ok(())
    }

    pub(crate) fn kill(&self, target: u64) -> Result<()> {
        self.request(&Request::Kill { target }, b"", GRACE)?;
        Ok(())
    }

    /// Starts a request whose output goes to `transcript` until it ends.
    pub(crate) fn stream(&self, request: &Request, transcript: Arc<Transcript>) -> Result<u64> {
        let (id, replies) = self.start(request, b"")?;
        std::thread::spawn(move || {
            for (event, bytes) in replies {
                match event {
                    Event::Out | Event::Err => transcript.feed(&bytes),
                    Event::Exit { code, signal, .. } => {
                        return transcript.end(&exit_words(code, signal));
                    }
                    Event::Failed { what } => return transcript.end(&what),
                    Event::Done | Event::Hello => break,
                }
            }
            transcript.end("the stream ended");
        });
        Ok(id)
    }
}

fn exit_words(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it ended".into(),
    }
}

fn next(replies: &mpsc::Receiver<Reply>, end: Instant) -> Result<Reply> {
    let left = end.saturating_duration_since(Instant::now());
    replies.recv_timeout(left).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => anyhow!("the lab's agent does not answer"),
        mpsc::RecvTimeoutError::Disconnected => anyhow!("the lab has gone away"),
    })
}

/// Hands every event to the request it belongs to.
fn dispatch(mut reader: BufReader<UnixStream>, waiting: &Waiting) {
    while let Ok(Some((id, event, payload))) = read_frame::<Event>(&mut reader) {
        let last = !matches!(event, Event::Out | Event::Err);
        let mut waiting = lock(waiting);
        let Some(table) = waiting.as_mut() else {
            return;
        };
        if let Some(to) = table.get(&id) {
            // A requester that no longer listens is none of our business.
            let _gone = to.send((event, payload));
        }
        if last {
            table.remove(&id);
        }
    }
    lock(waiting).take();
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_agent_that_does_not_read_is_given_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        write_frame(&mut theirs, 0, &Event::Hello, b"").unwrap();
        let client = Client::new(ours, GRACE, &mut || Ok(())).unwrap();
        let stream = lock(&client.out).0.try_clone().unwrap();
        let limit = stream.write_timeout().unwrap();
        assert_eq!(limit, Some(UNREAD));
        stream
            .set_write_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let large = vec![0; 8 << 20];
        client.put("/tmp/large", 0o644, &large).unwrap_err();
        theirs.set_read_timeout(Some(GRACE)).unwrap();
        let half = theirs.read_to_end(&mut Vec::new());
        half.expect("nothing follows half a frame");
    }
}
