//! The PV console (`io/console.h`): a page with a ring of bytes each way.
//!
//! Bytes pass as they are: who writes text ends lines with CR LF, and who reads
//! gets what the terminal sent. Nothing here waits: what does not fit into the
//! ring is kept in a buffer, and when that is full the oldest bytes give way to
//! a line that says how many are lost.
//!
//! A logger may stand on a console, so nothing here logs, and a call from
//! inside another one does nothing.

use crate::Xen;
use crate::byte_ring::{BadIndex, Consumer, Place, Producer};
use crate::event::EventError;
use crate::hal::{Hal, HalExt};
use crate::start_page::{StartPage, StartPageError};
use crate::trace::Source;
use crate::wire::console::{IN_SIZE, Interface, OUT_SIZE};
use crate::wire::event_channel::Port;
use crate::wire::hvm::{PARAM_CONSOLE_EVTCHN, PARAM_CONSOLE_PFN};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::mem::offset_of;
use firn_block::shm::Region;

/// Bytes kept for a host that does not read.
const BUFFER: usize = 16 * 1024;

const PAGE: StartPage = StartPage {
    frame: ("CONSOLE_PFN", PARAM_CONSOLE_PFN),
    port: ("CONSOLE_EVTCHN", PARAM_CONSOLE_EVTCHN),
};
const INPUT: Place = Place {
    data: offset_of!(Interface, input),
    size: IN_SIZE as u32,
    prod: offset_of!(Interface, in_prod),
    cons: offset_of!(Interface, in_cons),
};
const OUTPUT: Place = Place {
    data: offset_of!(Interface, output),
    size: OUT_SIZE as u32,
    prod: offset_of!(Interface, out_prod),
    cons: offset_of!(Interface, out_cons),
};

/// A PV console.
pub struct Console<H: Hal> {
    xen: Rc<Xen<H>>,
    port: Cell<Port>,
    state: RefCell<State>,
}

struct State {
    input: Consumer,
    output: Producer,
    waiting: VecDeque<u8>,
    /// Bytes that gave way since the last line that told so.
    lost: u64,
    offence: Option<ConsoleOffence>,
}

/// The console cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleError {
    /// The toolstack made no page for it.
    Page(StartPageError),
    /// The event channel cannot be used.
    Port(EventError),
    /// The host broke the protocol before we began.
    Offence(ConsoleOffence),
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(error) => write!(f, "console: {error}"),
            Self::Port(error) => write!(f, "console: {error}"),
            Self::Offence(offence) => write!(f, "console: {offence}"),
        }
    }
}

impl core::error::Error for ConsoleError {}

/// A rule that the console's host broke; the console is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleOffence {
    /// `out_cons` went back or beyond what we produced.
    OutputIndex {
        /// The host's index.
        cons: u32,
        /// Ours.
        prod: u32,
    },
    /// `in_prod` is more than a ring ahead of what we consumed, or went back.
    InputIndex {
        /// The host's index.
        prod: u32,
        /// Ours.
        cons: u32,
    },
}

impl ConsoleOffence {
    const fn output(bad: BadIndex) -> Self {
        Self::OutputIndex {
            cons: bad.theirs,
            prod: bad.ours,
        }
    }

    const fn input(bad: BadIndex) -> Self {
        Self::InputIndex {
            prod: bad.theirs,
            cons: bad.ours,
        }
    }
}

impl fmt::Display for ConsoleOffence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputIndex { cons, prod } => {
                write!(f, "out_cons is {cons:#x} while out_prod is {prod:#x}")
            }
            Self::InputIndex { prod, cons } => {
                write!(f, "in_prod is {prod:#x} while in_cons is {cons:#x}")
            }
        }
    }
}

impl core::error::Error for ConsoleOffence {}

impl<H: Hal> Console<H> {
    /// The console of the HVM parameters `CONSOLE_PFN` and `CONSOLE_EVTCHN`.
    /// Its port is unmasked: it fires when there is input or room for output.
    ///
    /// # Errors
    /// [`ConsoleError`].
    pub fn attach(xen: &Rc<Xen<H>>) -> Result<Self, ConsoleError> {
        let (page, port) = PAGE.find(&xen.hal).map_err(ConsoleError::Page)?;
        let port = xen.events.adopt(port).map_err(ConsoleError::Port)?;
        let state = State::new(&page).map_err(ConsoleError::Offence)?;
        xen.events.unmask(port);
        Ok(Self {
            xen: xen.clone(),
            port: Cell::new(port),
            state: state.into(),
        })
    }

    /// Takes up the console of a new host, after
    /// [`Xen::resume`](crate::Xen::resume). What waits to be written goes there.
    ///
    /// # Errors
    /// [`ConsoleError`]; the console is disabled then.
    pub fn resume(&self) -> Result<(), ConsoleError> {
        let found = PAGE.find(&self.xen.hal).map_err(ConsoleError::Page);
        let (page, port) = found?;
        let port = self.xen.events.adopt(port).map_err(ConsoleError::Port)?;
        self.port.set(port);
        if let Ok(mut state) = self.state.try_borrow_mut() {
            let fresh = State::new(&page).map_err(ConsoleError::Offence)?;
            let (input, output) = (fresh.input, fresh.output);
            (state.input, state.output, state.offence) = (input, output, None);
        }
        self.xen.events.unmask(port);
        self.flush();
        Ok(())
    }

    /// The event channel.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port.get()
    }

    /// Why the console is disabled.
    #[must_use]
    pub fn is_failed(&self) -> Option<ConsoleOffence> {
        self.state.try_borrow().ok()?.offence
    }

    /// Takes bytes for the host. Returns how many were taken: all of them, or
    /// none when the console is disabled. If the host does not read, the oldest
    /// bytes not yet in the ring give way.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return 0;
        };
        if state.offence.is_some() {
            return 0;
        }
        state.queue(bytes);
        drop(state);
        self.flush();
        bytes.len()
    }

    /// Moves what waits into the ring. Returns whether nothing waits any more:
    /// a caller that wants to be sure tries again until a deadline of its own.
    /// To be called when the port fired, too.
    pub fn flush(&self) -> bool {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return false;
        };
        let sent = state.send();
        let done = state.waiting.is_empty();
        drop(state);
        if self.checked(sent.map_err(ConsoleOffence::output)) > 0 {
            self.kick();
        }
        done
    }

    /// Whether the host has read everything, the ring included.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return true;
        };
        // A host that breaks the protocol reads nothing more.
        state.waiting.is_empty() && state.output.room().map_or(true, |room| room == OUT_SIZE)
    }

    /// Reads what the host sent: returns how many bytes of `buffer` it filled.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let Ok(mut state) = self.state.try_borrow_mut() else {
            return 0;
        };
        if state.offence.is_some() {
            return 0;
        }
        let mut host_waits = false;
        let received = state.input.receive(buffer).map(|(len, wake)| {
            host_waits = wake;
            len
        });
        drop(state);
        if host_waits {
            self.kick();
        }
        self.checked(received.map_err(ConsoleOffence::input))
    }

    fn kick(&self) {
        // An event that cannot be sent is not worth more than the bytes.
        let _ = self.xen.hal.send_event(self.port.get());
    }

    /// The number of bytes moved; an offence disables the console.
    fn checked(&self, moved: Result<usize, ConsoleOffence>) -> usize {
        match moved {
            Ok(len) => len,
            Err(offence) => {
                self.xen.events.mask(self.port.get());
                self.xen.record(Source::Console, "offence", 0);
                let mut state = self.state.borrow_mut();
                state.offence = Some(offence);
                state.waiting.clear();
                0
            }
        }
    }
}

impl State {
    fn new(page: &Region) -> Result<Self, ConsoleOffence> {
        let mut input = Consumer::new(page.alias(), INPUT);
        let mut output = Producer::new(page.alias(), OUTPUT);
        // What an earlier user wrote may still be unread, and early typing too.
        input.adopt();
        let (unread, size) = (output.adopt(), OUT_SIZE as u32);
        if unread > size {
            return Err(ConsoleOffence::output(output.bad_index()));
        }
        Ok(Self {
            input,
            output,
            waiting: VecDeque::with_capacity(BUFFER + 64),
            lost: 0,
            offence: None,
        })
    }

    /// Appends bytes; the oldest give way.
    fn queue(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(BUFFER)..];
        let excess = (self.waiting.len() + kept.len()).saturating_sub(BUFFER);
        self.waiting.drain(..excess);
        self.waiting.extend(kept);
        self.lost += (bytes.len() - kept.len() + excess) as u64;
    }

    fn send(&mut self) -> Result<usize, BadIndex> {
        if self.waiting.is_empty() || self.offence.is_some() {
            return Ok(0);
        }
        if self.lost > 0 && self.output.room()? > 0 {
            let note = alloc::format!("\r\n[{} bytes lost]\r\n", self.lost);
            self.lost = 0;
            for byte in note.bytes().rev() {
                self.waiting.push_front(byte);
            }
        }
        self.output.send(&mut self.waiting)
    }
}
