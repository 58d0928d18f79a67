//! Hypercalls: counted, made to fail on demand, answered.

use super::{FIXED_GRANTS, FIXED_SHARED_INFO, FakeMachine, Violation};
use firn_xen::hypercall::Hypercall;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::misc::{SchedShutdown, SetSingleshotTimer, ShutdownReason};
use firn_xen::wire::{DomId, grant_table, hvm, memory};
use std::collections::{BTreeMap, VecDeque};

macro_rules! kinds {
    ($($name:ident),* $(,)?) => {
        /// A kind of hypercall: a [`Hypercall`] without its arguments.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "named after the variants of Hypercall")]
        pub enum CallKind { $($name),* }

        impl CallKind {
            const COUNT: usize = [$(Self::$name),*].len();

            fn of(call: &Hypercall<'_>) -> Self {
                match call { $(Hypercall::$name { .. } => Self::$name),* }
            }
        }
    };
}
kinds!(
    Version,
    ExtraVersion,
    Features,
    ConsoleWrite,
    AddToPhysmap,
    GetParam,
    SetParam,
    AllocUnbound,
    BindVirq,
    ClosePort,
    SendEvent,
    QueryGrants,
    Yield,
    Poll,
    Shutdown,
    StopPeriodicTimer,
    SetTimer,
    StopTimer,
);

/// What is counted and what is to fail.
#[derive(Default)]
pub(super) struct Calls {
    counts: [u64; CallKind::COUNT],
    failures: BTreeMap<CallKind, VecDeque<Errno>>,
    refused: BTreeMap<CallKind, Errno>,
}

impl FakeMachine {
    /// How often the guest made such a call.
    #[must_use]
    pub fn calls(&self, kind: CallKind) -> u64 {
        self.calls.borrow().counts[kind as usize]
    }

    /// How many hypercalls the guest made.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.calls.borrow().counts.iter().sum()
    }

    /// Lets the next such call fail. May be said several times.
    pub fn fail_next(&self, kind: CallKind, errno: Errno) {
        let mut calls = self.calls.borrow_mut();
        calls.failures.entry(kind).or_default().push_back(errno);
    }

    /// Lets every such call fail from now on, or none any more.
    pub fn refuse(&self, kind: CallKind, errno: Option<Errno>) {
        let refused = &mut self.calls.borrow_mut().refused;
        match errno {
            Some(errno) => refused.insert(kind, errno),
            None => refused.remove(&kind),
        };
    }

    /// Lets every call be carried out from now on.
    pub fn behave(&self) {
        let mut calls = self.calls.borrow_mut();
        calls.failures.clear();
        calls.refused.clear();
    }

    pub(super) fn answer(&self, call: Hypercall<'_>) -> Result<u64, Errno> {
        let kind = CallKind::of(&call);
        {
            let mut calls = self.calls.borrow_mut();
            calls.counts[kind as usize] += 1;
            if let Some(errno) = calls.failures.get_mut(&kind).and_then(VecDeque::pop_front) {
                return Err(errno);
            }
            if let Some(errno) = calls.refused.get(&kind) {
                return Err(*errno);
            }
        }
        match call {
            Hypercall::Version => return Ok(4 << 16 | 20),
            Hypercall::ExtraVersion(text) => {
                *text = [0; 16];
                text[..5].copy_from_slice(b".0-fk");
            }
            Hypercall::Features(info) => info.submap = 0,
            Hypercall::ConsoleWrite(text) => self.xen_console.borrow_mut().extend(text),
            Hypercall::AddToPhysmap(arg) => self.add_to_physmap(arg)?,
            Hypercall::GetParam(arg) => arg.value = self.get_param(arg)?,
            Hypercall::SetParam(arg) => self.set_param(arg)?,
            Hypercall::AllocUnbound(arg) => self.events.borrow_mut().alloc_unbound(arg)?,
            Hypercall::BindVirq(arg) => self.events.borrow_mut().bind_virq(arg)?,
            Hypercall::ClosePort(arg) => {
                let mut events = self.events.borrow_mut();
                events.close(arg.port, &self.shared_info)?;
            }
            Hypercall::SendEvent(arg) => self.events.borrow_mut().send(arg.port)?,
            Hypercall::QueryGrants(arg) => self.query_grants(arg)?,
            Hypercall::Yield | Hypercall::StopPeriodicTimer(_) => {}
            Hypercall::Poll(ports, _) => self.events.borrow_mut().poll(ports)?,
            Hypercall::Shutdown(arg) => return Ok(self.shut_down(arg)),
            Hypercall::SetTimer(vcpu, arg) => self.set_timer(vcpu, arg)?,
            Hypercall::StopTimer(_) => self.timer.set(None),
        }
        Ok(0)
    }

    fn add_to_physmap(&self, arg: &memory::AddToPhysmap) -> Result<(), Errno> {
        if arg.domid != DomId::SELF.0 {
            return Err(Errno::EPERM);
        }
        let (first, limit) = match arg.space {
            memory::SPACE_SHARED_INFO => (FIXED_SHARED_INFO, 1),
            memory::SPACE_GRANT_TABLE => (FIXED_GRANTS, u64::from(self.grants.borrow().max_frames)),
            _ => return Err(Errno::ENOSYS),
        };
        if arg.idx >= limit {
            return Err(Errno::EINVAL);
        }
        if arg.gpfn != first.0 + arg.idx {
            self.note(Violation::MappedElsewhere(arg.gpfn));
            return Err(Errno::EINVAL);
        }
        if arg.space == memory::SPACE_GRANT_TABLE {
            let frame = u32::try_from(arg.idx).map_err(|_| Errno::EINVAL)?;
            self.grants.borrow_mut().appear(frame);
        } else if self.hides_info.replace(false) {
            self.shared_info.zero(0, self.shared_info.len());
        }
        Ok(())
    }

    fn get_param(&self, arg: &hvm::Param) -> Result<u64, Errno> {
        let value = self.params.borrow().get(&arg.index).copied();
        value.ok_or(Errno::EINVAL)
    }

    fn set_param(&self, arg: &hvm::Param) -> Result<(), Errno> {
        // The toolstack's parameters are not the guest's to change.
        if arg.index != hvm::PARAM_CALLBACK_IRQ {
            return Err(Errno::EPERM);
        }
        self.params.borrow_mut().insert(arg.index, arg.value);
        Ok(())
    }

    fn query_grants(&self, arg: &mut grant_table::QuerySize) -> Result<(), Errno> {
        if arg.dom != DomId::SELF.0 {
            return Err(Errno::EPERM);
        }
        let grants = self.grants.borrow();
        arg.nr_frames = grants.frames;
        arg.max_nr_frames = grants.max_frames;
        arg.status = 0;
        Ok(())
    }

    fn shut_down(&self, arg: &SchedShutdown) -> u64 {
        let reason = ShutdownReason(arg.reason);
        self.shutdown.set(Some(reason));
        if reason != ShutdownReason::SUSPEND {
            return 0;
        }
        let meanwhile = self.at_suspend.take();
        meanwhile.map_or(0, |meanwhile| meanwhile())
    }

    fn set_timer(&self, vcpu: u32, arg: &SetSingleshotTimer) -> Result<(), Errno> {
        /// `VCPU_SSHOTTMR_future`: fail if the time has passed.
        const ONLY_FUTURE: u32 = 1;
        if vcpu != 0 {
            return Err(Errno::EINVAL);
        }
        if arg.flags & ONLY_FUTURE != 0 && arg.timeout_abs_ns < self.clock.get() {
            return Err(Errno::ETIME);
        }
        self.timer.set(Some(arg.timeout_abs_ns));
        self.fire_timer();
        Ok(())
    }

    /// Raises the timer's event if its time has come.
    pub(super) fn fire_timer(&self) {
        if self.timer.get().is_none_or(|at| at > self.clock.get()) {
            return;
        }
        self.timer.set(None);
        let mut events = self.events.borrow_mut();
        if let Some(port) = events.timer_port() {
            events.raise(port, &self.shared_info);
        }
    }
}
