//! The data path's state, and the outside of it.

use super::buffers::{self, Buffers, Granted};
use super::offence::Offence;
use super::ring::FrontRing;
use super::shadow::Shadow;
use super::step::Busy;
use crate::Xen;
use crate::grant::{Access, GrantError, Reuse};
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
    Accepted, AdoptError, Armed, Buffer, DataPath, DiskId, DiskInfo, IoError, Owner, PrivateQueue,
    RegisterError, Unregistered,
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
            info: DiskInfo::unknown(id),
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

    /// The kernel's own way in: it is open while the disk is shut to jobs.
    pub const fn private(&mut self) -> PrivateQueue<'_, Self> {
        PrivateQueue::new(self)
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
        let granted = buffers::meet(&mut self.buffers, &self.xen, backend, persistent);
        if granted.is_err() {
            buffers::revoke_all(&mut self.buffers, &self.xen, Reuse::Now);
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
        self.publish();
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
                    xen.reclaim(memory, &grants, Reuse::Now);
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

impl<H: Hal> DataPath for Front<H> {
    type Kept = Granted;

    fn disk(&self) -> &DiskInfo {
        &self.info
    }

    fn look(&mut self) -> Lifecycle {
        self.gate.state()
    }

    fn requests(&self) -> &Accepted {
        &self.accepted
    }

    fn requests_mut(&mut self) -> &mut Accepted {
        &mut self.accepted
    }

    fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    fn attention(&self) -> &Rc<Signal> {
        &self.attention
    }

    fn events(&self) -> Option<Rc<Signal>> {
        self.port().map(|port| self.xen.events.signal(port))
    }

    fn fill(&mut self) {
        self.fill_ring();
    }

    fn publish(&mut self) {
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

    fn reap(&mut self, budget: usize) {
        self.take_responses(budget);
    }

    /// Asks for an event at the next response.
    fn arm_ring(&mut self) -> Armed {
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

    /// What keeps the ring from being idle. A ring that is not full may be busy
    /// all the same: what counts is that nothing is left.
    fn busy(&self) -> Option<Busy> {
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

    fn register_for(&mut self, region: Region, owner: Owner) -> Result<Buffer, RegisterError> {
        let persistent = self.keeps_grants();
        buffers::register(&mut self.buffers, &self.xen, persistent, region, owner)
    }

    fn take_back(&mut self, buffer: Buffer) -> Unregistered {
        let outcome = buffers::unregister(&mut self.buffers, &self.xen, buffer);
        if self.link.is_none() && !self.buffers.any_lent() {
            // A device that has ended waits for this.
            self.attention.notify();
        }
        outcome
    }

    fn reuse_for(&mut self, pages: usize, owner: Owner) -> Option<Buffer> {
        let persistent = self.keeps_grants();
        buffers::reuse(&mut self.buffers, &self.xen, persistent, pages, owner)
    }

    fn is_mapping(&self) -> bool {
        self.keeps_grants().is_some()
    }

    /// If the backend keeps grants mapped, the pages are granted now, or when it
    /// connects. The only limit of which one may run out is grant references.
    fn replace_buffers(&mut self, mut adopted: Buffers) -> Result<(), AdoptError> {
        let link = self.link.as_ref();
        let met =
            link.map(|link| buffers::meet(&mut adopted, &self.xen, link.backend, link.persistent));
        if let Some(Err(error)) = met {
            log::warn!("{}: {error}", self.info.id);
            buffers::revoke_all(&mut adopted, &self.xen, Reuse::Now);
            return Err(AdoptError::Host("no grant references left"));
        }
        // What the kernel looked at the disk with it may need again. Nobody can
        // ask for anything else that this boot had parked under its own number.
        adopted.inherit(&mut self.buffers);
        buffers::revoke_all(&mut self.buffers, &self.xen, Reuse::Now);
        self.buffers = adopted;
        Ok(())
    }
}
