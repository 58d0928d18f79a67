//! Event channels of the 2-level ABI, as Xen keeps them.

use super::FakeMachine;
use firn_block::shm::Region;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::event_channel::{PORTS_2L, Port, VIRQ_TIMER};
use firn_xen::wire::misc::SchedPoll;
use firn_xen::wire::shared_info::{SharedInfo, VcpuInfo};
use firn_xen::wire::{DomId, event_channel};
use std::mem::offset_of;
use std::sync::atomic::Ordering::SeqCst;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Unbound { remote: u16 },
    Interdomain { end: usize },
    Timer,
}

/// The host's end of a channel.
struct End {
    domid: u16,
    /// The guest's port, while it is bound to us.
    guest: Option<u32>,
    pending: bool,
    received: u64,
    sent: u64,
}

/// All ports of the guest, and the other ends.
pub(super) struct Events {
    ports: Vec<State>,
    ends: Vec<End>,
    pub(super) upcalls: u64,
    pub(super) upcall: bool,
    pub(super) polled: Vec<u32>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            // Port 0 is never given out.
            ports: vec![State::Timer],
            ends: Vec::new(),
            upcalls: 0,
            upcall: false,
            polled: Vec::new(),
        }
    }

    /// All channels end with the host that they led to.
    pub(super) fn forget(&mut self) {
        self.ports = vec![State::Timer];
        for end in &mut self.ends {
            end.guest = None;
        }
    }

    fn allocate(&mut self, state: State) -> Result<u32, Errno> {
        let free = self.ports.iter().position(|port| *port == State::Free);
        let port = free.unwrap_or(self.ports.len());
        let number = u32::try_from(port).map_err(|_| Errno::ENOSPC)?;
        if number >= PORTS_2L {
            return Err(Errno::ENOSPC);
        }
        match self.ports.get_mut(port) {
            Some(slot) => *slot = state,
            None => self.ports.push(state),
        }
        Ok(number)
    }

    fn state(&self, port: u32) -> Result<State, Errno> {
        let state = usize::try_from(port).ok().and_then(|p| self.ports.get(p));
        match state {
            Some(state) if port != 0 => Ok(*state),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn alloc_unbound(
        &mut self,
        arg: &mut event_channel::AllocUnbound,
    ) -> Result<(), Errno> {
        if arg.dom != DomId::SELF.0 {
            return Err(Errno::EPERM);
        }
        arg.port = self.allocate(State::Unbound {
            remote: arg.remote_dom,
        })?;
        Ok(())
    }

    pub(super) fn bind_virq(&mut self, arg: &mut event_channel::BindVirq) -> Result<(), Errno> {
        if arg.virq != VIRQ_TIMER || arg.vcpu != 0 {
            return Err(Errno::EINVAL);
        }
        if self.timer_port().is_some() {
            return Err(Errno::EEXIST);
        }
        arg.port = self.allocate(State::Timer)?;
        Ok(())
    }

    pub(super) fn timer_port(&self) -> Option<u32> {
        let port = self.ports.iter().skip(1).position(|p| *p == State::Timer)?;
        u32::try_from(port + 1).ok()
    }

    /// Closes a port of the guest; the other end stays, bound to nothing.
    pub(super) fn close(&mut self, port: u32, shared: &Region) -> Result<(), Errno> {
        let state = self.state(port)?;
        if state == State::Free {
            return Err(Errno::EINVAL);
        }
        if let State::Interdomain { end } = state {
            self.ends[end].guest = None;
        }
        self.ports[port as usize] = State::Free;
        let (word, bit) = position(port);
        pending_word(shared, word).fetch_and(!bit, SeqCst);
        Ok(())
    }

    /// The guest sends: the other end becomes pending.
    pub(super) fn send(&mut self, port: u32) -> Result<(), Errno> {
        match self.state(port)? {
            State::Interdomain { end } => {
                self.ends[end].pending = true;
                self.ends[end].received += 1;
                Ok(())
            }
            // Nobody bound the other end yet, or it went away.
            State::Unbound { .. } => Ok(()),
            State::Timer | State::Free => Err(Errno::EINVAL),
        }
    }

    /// The guest waits for these ports. It is not kept waiting: what it would
    /// wake up for is the tests' own account.
    pub(super) fn poll(&mut self, ports: &[u32]) -> Result<(), Errno> {
        let closed = |port: &u32| !self.state(*port).is_ok_and(|state| state != State::Free);
        if ports.len() > SchedPoll::MAX_PORTS || ports.iter().any(closed) {
            return Err(Errno::EINVAL);
        }
        self.polled = ports.to_vec();
        Ok(())
    }

    fn connect(&mut self, domid: u16, port: u32) -> usize {
        self.ends.push(End {
            domid,
            guest: Some(port),
            // An event sent before the binding is not lost.
            pending: true,
            received: 0,
            sent: 0,
        });
        let end = self.ends.len() - 1;
        self.ports[port as usize] = State::Interdomain { end };
        end
    }

    fn bind(&mut self, domid: u16, port: u32) -> Result<usize, Errno> {
        match self.state(port)? {
            State::Unbound { remote } if remote == domid => Ok(self.connect(domid, port)),
            _ => Err(Errno::EINVAL),
        }
    }

    fn disconnect(&mut self, end: usize) {
        if let Some(port) = self.ends[end].guest.take() {
            self.ports[port as usize] = State::Unbound {
                remote: self.ends[end].domid,
            };
        }
    }

    /// Makes a port pending, as Xen's 2-level code does it.
    pub(super) fn raise(&mut self, port: u32, shared: &Region) {
        let (word, bit) = position(port);
        if pending_word(shared, word).fetch_or(bit, SeqCst) & bit != 0 {
            return;
        }
        let mask = offset_of!(SharedInfo, evtchn_mask) + word * 8;
        if shared.atomic_u64(mask).load(SeqCst) & bit != 0 {
            return;
        }
        let selector = shared.atomic_u64(offset_of!(VcpuInfo, evtchn_pending_sel));
        if selector.fetch_or(1 << word, SeqCst) & (1 << word) != 0 {
            return;
        }
        let upcall = shared.atomic_u8(offset_of!(VcpuInfo, evtchn_upcall_pending));
        if upcall.swap(1, SeqCst) == 0 {
            self.upcalls += 1;
            self.upcall = true;
        }
    }

    /// Ports that are not free: a guest that closes all it opens shows none.
    pub(super) fn open_ports(&self) -> Vec<Port> {
        let open = self.ports.iter().enumerate().skip(1);
        open.filter(|(_, state)| **state != State::Free)
            .filter_map(|(port, _)| u32::try_from(port).ok().map(Port))
            .collect()
    }
}

/// Word and bit of a port.
fn position(port: u32) -> (usize, u64) {
    ((port / 64) as usize, 1 << (port % 64))
}

fn pending_word(shared: &Region, word: usize) -> &std::sync::atomic::AtomicU64 {
    shared.atomic_u64(offset_of!(SharedInfo, evtchn_pending) + word * 8)
}

/// The host's end of an event channel; dropping it closes it.
pub struct Channel {
    machine: FakeMachine,
    end: usize,
}

impl Channel {
    /// Sends an event to the guest. Without effect once the guest closed its
    /// port.
    pub fn notify(&self) {
        let mut events = self.machine.events.borrow_mut();
        if let Some(port) = events.ends[self.end].guest {
            events.ends[self.end].sent += 1;
            events.raise(port, &self.machine.shared_info);
        }
    }

    /// Whether the guest sent an event since the last call.
    pub fn take_pending(&self) -> bool {
        let mut events = self.machine.events.borrow_mut();
        std::mem::take(&mut events.ends[self.end].pending)
    }

    /// Whether the guest's port is still there.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.machine.events.borrow().ends[self.end].guest.is_some()
    }

    /// Events that the guest sent over this channel.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.machine.events.borrow().ends[self.end].received
    }

    /// Events sent to the guest over this channel.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.machine.events.borrow().ends[self.end].sent
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.machine.events.borrow_mut().disconnect(self.end);
    }
}

impl FakeMachine {
    /// Binds the other end of a port that the guest allocated for `domid`.
    ///
    /// # Errors
    /// `EINVAL` when there is no such port or it waits for somebody else.
    pub fn bind_channel(&self, domid: DomId, port: Port) -> Result<Channel, Errno> {
        let end = self.events.borrow_mut().bind(domid.0, port.0)?;
        Ok(self.channel(end))
    }

    /// A channel that the toolstack makes before the guest starts.
    ///
    /// # Panics
    /// When the guest has no free port.
    #[must_use]
    pub fn toolstack_channel(&self, domid: DomId) -> (Port, Channel) {
        let (port, end) = self.toolstack_end(domid);
        (port, self.channel(end))
    }

    /// The same without a handle, for channels that nobody listens to yet.
    pub(super) fn toolstack_end(&self, domid: DomId) -> (Port, usize) {
        let mut events = self.events.borrow_mut();
        let unbound = State::Unbound { remote: domid.0 };
        let Ok(port) = events.allocate(unbound) else {
            panic!("no free port");
        };
        (Port(port), events.connect(domid.0, port))
    }

    pub(super) fn channel(&self, end: usize) -> Channel {
        let machine = self.clone();
        Channel { machine, end }
    }
}
