//! The data path's state, and the outside of it.

use super::buffers::Buffers;
use super::offence::Offence;
use super::ring::FrontRing;
use super::shadow::Shadow;
use super::step::Busy;
use crate::Xen;
use crate::grant::{Access, GrantError};
use crate::hal::{Hal, HalExt};
use crate::trace::Source;
use crate::wire::DomId;
use crate::wire::blkif::{SEGMENTS_PER_INDIRECT_PAGE, Segment};
use crate::wire::event_channel::Port;
use crate::wire::grant_table::GrantRef;
use alloc::rc::Rc;
use alloc::vec::Vec;
use firn_block::gate::{Gate, Lifecycle, WrongStep};
use firn_block::shm::Region;
use firn_block::{
    Accepted, Armed, Buffer, Completion, DiskId, DiskInfo, Durability, IoError, Owner, Queue,
    Refused, RegisterError, Request, Stats, Token, Unregistered,
};
use firn_task::Signal;

/// Events without work that are forgiven at once, and the most that can be
/// saved up: every response may come with one.
const EVENT_CREDIT: u32 = 1024;

/// The ring as the backend knows it, and all that hangs on the connection.
pub(super) struct Link {
    pub(super) backend: DomId,
    pub(super) port: Port,
    pub(super) ring: FrontRing,
    pub(super) ring_grants: Vec<GrantRef>,
    pub(super) shadow: Shadow,
    pub(super) indirect: Option<Indirect>,
    /// Segments of one request on the ring.
    pub(super) segments: usize,
    /// The backend keeps grants mapped.
    pub(super) persistent: bool,
    /// [`Xen::generation`] when it was made.
    pub(super) generation: u32,
}

impl Link {
    /// Gives back what the connection was made of, after its host went: with
    /// the grant table and the event channels of that host, everybody's access
    /// to the pages has ended.
    pub(super) fn forget<H: Hal>(self, xen: &Xen<H>) {
        xen.hal.free_shared(self.ring.into_memory());
        if let Some(indirect) = self.indirect {
            xen.hal.free_shared(indirect.memory);
        }
    }
}

/// Pages with the segments of indirect requests: some for each ring slot,
/// granted once.
pub(super) struct Indirect {
    pub(super) memory: Region,
    pub(super) grants: Vec<GrantRef>,
    pub(super) pages_per_slot: usize,
}

/// One disk's data path.
pub struct Front<H: Hal> {
    pub(super) xen: Rc<Xen<H>>,
    pub(super) number: u32,
    pub(super) gate: Gate,
    pub(super) info: DiskInfo,
    pub(super) link: Option<Link>,
    pub(super) buffers: Buffers,
    /// Accepted requests, and the counters.
    pub(super) accepted: Accepted,
    /// Where the device goes back to if the suspend under way is called off.
    pub(super) suspended_from: Option<Lifecycle>,
    pub(super) offence: Option<Offence>,
    pub(super) scratch: Vec<Segment>,
    event_credit: u32,
    /// Notified when the control path should look: an offence, an idle ring.
    pub(super) attention: Rc<Signal>,
}

impl<H: Hal> Front<H> {
    /// A data path without a connection for virtual device `number`.
    #[must_use]
    pub fn new(xen: &Rc<Xen<H>>, number: u32, id: DiskId) -> Self {
        Self {
            xen: xen.clone(),
            number,
            gate: Gate::new(),
            info: DiskInfo {
                id,
                capacity: 0,
                logical_block: 512,
                physical_block: 512,
                read_only: true,
                durability: Durability::None,
                discard: None,
                max_transfer: 0,
                queue_depth: 0,
            },
            link: None,
            buffers: Buffers::new(number),
            accepted: Accepted::new(),
            suspended_from: None,
            offence: None,
            scratch: Vec::new(),
            event_credit: EVENT_CREDIT,
            attention: Rc::new(Signal::new()),
        }
    }

    /// Where the disk is in its life.
    #[must_use]
    pub const fn state(&self) -> Lifecycle {
        self.gate.state()
    }

    /// The rule that the backend broke, if it broke one.
    #[must_use]
    pub const fn offence(&self) -> Option<Offence> {
        self.offence
    }

    /// Whether a job still has a buffer that was registered here.
    pub(super) fn has_lent_buffers(&self) -> bool {
        self.buffers.any_lent()
    }

    /// The connection's event channel.
    #[must_use]
    pub fn port(&self) -> Option<Port> {
        self.link.as_ref().map(|link| link.port)
    }

    /// Makes the registered buffers known to a backend: those that it keeps
    /// mapped are granted once, others with each request.
    pub(super) fn grant_buffers(
        &mut self,
        backend: DomId,
        persistent: bool,
    ) -> Result<(), GrantError> {
        let granted = self.buffers.meet(&self.xen, backend, persistent);
        if granted.is_err() {
            self.buffers.revoke_all(&self.xen);
        }
        granted
    }

    /// Takes up a connection: room for everything that can be in flight is
    /// made now. What was accepted before is kept, in its order.
    pub(super) fn connect(&mut self, link: Link, info: DiskInfo) {
        self.accepted.resize(link.ring.size() as usize);
        self.scratch = Vec::with_capacity(link.segments);
        self.info = info;
        self.offence = None;
        self.event_credit = EVENT_CREDIT;
        self.link = Some(link);
        self.drop_unfit();
    }

    /// Takes a step of the lifecycle. A disk that becomes live goes on with
    /// whatever was accepted before.
    pub(super) fn step(&mut self, to: Lifecycle) -> Result<(), WrongStep> {
        self.advance(to)?;
        // Where the ring is used: what was queued, or submitted and not shown
        // to the host yet.
        self.fill();
        self.kick();
        Ok(())
    }

    /// The same without going on.
    pub(super) fn advance(&mut self, to: Lifecycle) -> Result<(), WrongStep> {
        let from = self.state();
        self.gate.step(to)?;
        let source = Source::Vbd(self.number);
        self.xen.record(source, to.name(), from as u64);
        Ok(())
    }

    /// Takes the disk's size over after the backend announced a new one.
    pub(super) fn resize(&mut self, capacity: u64) {
        self.info.capacity = capacity;
    }

    /// Looks whether the connection's port fired. The main loop calls this
    /// before it polls; an event in a state that has no ring is dropped.
    pub fn take_event(&mut self) -> bool {
        let Some(link) = &self.link else {
            return false;
        };
        if !self.xen.events.take(link.port) {
            return false;
        }
        self.accepted.stats.events += 1;
        match link.ring.responses() {
            Ok(0) => self.empty_event(),
            Ok(_) => {}
            Err(offence) => self.fail(offence),
        }
        true
    }

    /// An event without work is normal after polling; a storm of them is not.
    fn empty_event(&mut self) {
        self.accepted.stats.empty_events += 1;
        match self.event_credit.checked_sub(1) {
            Some(left) => self.event_credit = left,
            None => self.fail(Offence::EventStorm),
        }
    }

    pub(super) fn earn_event_credit(&mut self) {
        self.event_credit = (self.event_credit + 1).min(EVENT_CREDIT);
    }

    /// Ends the device because the backend broke a rule: everything in flight
    /// ends with that rule's name, nothing from the ring is believed any more.
    pub(super) fn fail(&mut self, offence: Offence) {
        if self.advance(Lifecycle::Failed).is_err() {
            return;
        }
        self.offence = Some(offence);
        if let Some(link) = &self.link {
            // Whatever it still wants to say, it shall not cost us anything.
            self.xen.events.mask(link.port);
        }
        log::error!(
            "{}: the backend broke the protocol: {offence}",
            self.info.id
        );
        self.xen.record(Source::Vbd(self.number), offence.rule(), 0);
        self.abort_all(IoError::DeviceFailed(offence.rule()));
        self.attention.notify();
    }

    pub(super) fn register_for(
        &mut self,
        region: Region,
        owner: Owner,
    ) -> Result<Buffer, RegisterError> {
        let persistent = self.keeps_grants();
        self.buffers.register(&self.xen, persistent, region, owner)
    }

    pub(super) fn reuse_for(&mut self, pages: usize, owner: Owner) -> Option<Buffer> {
        let persistent = self.keeps_grants();
        self.buffers.reuse(&self.xen, persistent, pages, owner)
    }

    /// The backend, if it keeps grants mapped.
    pub(super) fn keeps_grants(&self) -> Option<DomId> {
        let persistent = self.link.as_ref().filter(|link| link.persistent);
        persistent.map(|link| link.backend)
    }
}

impl Indirect {
    /// Pages for `entries` slots of `segments` segments each.
    pub(super) fn new<H: Hal>(
        xen: &Xen<H>,
        backend: DomId,
        entries: u32,
        segments: usize,
        access: Access,
    ) -> Result<Option<Self>, GrantError> {
        let pages_per_slot = segments.div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        let Some(memory) = xen.hal.alloc_shared(pages_per_slot * entries as usize) else {
            return Ok(None);
        };
        let mut grants = Vec::with_capacity(memory.page_count());
        for page in 0..memory.page_count() {
            match xen.grant_page(backend, &memory, page, access, "blk indirect") {
                Ok(grant) => grants.push(grant),
                Err(error) => {
                    xen.reclaim(memory, &grants);
                    return Err(error);
                }
            }
        }
        Ok(Some(Self {
            memory,
            grants,
            pages_per_slot,
        }))
    }
}

impl<H: Hal> Queue for Front<H> {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        self.register_for(region, Owner::Job)
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        let outcome = self.buffers.unregister(&self.xen, buffer);
        if self.link.is_none() && !self.buffers.any_lent() {
            // A device that has ended waits for this.
            self.attention.notify();
        }
        outcome
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        self.reuse_for(pages, Owner::Job)
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        self.accept(request, Owner::Job)
    }

    fn kick(&mut self) {
        if !self.gate.state().uses_ring() {
            return;
        }
        let Some(link) = &mut self.link else { return };
        if !link.ring.publish() {
            return;
        }
        self.accepted.stats.notifications += 1;
        if let Err(errno) = self.xen.hal.send_event(link.port) {
            // The port is ours and bound: the backend closed its end, and its
            // state will say so.
            log::debug!("{}: notification failed: {errno}", self.info.id);
        }
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        self.reap(budget);
        let handed = self.accepted.deliver(Owner::Job, budget, done);
        if handed > 0 && !self.gate.is_open() && self.in_flight() == 0 {
            // Whoever drains the disk waits until all is handed out.
            self.attention.notify();
        }
        handed
    }

    fn arm(&mut self) -> Armed {
        if self.accepted.completions(Owner::Job) > 0 {
            return Armed::Poll;
        }
        self.arm_ring()
    }

    fn in_flight(&self) -> usize {
        self.accepted.in_flight(Owner::Job)
    }

    fn stats(&self) -> &Stats {
        &self.accepted.stats
    }
}

impl<H: Hal> Front<H> {
    /// What keeps the ring from being idle. A ring that is not full may be busy
    /// all the same: what counts is that nothing is left.
    pub(super) fn busy(&self) -> Option<Busy> {
        let ring = self.link.as_ref().map(|link| &link.ring);
        let responses = ring.map_or(0, |ring| ring.responses().unwrap_or(u32::MAX));
        let unanswered = ring.map_or(0, FrontRing::unfinished);
        let all = &self.accepted;
        let completions = all.completions(Owner::Job) + all.completions(Owner::Kernel);
        match (responses, unanswered, all.count(), completions) {
            (0, 0, 0, 0) => None,
            (0, 0, 0, completions) => Some(Busy::Completions(completions)),
            (0, 0, accepted, _) => Some(Busy::Accepted(accepted)),
            (0, unanswered, _, _) => Some(Busy::Unanswered(unanswered)),
            (responses, _, _, _) => Some(Busy::Responses(responses)),
        }
    }

    /// Requests that were accepted and have not ended, whoever's they are.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.count()
    }

    /// Asks for an event at the next response.
    pub(super) fn arm_ring(&mut self) -> Armed {
        if !self.gate.state().uses_ring() {
            return Armed::Sleep;
        }
        let Some(link) = &self.link else {
            return Armed::Sleep;
        };
        match link.ring.arm() {
            Err(offence) => {
                self.fail(offence);
                Armed::Poll
            }
            Ok(true) => Armed::Poll,
            Ok(false) if self.xen.events.is_masked(link.port) => {
                let fired = self.xen.events.unmask(link.port);
                if fired { Armed::Poll } else { Armed::Sleep }
            }
            Ok(false) => Armed::Sleep,
        }
    }
}
