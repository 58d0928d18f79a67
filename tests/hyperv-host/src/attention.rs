//! Who wakes the processor: what is typed, lines that wait, the deadline.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::end::End;
use crate::machine::Machine;
use crate::options::Options;

/// How long somebody waits for attention at most.
const PERIOD: Duration = Duration::from_millis(5);
/// How often to see whether the processor is still the guest's.
const INSPECTION: Duration = Duration::from_secs(1);

/// What the processor's thread shall look at between two turns.
#[derive(Default)]
pub struct Attention {
    typed: Mutex<Vec<u8>>,
    wish: AtomicBool,
    look: AtomicBool,
    /// The processor's thread.
    guest: OnceLock<JoinHandle<()>>,
    /// It has turns to interrupt.
    begun: AtomicBool,
    expired: AtomicBool,
    inspection: AtomicBool,
}

impl Attention {
    /// Somebody has something to do soon.
    pub fn wish(&self) {
        self.wish.store(true, SeqCst);
    }

    /// Somebody has something to do now.
    pub fn want(&self) {
        // Who has not looked yet was interrupted for that.
        if !self.look.swap(true, SeqCst) {
            self.interrupt();
        }
    }

    /// The processor's turns begin. What goes before them (KVM makes a machine) would
    /// fail if it were interrupted; what is wanted meanwhile waits.
    pub fn begin(&self) {
        self.begun.store(true, SeqCst);
    }

    /// Has the processor leave the guest.
    fn interrupt(&self) {
        let guest = self.guest.get().filter(|_| self.begun.load(SeqCst));
        if let Some(guest) = guest {
            let _ended = guest.kill(SIGRTMIN());
        }
    }

    /// Whether it is time to look who had a wish; then it is done now.
    #[must_use]
    pub fn take_look(&self) -> bool {
        self.look.swap(false, SeqCst)
    }

    /// Whether the guest's time is over.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expired.load(SeqCst)
    }

    /// Whether it is time to inspect the processor; then it is done now.
    #[must_use]
    pub fn take_inspection(&self) -> bool {
        self.inspection.swap(false, SeqCst)
    }

    /// Takes what was typed.
    pub fn take_typed(&self, to: &mut Vec<u8>) {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        to.append(&mut typed);
    }

    fn type_in(&self, bytes: &[u8]) {
        let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        typed.extend_from_slice(bytes);
        drop(typed);
        self.wish();
    }
}

/// A signal does its work by arriving: the processor leaves the guest.
extern "C" fn arrived(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Runs a guest to its end, in a thread of its own, and wakes it when somebody
/// wants its attention.
///
/// # Errors
/// The machine cannot be made, or fails.
pub fn run(options: Options) -> Result<End> {
    register_signal_handler(SIGRTMIN(), arrived).context("handling signals")?;
    let attention = Arc::<Attention>::default();
    let deadline = options.deadline.map(|after| Instant::now() + after);
    let shared = Arc::clone(&attention);
    thread::spawn(move || listen(&shared));
    let shared = Arc::clone(&attention);
    let (tell, end) = mpsc::channel();
    let guest = thread::Builder::new().name("guest".into());
    let guest = guest.spawn(move || {
        // Who started it waits for this.
        let _told = tell.send(live(&options, shared));
    })?;
    attention.guest.get_or_init(|| guest);
    let mut inspected = Instant::now();
    loop {
        match end.recv_timeout(PERIOD) {
            Ok(end) => return end,
            Err(RecvTimeoutError::Disconnected) => bail!("the guest's thread panicked"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let expired = deadline.is_some_and(|at| at <= Instant::now());
        if expired {
            attention.expired.store(true, SeqCst);
        }
        if attention.wish.swap(false, SeqCst) {
            attention.look.store(true, SeqCst);
        }
        if inspected.elapsed() >= INSPECTION {
            inspected = Instant::now();
            attention.inspection.store(true, SeqCst);
        }
        // A signal that comes between two turns is lost: the next one will not be.
        let due = [&attention.look, &attention.inspection];
        if expired || due.iter().any(|due| due.load(SeqCst)) {
            attention.interrupt();
        }
    }
}

fn live(options: &Options, attention: Arc<Attention>) -> Result<End> {
    let mut machine = Machine::new(options, attention)?;
    let end = machine.run()?;
    for complaint in machine.complaints() {
        eprintln!("hyperv-host: complaint: {complaint}");
    }
    Ok(end)
}

/// Passes on what is typed, until standard input ends.
fn listen(attention: &Attention) {
    let mut bytes = [0; 256];
    let mut input = io::stdin().lock();
    while let Ok(count @ 1..) = input.read(&mut bytes) {
        attention.type_in(&bytes[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    static SIGNALS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        SIGNALS.fetch_add(1, SeqCst);
    }

    #[test]
    fn a_machine_in_the_making_is_not_interrupted() {
        register_signal_handler(SIGRTMIN(), count).unwrap();
        let attention = Attention::default();
        let (end, ended) = mpsc::channel::<()>();
        let guest = thread::spawn(move || {
            let _dropped = ended.recv();
        });
        attention.guest.get_or_init(|| guest);
        attention.want();
        thread::sleep(PERIOD * 10);
        assert_eq!(SIGNALS.load(SeqCst), 0);
        attention.begin();
        assert!(attention.take_look(), "it was wanted all the same");
        attention.want();
        let start = Instant::now();
        while SIGNALS.load(SeqCst) == 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "no signal");
            thread::sleep(PERIOD);
        }
        drop(end);
    }
}
