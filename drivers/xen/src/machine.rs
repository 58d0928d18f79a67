//! What all Xen drivers share: the hypervisor's pages and the time.

use crate::event::{EventError, Events};
use crate::grant::{Access, GrantError, Grants, Reuse};
use crate::hal::Hal;
use crate::hypercall::Hypercall;
use crate::trace::{Source, Trace, TraceEvent};
use crate::wire::DomId;
use crate::wire::grant_table::GrantRef;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::Cell;
use core::fmt;
use firn_block::shm::Region;
use firn_task::{Instant, Time, Timers};

/// One domain on Xen, as its drivers see it. Shared by [`Rc`] on one vCPU.
pub struct Xen<H: Hal> {
    /// The machine below.
    pub hal: H,
    /// Event channels.
    pub events: Events,
    /// The grant table.
    pub grants: Grants,
    /// Deadlines of the drivers.
    pub timers: Timers,
    /// What happened last.
    pub trace: Trace,
    generation: Cell<u32>,
}

/// The hypervisor's pages could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// No event channels.
    Events(EventError),
    /// No grant table.
    Grants(GrantError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events(error) => write!(f, "event channels: {error}"),
            Self::Grants(error) => write!(f, "grant table: {error}"),
        }
    }
}

impl core::error::Error for SetupError {}

impl<H: Hal> Xen<H> {
    /// Maps the hypervisor's pages.
    ///
    /// # Errors
    /// [`SetupError`] names the part that failed.
    pub fn new(hal: H) -> Result<Rc<Self>, SetupError> {
        let events = Events::new(&hal).map_err(SetupError::Events)?;
        let grants = Grants::new(&hal).map_err(SetupError::Grants)?;
        Ok(Rc::new(Self {
            hal,
            events,
            grants,
            timers: Timers::new(),
            trace: Trace::new(),
            generation: Cell::new(0),
        }))
    }

    /// Counts the hosts that this domain has lived on: event channels, grants
    /// and backends belong to one of them.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// Takes up life on a new host, after a suspend that was not cancelled: the
    /// hypervisor's pages are mapped again, no event channel exists but the
    /// toolstack's, and no grant is in force. Everything that the drivers had of
    /// either is void; each takes up its own part after this.
    ///
    /// # Errors
    /// [`SetupError`]: the machine cannot go on.
    pub fn resume(&self) -> Result<(), SetupError> {
        self.generation.set(self.generation.get().wrapping_add(1));
        let events = self.events.resume(&self.hal);
        events.map_err(SetupError::Events)?;
        self.grants.resume(&self.hal).map_err(SetupError::Grants)
    }

    /// Xen's version, as `4.20.0`-like text.
    #[must_use]
    pub fn version(&self) -> String {
        let version = self.hal.hypercall(Hypercall::Version).unwrap_or(0);
        let mut extra = [0; 16];
        let known = self.hal.hypercall(Hypercall::ExtraVersion(&mut extra));
        let len = extra.iter().position(|byte| *byte == 0).unwrap_or(16);
        let extra = if known.is_ok() { &extra[..len] } else { &[] };
        alloc::format!(
            "{}.{}{}",
            version >> 16,
            version & 0xffff,
            String::from_utf8_lossy(extra)
        )
    }

    /// One round of what every driver waits for: events and deadlines. Returns
    /// when that was: reading the clock may cost an exit to the hypervisor.
    pub fn poll(&self) -> Instant {
        self.events.scan();
        let now = self.hal.now();
        self.timers.fire(now);
        self.grants.retry_deferred(now);
        now
    }

    /// When [`Xen::poll`] has something to do even without an event.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.next_deadline();
        let retry = self.grants.next_retry();
        [timer, retry].into_iter().flatten().min()
    }

    /// Grants one page of shared memory to `domain`.
    ///
    /// # Errors
    /// As [`Grants::grant`].
    pub fn grant_page(
        &self,
        domain: DomId,
        region: &Region,
        page: usize,
        access: Access,
        purpose: &'static str,
    ) -> Result<GrantRef, GrantError> {
        let gfn = self.hal.gfn(region, page);
        self.grants.grant(&self.hal, domain, gfn, access, purpose)
    }

    /// Ends the grants of a region that came from [`Hal::alloc_shared`] and
    /// frees it. If the other domain still maps a page, that page's reference
    /// is deferred and the whole region is given up.
    pub fn reclaim(&self, region: Region, grants: &[GrantRef], reuse: Reuse) {
        let now = self.hal.now();
        let mut free = true;
        for reference in grants {
            free &= self.grants.end_or_defer(*reference, reuse, now);
        }
        if free {
            self.hal.free_shared(region);
        }
    }

    /// Records a driver event.
    pub fn record(&self, source: Source, what: &'static str, value: u64) {
        self.trace.record(TraceEvent {
            at: self.hal.now(),
            source,
            what,
            value,
        });
    }
}

impl<H: Hal> Time for Xen<H> {
    fn now(&self) -> Instant {
        self.hal.now()
    }

    fn timers(&self) -> &Timers {
        &self.timers
    }
}
