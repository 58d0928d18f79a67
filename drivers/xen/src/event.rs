//! Event channels, 2-level ABI (`xen.h`, "EVENT CHANNEL" section).
//!
//! Xen sets a port's pending bit, then the selector bit of its word, then the
//! vCPU's upcall flag. [`Events::scan`] undoes the three in the opposite order,
//! so that whatever arrives meanwhile raises the flag again, and notes which
//! ports fired; owners collect that with [`Events::take`] or wait for the
//! port's [`Signal`].

use crate::hal::{Fixed, Hal};
use crate::hypercall::Hypercall;
use crate::wire::errno::Errno;
use crate::wire::event_channel::{AllocUnbound, BindVirq, Close, PORTS_2L, Port};
use crate::wire::memory::{AddToPhysmap, SPACE_SHARED_INFO};
use crate::wire::misc::SchedPoll;
use crate::wire::{DomId, Gfn};
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use firn_block::shm::Region;
use firn_task::{Few, Signal};

const UPCALL_PENDING: usize = 0;
const PENDING_SEL: usize = 8;
const PENDING: usize = 2048;
const MASK: usize = 2560;
const WORDS: usize = 64;

/// The first vCPU's event channels.
pub struct Events {
    info: Region,
    fired: [Cell<u64>; WORDS],
    signals: RefCell<Few<u32, Rc<Signal>>>,
    scans: Cell<u64>,
}

/// Event channels could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventError {
    /// The shared info page could not be placed outside RAM.
    SharedInfo(Errno),
    /// The shared info frame cannot be reached.
    Unreachable,
    /// No port could be allocated or bound.
    Bind(Errno),
    /// The hypervisor gave a port that the 2-level ABI cannot express.
    PortOutOfRange(u32),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedInfo(errno) => write!(f, "Xen did not map the shared info page: {errno}"),
            Self::Unreachable => f.write_str("the shared info frame is not mapped"),
            Self::Bind(errno) => write!(f, "Xen gave no event channel: {errno}"),
            Self::PortOutOfRange(port) => write!(f, "Xen gave port {port}, beyond 4095"),
        }
    }
}

impl core::error::Error for EventError {}

impl Events {
    /// Maps the shared info page and masks every port.
    ///
    /// # Errors
    /// [`EventError`] when the page cannot be mapped.
    pub fn new(hal: &impl Hal) -> Result<Self, EventError> {
        let frame = place_shared_info(hal)?;
        let info = hal.map_frames(frame, 1).ok_or(EventError::Unreachable)?;
        let events = Self {
            info,
            fired: [const { Cell::new(0) }; WORDS],
            signals: RefCell::new(Few::new()),
            scans: Cell::new(0),
        };
        events.mask_all();
        Ok(events)
    }

    /// Takes up the event channels of a new host: none is ours yet, and whoever
    /// waits for one of the old host's is woken to look around.
    ///
    /// # Errors
    /// [`EventError`] when the shared info page cannot be mapped.
    pub fn resume(&self, hal: &impl Hal) -> Result<(), EventError> {
        place_shared_info(hal)?;
        self.mask_all();
        for fired in &self.fired {
            fired.set(0);
        }
        let stale = core::mem::take(&mut *self.signals.borrow_mut());
        for signal in stale.values() {
            signal.notify();
        }
        Ok(())
    }

    fn mask_all(&self) {
        for word in 0..WORDS {
            let mask = self.info.atomic_u64(MASK + 8 * word);
            mask.store(u64::MAX, SeqCst);
        }
    }

    /// The shared info page: the clock lives there too.
    #[must_use]
    pub const fn shared_info(&self) -> &Region {
        &self.info
    }

    /// Whether Xen says that some port has news. What the main loop
    /// looks at before it waits.
    #[must_use]
    pub fn upcall_pending(&self) -> bool {
        self.info.atomic_u8(UPCALL_PENDING).load(Acquire) != 0
    }

    /// Collects pending, unmasked ports and wakes who waits for them. Returns
    /// whether there were any. Bounded by the number of ports.
    pub fn scan(&self) -> bool {
        self.info.atomic_u8(UPCALL_PENDING).store(0, SeqCst);
        let mut words = self.info.atomic_u64(PENDING_SEL).swap(0, AcqRel);
        if words == 0 {
            return false;
        }
        self.scans.set(self.scans.get() + 1);
        let mut any = false;
        while words != 0 {
            let word = words.trailing_zeros() as usize;
            words &= words - 1;
            let mask = self.info.atomic_u64(MASK + 8 * word).load(Acquire);
            let pending = self.info.atomic_u64(PENDING + 8 * word);
            let ready = pending.load(Acquire) & !mask;
            if ready != 0 {
                pending.fetch_and(!ready, AcqRel);
                self.note(word, ready);
                any = true;
            }
        }
        any
    }

    fn note(&self, word: usize, ready: u64) {
        self.fired[word].set(self.fired[word].get() | ready);
        let mut bits = ready;
        while bits != 0 {
            let port = word as u32 * 64 + bits.trailing_zeros();
            bits &= bits - 1;
            if let Some(signal) = self.signals.borrow().get(&port) {
                signal.notify();
            }
        }
    }

    /// Whether the port fired since this was last asked.
    pub fn take(&self, port: Port) -> bool {
        let (word, bit) = place(port);
        let fired = self.fired[word].get();
        self.fired[word].set(fired & !bit);
        fired & bit != 0
    }

    /// The signal that is notified whenever the port fires.
    pub fn signal(&self, port: Port) -> Rc<Signal> {
        let mut signals = self.signals.borrow_mut();
        if let Some(signal) = signals.get(&port.0) {
            return signal.clone();
        }
        let signal = Rc::<Signal>::default();
        signals.insert(port.0, signal.clone());
        signal
    }

    /// Stops the port's events from raising upcalls; they stay pending.
    pub fn mask(&self, port: Port) {
        let (word, bit) = place(port);
        self.info.atomic_u64(MASK + 8 * word).fetch_or(bit, AcqRel);
    }

    /// Lets the port's events through again. One that came while masked is
    /// noted at once and reported by the result: Xen does not raise it again.
    pub fn unmask(&self, port: Port) -> bool {
        let (word, bit) = place(port);
        self.info
            .atomic_u64(MASK + 8 * word)
            .fetch_and(!bit, SeqCst);
        let pending = self.info.atomic_u64(PENDING + 8 * word);
        if pending.load(SeqCst) & bit == 0 {
            return false;
        }
        pending.fetch_and(!bit, AcqRel);
        self.note(word, bit);
        true
    }

    /// Allocates a port whose other end `remote` may bind. It is masked.
    ///
    /// # Errors
    /// [`EventError`] when there is none.
    pub fn alloc_unbound(&self, hal: &impl Hal, remote: DomId) -> Result<Port, EventError> {
        let mut arg = AllocUnbound::new(remote);
        hal.hypercall(Hypercall::AllocUnbound(&mut arg))
            .map_err(EventError::Bind)?;
        self.adopt(Port(arg.port))
    }

    /// Binds a virtual interrupt of the first vCPU to a port. It is masked.
    ///
    /// # Errors
    /// [`EventError`] when Xen refuses.
    pub fn bind_virq(&self, hal: &impl Hal, virq: u32) -> Result<Port, EventError> {
        let mut arg = BindVirq {
            virq,
            vcpu: 0,
            port: 0,
        };
        hal.hypercall(Hypercall::BindVirq(&mut arg))
            .map_err(EventError::Bind)?;
        self.adopt(Port(arg.port))
    }

    /// Starts to use a port that the toolstack bound: masked, nothing noted.
    ///
    /// # Errors
    /// [`EventError::PortOutOfRange`].
    pub fn adopt(&self, port: Port) -> Result<Port, EventError> {
        if port.0 >= PORTS_2L {
            return Err(EventError::PortOutOfRange(port.0));
        }
        self.mask(port);
        self.take(port);
        Ok(port)
    }

    /// Closes a port of ours.
    ///
    /// # Errors
    /// What Xen says; the port counts as closed in any case.
    pub fn close(&self, hal: &impl Hal, port: Port) -> Result<(), Errno> {
        self.mask(port);
        self.take(port);
        self.signals.borrow_mut().remove(&port.0);
        let (word, bit) = place(port);
        let result = hal.hypercall(Hypercall::ClosePort(&Close { port: port.0 }));
        let pending = self.info.atomic_u64(PENDING + 8 * word);
        pending.fetch_and(!bit, Release);
        result.map(|_| ())
    }

    /// Waits in the hypervisor until a port that is not masked has an event, with
    /// interrupts off. One that came since the last [`Events::scan`] ends the wait
    /// at once: Xen looks at the pending bits itself. Should it not do that, or
    /// not for so many ports, this returns early, which is correct, if wasteful.
    pub fn wait(&self, hal: &impl Hal) {
        let mut ports = [0; SchedPoll::MAX_PORTS];
        let waited = match self.unmasked(&mut ports) {
            Some(ports) => hal.hypercall(Hypercall::poll(ports)),
            None => Err(Errno::EINVAL),
        };
        if waited.is_err() {
            // What it answers makes no difference.
            let _ = hal.hypercall(Hypercall::Yield);
        }
    }

    /// The ports that are not masked: those whose news somebody waits for; none
    /// if there are more of them than `into` has room for.
    fn unmasked<'a>(&self, into: &'a mut [u32]) -> Option<&'a [u32]> {
        let mut count = 0;
        for word in 0..WORDS {
            let mut open = !self.info.atomic_u64(MASK + 8 * word).load(Relaxed);
            while open != 0 {
                *into.get_mut(count)? = word as u32 * 64 + open.trailing_zeros();
                open &= open - 1;
                count += 1;
            }
        }
        into.get(..count)
    }

    /// How many scans found some selector bit set: upcalls that had a reason.
    #[must_use]
    pub fn scans(&self) -> u64 {
        self.scans.get()
    }

    /// Whether the port's mask bit is set.
    #[must_use]
    pub fn is_masked(&self, port: Port) -> bool {
        let (word, bit) = place(port);
        self.info.atomic_u64(MASK + 8 * word).load(Relaxed) & bit != 0
    }
}

/// Has Xen put the shared info page at the frame set aside for it.
fn place_shared_info(hal: &impl Hal) -> Result<Gfn, EventError> {
    let frame = hal.fixed(Fixed::SharedInfo).first;
    let map = AddToPhysmap {
        domid: DomId::SELF.0,
        size: 0,
        space: SPACE_SHARED_INFO,
        idx: 0,
        gpfn: frame.0,
    };
    hal.hypercall(Hypercall::AddToPhysmap(&map))
        .map_err(EventError::SharedInfo)?;
    Ok(frame)
}

/// Word and bit of a port; ports were checked when they were adopted.
fn place(port: Port) -> (usize, u64) {
    ((port.0 / 64) as usize % WORDS, 1 << (port.0 % 64))
}
