//! Integration services: the host asks the guest to stop, whether it lives, and
//! tells it the time. Each service is a channel of its own.
//!
//! [`Services`] opens those that are offered, answers, and hands out what is left
//! to be done. A kernel uses it like this:
//!
//! - One task runs [`Services::run`], for ever. [`Services::hibernates`] says
//!   whether a hibernation could succeed; the host is told so.
//! - One task awaits [`Services::next`]. An [`Event::Command`] has been answered
//!   already: whoever gets it acts on it. An [`Event::Time`] is what the time was
//!   at an instant of the guest's own clock; a clock that never goes back is the
//!   kernel's to keep.
//! - Before the bus is unloaded, [`Services::close`]; after contact was made anew,
//!   or when that was called off, [`Services::open`].

mod message;
mod offence;
mod serve;

pub use message::{News, answer};
pub use offence::Offence;

use crate::hal::Hal;
use crate::ring;
use crate::vmbus::{BusError, Vmbus};
use crate::wire::Guid;
use crate::wire::cpuid::{self, privilege};
use crate::wire::ic::{EPOCH, Version};
use crate::wire::msr::Msr;
use crate::wire::vmbus::class;
use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use firn_task::{Instant, Signal, join_all};

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The host asks the guest to stop.
    Shutdown,
    /// The host tells the time.
    TimeSync,
    /// The host asks whether the guest lives.
    Heartbeat,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Shutdown, Self::TimeSync, Self::Heartbeat];

    const fn class(self) -> Guid {
        match self {
            Self::Shutdown => class::SHUTDOWN,
            Self::TimeSync => class::TIME_SYNC,
            Self::Heartbeat => class::HEARTBEAT,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shutdown",
            Self::TimeSync => "time synchronisation",
            Self::Heartbeat => "heartbeat",
        })
    }
}

/// What the host wants of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Power off.
    PowerOff,
    /// Start again.
    Reboot,
    /// Save the memory to a disk, and power off.
    Hibernate,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Hibernate => "hibernate",
        })
    }
}

/// What time it is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Time since 1970, UTC.
    pub since_epoch: Duration,
    /// When it was that, on the guest's own clock.
    pub at: Instant,
    /// The guest's clock stood still: it is to be set, not only to be kept from
    /// drifting.
    pub set: bool,
}

/// Something for the kernel to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The host asks for this, and was told that it will be done.
    Command(Command),
    /// The host says what time it is.
    Time(WallTime),
}

/// Why a service is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bus did not do it.
    Bus(BusError),
    /// The host broke a rule.
    Offence(Offence),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(error) => write!(f, "{error}"),
            Self::Offence(offence) => write!(f, "the host broke the protocol: {offence}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl From<Offence> for Error {
    fn from(offence: Offence) -> Self {
        Self::Offence(offence)
    }
}

impl From<ring::Offence> for Error {
    fn from(offence: ring::Offence) -> Self {
        Self::Offence(offence.into())
    }
}

/// Where a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not offered, or kept closed.
    Closed,
    /// Its channel is about to be open, or to be closed.
    Changing,
    /// It is served, at a version if one was agreed on.
    Open(Option<Version>),
    /// It is not served any more.
    Failed(Error),
}

/// The services of a bus. Shared by [`Rc`] on one vCPU.
pub struct Services<H: Hal> {
    bus: Rc<Vmbus<H>>,
    states: [Cell<State>; Service::ALL.len()],
    /// They are to be closed.
    held: Cell<bool>,
    hibernates: Cell<bool>,
    command: Cell<Option<Command>>,
    time: Cell<Option<WallTime>>,
    /// Notified when there is something for [`Services::next`].
    news: Signal,
    /// Notified when [`Services::held`] or a state has changed.
    changed: Signal,
}

impl<H: Hal> Services<H> {
    /// Services that are not served yet.
    #[must_use]
    pub fn new(bus: &Rc<Vmbus<H>>) -> Rc<Self> {
        Rc::new(Self {
            bus: bus.clone(),
            states: [const { Cell::new(State::Closed) }; Service::ALL.len()],
            held: Cell::new(false),
            hibernates: Cell::new(false),
            command: Cell::new(None),
            time: Cell::new(None),
            news: Signal::new(),
            changed: Signal::new(),
        })
    }

    /// Serves what is offered, for ever.
    pub async fn run(self: Rc<Self>) {
        join_all(Service::ALL.map(|service| self.follow(service))).await;
    }

    /// Whether a hibernation could succeed. One that could not is refused; at
    /// first none could.
    pub fn hibernates(&self, can: bool) {
        self.hibernates.set(can);
    }

    /// Where a service is.
    #[must_use]
    pub const fn state(&self, service: Service) -> State {
        self.states[service as usize].get()
    }

    fn set_state(&self, service: Service, state: State) {
        self.states[service as usize].set(state);
        self.changed.notify();
    }

    /// The next thing to do. A command that came before an earlier one was
    /// fetched has replaced it, as has a time.
    pub async fn next(&self) -> Event {
        loop {
            let seen = self.news.seen();
            if let Some(command) = self.command.take() {
                return Event::Command(command);
            }
            if let Some(time) = self.time.take() {
                return Event::Time(time);
            }
            self.news.changed(seen).await;
        }
    }

    /// Closes the channels of all services, and keeps them closed until
    /// [`Services::open`]. To be run to its end; it has deadlines of its own.
    pub async fn close(&self) {
        self.held.set(true);
        self.changed.notify();
        loop {
            let seen = self.changed.seen();
            let closed =
                |state: &Cell<State>| matches!(state.get(), State::Closed | State::Failed(_));
            if self.states.iter().all(closed) {
                return;
            }
            self.changed.changed(seen).await;
        }
    }

    /// Opens them again, as soon as they are offered.
    pub fn open(&self) {
        self.held.set(false);
        self.changed.notify();
    }

    /// Keeps what a message said.
    fn note(&self, service: Service, news: News) {
        match news {
            News::None => return,
            News::Version(version) => {
                if version.is_none() {
                    log::warn!("{service}: the host speaks no version that firn does");
                }
                return self.set_state(service, State::Open(version));
            }
            News::Command(command) => self.command.set(Some(command)),
            News::Time {
                host,
                reference,
                set,
            } => match self.wall_time(host, reference, set) {
                Some(time) => self.time.set(Some(time)),
                None => return log::warn!("{service}: the host lives before 1970"),
            },
        }
        self.news.notify();
    }

    /// A time in units of 100 ns since 1601, which the host read some time ago.
    fn wall_time(&self, host: u64, reference: Option<u64>, set: bool) -> Option<WallTime> {
        let hal = &self.bus.hv.hal;
        let counts = hal.cpuid(cpuid::FEATURES).eax & privilege::REFERENCE_COUNTER != 0;
        let age = reference.filter(|_| counts).map_or(0, |reference| {
            let age = hal.read_msr(Msr::TIME_REF_COUNT).saturating_sub(reference);
            if age > OLDEST { 0 } else { age }
        });
        let units = host.checked_sub(EPOCH * PER_SECOND)?.saturating_add(age);
        Some(WallTime {
            since_epoch: Duration::from_secs(units / PER_SECOND)
                + Duration::from_nanos(units % PER_SECOND * 100),
            at: hal.now(),
            set,
        })
    }
}

/// Units of 100 ns in a second.
const PER_SECOND: u64 = 10_000_000;
/// A reference time of longer ago is not one of this partition's.
const OLDEST: u64 = 60 * PER_SECOND;
