//! The loop that runs everything on the first vCPU.

use alloc::rc::Rc;

use firn_task::{Executor, Instant};
use firn_xen::hypercall::Hypercall;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::event_channel::VIRQ_TIMER;
use firn_xen::wire::misc::SetSingleshotTimer;
use firn_xen::{Hal, Xen};

use super::{Alarm, Rest};
use crate::arch::idle;
use crate::clock;
use crate::host::xen::XenHal;
use crate::mm::{self, Memory};

const FIRST_VCPU: u32 = 0;

/// Drivers and jobs of one vCPU.
pub struct MainLoop {
    xen: Rc<Xen<XenHal>>,
    /// Tasks of the kernel and its drivers: they live in boot memory.
    pub drivers: Rc<Executor>,
    /// Tasks of applications: they live in job memory.
    pub jobs: Rc<Executor>,
    alarm: Alarm,
}

impl MainLoop {
    /// A loop without tasks, with the timer ready.
    ///
    /// # Errors
    /// What Xen says if it gives no timer interrupt.
    pub fn new(xen: Rc<Xen<XenHal>>) -> Result<Self, firn_xen::event::EventError> {
        // Xen ticks every new vCPU; where it does not, stopping fails, and
        // nothing is lost.
        let _ = xen.hal.hypercall(Hypercall::StopPeriodicTimer(FIRST_VCPU));
        let timer = xen.events.bind_virq(&xen.hal, VIRQ_TIMER)?;
        xen.events.unmask(timer);
        let drivers = Rc::new(Executor::new());
        let _job = mm::enter(Memory::Job);
        let jobs = Rc::new(Executor::new());
        Ok(Self {
            xen,
            drivers,
            jobs,
            alarm: Alarm::new(),
        })
    }

    /// Runs until `done` says so; it is asked whenever there is no other work.
    pub fn run_until(&self, done: impl Fn() -> bool) {
        loop {
            self.xen.poll();
            let worked = self.drivers.poll_ready();
            let worked = self.poll_jobs() || worked;
            if worked {
                continue;
            }
            if done() {
                return;
            }
            self.rest();
        }
    }

    fn poll_jobs(&self) -> bool {
        let _job = mm::enter(Memory::Job);
        self.jobs.poll_ready()
    }

    /// Halts until an event, unless there is work by now. Interrupts are off,
    /// so nothing can come between the last look and the halt.
    fn rest(&self) {
        let rest = self
            .alarm
            .rest(self.xen.hal.now(), self.xen.next_deadline());
        if let Rest::SetTimerAndHalt(at) = rest
            && self.set_timer(at).is_err()
        {
            return; // without a timer, look again at once: correct, if wasteful
        }
        let work =
            self.xen.events.upcall_pending() || self.drivers.has_ready() || self.jobs.has_ready();
        if rest != Rest::No && !work {
            idle::halt();
        }
    }

    fn set_timer(&self, at: Instant) -> Result<(), Errno> {
        let timeout_abs_ns = clock::to_source(at.as_nanos());
        let timer = SetSingleshotTimer {
            timeout_abs_ns,
            flags: 0,
            pad: 0,
        };
        self.xen
            .hal
            .hypercall(Hypercall::SetTimer(FIRST_VCPU, &timer))
            .map(|_| ())
    }
}
