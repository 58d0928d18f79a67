//! Hypercalls as typed values.
//!
//! A [`Hypercall`] says what is asked and borrows the arguments, so a peer on
//! the host can answer it safely; [`Hypercall::registers`] is the ABI form that
//! a machine's HAL loads before `vmcall` or `vmmcall`.

use crate::wire::misc::{FeatureInfo, SchedPoll, SchedShutdown, SetSingleshotTimer};
use crate::wire::{event_channel, grant_table, hvm, memory, misc};

/// One hypercall of those that firn makes.
#[derive(Debug)]
pub enum Hypercall<'a> {
    /// `XENVER_version`; the result is `major << 16 | minor`.
    Version,
    /// `XENVER_extraversion`: text, padded with zeros.
    ExtraVersion(&'a mut [u8; 16]),
    /// `XENVER_get_features`.
    Features(&'a mut FeatureInfo),
    /// `CONSOLEIO_write`: text for the hypervisor's own console.
    ConsoleWrite(&'a [u8]),
    /// `XENMEM_add_to_physmap`.
    AddToPhysmap(&'a memory::AddToPhysmap),
    /// `HVMOP_get_param`.
    GetParam(&'a mut hvm::Param),
    /// `HVMOP_set_param`.
    SetParam(&'a hvm::Param),
    /// `EVTCHNOP_alloc_unbound`.
    AllocUnbound(&'a mut event_channel::AllocUnbound),
    /// `EVTCHNOP_bind_virq`.
    BindVirq(&'a mut event_channel::BindVirq),
    /// `EVTCHNOP_close`.
    ClosePort(&'a event_channel::Close),
    /// `EVTCHNOP_send`.
    SendEvent(&'a event_channel::Send),
    /// `GNTTABOP_query_size`.
    QueryGrants(&'a mut grant_table::QuerySize),
    /// `SCHEDOP_yield`.
    Yield,
    /// `SCHEDOP_poll`: waits until one of these ports is pending, masked or not;
    /// see [`Hypercall::poll`].
    Poll(&'a [u32], SchedPoll),
    /// `SCHEDOP_shutdown`; does not return, except from a suspend.
    Shutdown(&'a SchedShutdown),
    /// `VCPUOP_stop_periodic_timer` for a vCPU.
    StopPeriodicTimer(u32),
    /// `VCPUOP_set_singleshot_timer` for the calling vCPU, whose number it is.
    SetTimer(u32, &'a SetSingleshotTimer),
    /// `VCPUOP_stop_singleshot_timer` for the calling vCPU, whose number it is.
    StopTimer(u32),
}

/// What goes into the registers: `rax`, then `rdi`, `rsi`, `rdx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    number: u32,
    args: [u64; 3],
}

impl Registers {
    /// The hypercall's number, for `eax`.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The arguments, for `rdi`, `rsi` and `rdx`. Pointers among them point at
    /// what the [`Hypercall`] borrows, with the ABI's layout.
    #[must_use]
    pub const fn args(&self) -> [u64; 3] {
        self.args
    }
}

impl<'a> Hypercall<'a> {
    /// Waits for one of `ports`, of which there are at most
    /// [`SchedPoll::MAX_PORTS`]. Without a timeout: KVM's emulation of Xen takes
    /// the absolute time for a relative one, so a deadline wants a timer's port.
    #[must_use]
    pub fn poll(ports: &'a [u32]) -> Self {
        let poll = SchedPoll {
            ports: ports.as_ptr().expose_provenance() as u64,
            nr_ports: ports.len() as u32,
            ..SchedPoll::default()
        };
        Self::Poll(ports, poll)
    }

    /// The ABI form. Only valid while `self` is borrowed.
    #[must_use]
    pub fn registers(&mut self) -> Registers {
        use misc::*;
        let (number, args) = match self {
            Self::Version => (HYPERCALL_XEN_VERSION, [u64::from(VERSION), 0, 0]),
            Self::ExtraVersion(text) => (
                HYPERCALL_XEN_VERSION,
                [u64::from(EXTRAVERSION), out(*text), 0],
            ),
            Self::Features(info) => (
                HYPERCALL_XEN_VERSION,
                [u64::from(GET_FEATURES), out(*info), 0],
            ),
            Self::ConsoleWrite(text) => (
                HYPERCALL_CONSOLE_IO,
                [
                    u64::from(CONSOLEIO_WRITE),
                    text.len() as u64,
                    text.as_ptr().expose_provenance() as u64,
                ],
            ),
            Self::AddToPhysmap(arg) => {
                op(HYPERCALL_MEMORY_OP, memory::OP_ADD_TO_PHYSMAP, input(*arg))
            }
            Self::GetParam(arg) => op(HYPERCALL_HVM_OP, hvm::OP_GET_PARAM, out(*arg)),
            Self::SetParam(arg) => op(HYPERCALL_HVM_OP, hvm::OP_SET_PARAM, input(*arg)),
            Self::AllocUnbound(arg) => event(event_channel::OP_ALLOC_UNBOUND, out(*arg)),
            Self::BindVirq(arg) => event(event_channel::OP_BIND_VIRQ, out(*arg)),
            Self::ClosePort(arg) => event(event_channel::OP_CLOSE, input(*arg)),
            Self::SendEvent(arg) => event(event_channel::OP_SEND, input(*arg)),
            Self::QueryGrants(arg) => (
                HYPERCALL_GRANT_TABLE_OP,
                [u64::from(grant_table::OP_QUERY_SIZE), out(*arg), 1],
            ),
            Self::Yield => op(HYPERCALL_SCHED_OP, SCHED_YIELD, 0),
            Self::Poll(_, arg) => op(HYPERCALL_SCHED_OP, SCHED_POLL_OP, input(arg)),
            Self::Shutdown(arg) => op(HYPERCALL_SCHED_OP, SCHED_SHUTDOWN_OP, input(*arg)),
            Self::StopPeriodicTimer(vcpu) => vcpu_op(VCPU_STOP_PERIODIC_TIMER, *vcpu, 0),
            Self::SetTimer(vcpu, arg) => vcpu_op(VCPU_SET_SINGLESHOT_TIMER, *vcpu, input(*arg)),
            Self::StopTimer(vcpu) => vcpu_op(VCPU_STOP_SINGLESHOT_TIMER, *vcpu, 0),
        };
        Registers { number, args }
    }
}

const fn op(number: u32, op: u32, arg: u64) -> (u32, [u64; 3]) {
    (number, [op as u64, arg, 0])
}

const fn event(op: u32, arg: u64) -> (u32, [u64; 3]) {
    (misc::HYPERCALL_EVENT_CHANNEL_OP, [op as u64, arg, 0])
}

const fn vcpu_op(op: u32, vcpu: u32, arg: u64) -> (u32, [u64; 3]) {
    (misc::HYPERCALL_VCPU_OP, [op as u64, vcpu as u64, arg])
}

/// The address of an argument that Xen only reads.
fn input<T>(arg: &T) -> u64 {
    core::ptr::from_ref(arg).expose_provenance() as u64
}

/// The address of an argument that Xen also writes.
fn out<T>(arg: &mut T) -> u64 {
    core::ptr::from_mut(arg).expose_provenance() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DomId;

    #[test]
    fn arguments_are_passed_by_address() {
        let mut arg = event_channel::AllocUnbound::new(DomId(0));
        let address = (&raw const arg).addr() as u64;
        let registers = Hypercall::AllocUnbound(&mut arg).registers();
        assert_eq!(
            (registers.number(), registers.args()),
            (32, [6, address, 0])
        );
    }

    #[test]
    fn ports_are_polled_by_address_and_number() {
        let ports = [3, 7];
        let mut call = Hypercall::poll(&ports);
        let registers = call.registers();
        let Hypercall::Poll(_, poll) = &call else {
            panic!("{call:?}")
        };
        let address = |at: *const ()| at.addr() as u64;
        assert_eq!(
            (registers.number(), registers.args()),
            (29, [3, address((&raw const *poll).cast()), 0])
        );
        assert_eq!(poll.ports, address(ports.as_ptr().cast()));
        assert_eq!((poll.nr_ports, poll.timeout), (2, 0));
    }

    #[test]
    fn timers_name_their_vcpu() {
        let registers = Hypercall::StopTimer(3).registers();
        assert_eq!((registers.number(), registers.args()), (24, [9, 3, 0]));
    }
}
