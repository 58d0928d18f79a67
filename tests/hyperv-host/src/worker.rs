//! A disk's worker: who reads and writes while the guest goes on.
//!
//! Two threads for each disk. One carries everything out in the order in which it
//! was asked for; flushes it hands on to the other, so that what comes after one
//! need not wait for it: by then all that was written before is in the file. Neither
//! touches the guest or its memory. Whoever drops the disk waits for both.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};

use firn_peers::{Backing, Later, Work};

/// Requests that wait for the disk; beyond these, the guest does.
const DEPTH: usize = 64;

/// What is done with a file.
pub(crate) trait Medium: Send + 'static {
    fn read(&mut self, sector: u64, to: &mut [u8]) -> io::Result<()>;
    fn write(&mut self, sector: u64, from: &[u8]) -> io::Result<()>;
    fn discard(&mut self, sector: u64, sectors: u64) -> io::Result<()>;
    /// Makes all that was written durable; called by a thread of its own.
    fn flusher(&self) -> io::Result<impl FnMut() -> io::Result<()> + Send + 'static>;
}

enum Task {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Discard(u64, u64),
    Flush,
}

type Answer = Sender<io::Result<Vec<u8>>>;

/// A disk that others work at.
pub(crate) struct Worker {
    /// Nobody asks any more once this is gone.
    ask: Option<SyncSender<(Task, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the threads; `wake` is called whenever something has ended.
    ///
    /// # Errors
    /// The file cannot be flushed from another thread.
    pub(crate) fn start(
        medium: impl Medium,
        wake: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (ask, asked) = mpsc::sync_channel(DEPTH);
        let (pass_on, flushes) = mpsc::channel::<Answer>();
        let (mut flush, woken) = (medium.flusher()?, wake.clone());
        let flusher = thread::spawn(move || {
            for answer in flushes {
                tell(&answer, flush().map(|()| Vec::new()));
                woken();
            }
        });
        let thread = thread::spawn(move || {
            work(medium, &asked, &pass_on, wake);
            drop(pass_on);
            // It does not panic; nor is there anybody to tell.
            let _ended = flusher.join();
        });
        Ok(Self {
            ask: Some(ask),
            thread: Some(thread),
        })
    }

    fn ask(&self, task: Task) -> Later {
        let (answer, later) = mpsc::channel();
        if let Some(ask) = &self.ask {
            // A worker that is gone is one whose answer never comes: an error.
            let _gone = ask.send((task, answer));
        }
        later
    }

    fn wait(&self, task: Task) -> io::Result<Vec<u8>> {
        self.ask(task).recv().map_err(io::Error::other)?
    }
}

/// Carries out what is asked for, until nobody can ask.
fn work(
    mut medium: impl Medium,
    asked: &Receiver<(Task, Answer)>,
    flushes: &Sender<Answer>,
    wake: impl Fn(),
) {
    for (task, answer) in asked {
        let nothing = |()| Vec::new();
        let done = match task {
            Task::Read(sector, bytes) => {
                let mut data = vec![0; bytes];
                medium.read(sector, &mut data).map(|()| data)
            }
            Task::Write(sector, data) => medium.write(sector, &data).map(nothing),
            Task::Discard(sector, sectors) => medium.discard(sector, sectors).map(nothing),
            Task::Flush => {
                // It lives as long as we do.
                let _gone = flushes.send(answer);
                continue;
            }
        };
        tell(&answer, done);
        wake();
    }
}

fn tell(answer: &Answer, done: io::Result<Vec<u8>>) {
    // A controller that was closed meanwhile waits for no answer.
    let _closed = answer.send(done);
}

impl Drop for Worker {
    /// What was begun is done before the disk is gone.
    fn drop(&mut self) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Backing for Worker {
    fn read(&mut self, sector: u64, to: &mut [u8]) -> io::Result<()> {
        let data = self.wait(Task::Read(sector, to.len()))?;
        to.copy_from_slice(&data);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> io::Result<()> {
        self.wait(Task::Write(sector, from.to_vec())).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait(Task::Flush).map(drop)
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> io::Result<()> {
        self.wait(Task::Discard(sector, sectors)).map(drop)
    }

    fn begin(&mut self, work: Work<'_>) -> Option<Later> {
        Some(self.ask(match work {
            Work::Read(sector, bytes) => Task::Read(sector, bytes),
            Work::Write(sector, data) => Task::Write(sector, data.to_vec()),
            Work::Flush => Task::Flush,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Condvar, Mutex};

    #[derive(Default)]
    struct State {
        /// In order.
        done: Mutex<Vec<String>>,
        may: Mutex<bool>,
        now: Condvar,
    }

    /// A medium that does nothing before it may.
    #[derive(Clone, Default)]
    struct Slow(Arc<State>);

    impl Slow {
        fn note(&self, what: String) {
            let may = self.0.may.lock().unwrap();
            drop(self.0.now.wait_while(may, |may| !*may).unwrap());
            self.0.done.lock().unwrap().push(what);
        }

        fn let_go(&self) {
            *self.0.may.lock().unwrap() = true;
            self.0.now.notify_all();
        }

        fn done(&self) -> Vec<String> {
            self.0.done.lock().unwrap().clone()
        }
    }

    impl Medium for Slow {
        fn read(&mut self, sector: u64, to: &mut [u8]) -> io::Result<()> {
            self.note(format!("read {sector}"));
            to.fill(7);
            Ok(())
        }

        fn write(&mut self, sector: u64, _: &[u8]) -> io::Result<()> {
            self.note(format!("write {sector}"));
            match sector {
                13 => Err(io::ErrorKind::Other.into()),
                _ => Ok(()),
            }
        }

        fn discard(&mut self, sector: u64, _: u64) -> io::Result<()> {
            self.note(format!("discard {sector}"));
            Ok(())
        }

        fn flusher(&self) -> io::Result<impl FnMut() -> io::Result<()> + Send + 'static> {
            let there = self.clone();
            Ok(move || {
                there.note("flush".into());
                Ok(())
            })
        }
    }

    #[test]
    fn nobody_waits_for_a_slow_disk() {
        let slow = Slow::default();
        let (woken, wakes) = mpsc::channel();
        let wake = move || woken.send(()).unwrap();
        let mut worker = Worker::start(slow.clone(), wake).unwrap();
        let write = worker.begin(Work::Write(1, &[1; 512])).unwrap();
        let read = worker.begin(Work::Read(2, 1024)).unwrap();
        assert!(write.try_recv().is_err() && slow.done().is_empty());
        slow.let_go();
        assert!(write.recv().unwrap().unwrap().is_empty());
        assert_eq!(read.recv().unwrap().unwrap(), [7; 1024]);
        wakes.recv().unwrap();
        wakes.recv().unwrap();
    }

    #[test]
    fn a_flush_comes_after_what_was_written_before() {
        let slow = Slow::default();
        let mut worker = Worker::start(slow.clone(), || ()).unwrap();
        let first = worker.begin(Work::Write(1, &[1; 512])).unwrap();
        let flush = worker.begin(Work::Flush).unwrap();
        slow.let_go();
        flush.recv().unwrap().unwrap();
        assert_eq!(slow.done(), ["write 1", "flush"]);
        first.recv().unwrap().unwrap();
        worker.discard(4, 8).unwrap();
        assert!(worker.write(13, &[1; 512]).is_err());
        assert_eq!(slow.done()[2..], ["discard 4", "write 13"]);
    }

    #[test]
    fn what_was_begun_is_done_before_the_disk_is_gone() {
        let slow = Slow::default();
        let mut worker = Worker::start(slow.clone(), || ()).unwrap();
        for sector in 0..20 {
            // Nobody waits for these.
            drop(worker.begin(Work::Write(sector, &[0; 512])));
        }
        drop(worker.begin(Work::Flush));
        slow.let_go();
        drop(worker);
        assert_eq!(slow.done().len(), 21);
        assert_eq!(slow.done()[20], "flush");
    }
}
