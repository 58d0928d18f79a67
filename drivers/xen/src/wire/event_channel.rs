//! `event_channel.h`: arguments of `HYPERVISOR_event_channel_op`.

use super::{DomId, layout};

/// An event channel port of this domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u32);

impl core::fmt::Display for Port {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// Ports of the 2-level ABI on a 64-bit guest: 64 words of 64 bits.
pub const PORTS_2L: u32 = 64 * 64;

/// `EVTCHNOP_bind_virq`.
pub const OP_BIND_VIRQ: u32 = 1;
/// `EVTCHNOP_close`.
pub const OP_CLOSE: u32 = 3;
/// `EVTCHNOP_send`.
pub const OP_SEND: u32 = 4;
/// `EVTCHNOP_alloc_unbound`.
pub const OP_ALLOC_UNBOUND: u32 = 6;

/// `VIRQ_TIMER`: the singleshot timer of a vCPU (`xen.h`).
pub const VIRQ_TIMER: u32 = 0;

/// `struct evtchn_alloc_unbound`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AllocUnbound {
    /// In: whose port, [`DomId::SELF`].
    pub dom: u16,
    /// In: who may bind the other end.
    pub remote_dom: u16,
    /// Out: the port.
    pub port: u32,
}
layout!(
    /// Layout of [`AllocUnbound`].
    ALLOC_UNBOUND: AllocUnbound = "struct evtchn_alloc_unbound" in "event_channel.h", 8,
    { dom "dom" @ 0, remote_dom "remote_dom" @ 2, port "port" @ 4 });

impl AllocUnbound {
    /// A port of ours that `remote` may bind.
    #[must_use]
    pub const fn new(remote: DomId) -> Self {
        Self {
            dom: DomId::SELF.0,
            remote_dom: remote.0,
            port: 0,
        }
    }
}

/// `struct evtchn_bind_virq`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BindVirq {
    /// In: the virtual interrupt.
    pub virq: u32,
    /// In: the vCPU that gets it.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}
layout!(
    /// Layout of [`BindVirq`].
    BIND_VIRQ: BindVirq = "struct evtchn_bind_virq" in "event_channel.h", 12,
    { virq "virq" @ 0, vcpu "vcpu" @ 4, port "port" @ 8 });

/// `struct evtchn_close`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Close {
    /// In: the port.
    pub port: u32,
}
layout!(
    /// Layout of [`Close`].
    CLOSE: Close = "struct evtchn_close" in "event_channel.h", 4, { port "port" @ 0 });

/// `struct evtchn_send`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Send {
    /// In: the port.
    pub port: u32,
}
layout!(
    /// Layout of [`Send`].
    SEND: Send = "struct evtchn_send" in "event_channel.h", 4, { port "port" @ 0 });
