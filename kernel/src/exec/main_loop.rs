//! The loop that runs everything on the first vCPU.

use alloc::rc::Rc;

use firn_task::{Executor, Instant};
use firn_xen::blkfront::VbdConfig;
use firn_xen::bus::Bus;
use firn_xen::console::Console;
use firn_xen::event::EventError;
use firn_xen::hypercall::Hypercall;
use firn_xen::store::Store;
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

/// Everything that runs on one vCPU: the hypervisor, its buses, the tasks.
pub struct MainLoop {
    /// The hypervisor.
    pub xen: Rc<Xen<XenHal>>,
    /// Xenstore.
    pub store: Store<XenHal>,
    /// The console, if the toolstack made one.
    pub console: Option<Rc<Console<XenHal>>>,
    /// Disks.
    pub bus: Rc<Bus<XenHal>>,
    /// Tasks of applications: they live in job memory.
    pub jobs: Rc<Executor>,
    /// Tasks of the kernel and its drivers: they live in boot memory.
    drivers: Rc<Executor>,
    alarm: Alarm,
}

impl MainLoop {
    /// A loop in which the bus looks for devices, with the timer ready.
    ///
    /// # Errors
    /// What Xen says if it gives no timer interrupt.
    pub fn new(
        xen: &Rc<Xen<XenHal>>,
        store: &Store<XenHal>,
        console: Option<Rc<Console<XenHal>>>,
        config: VbdConfig,
    ) -> Result<Self, EventError> {
        // Xen ticks every new vCPU; where it does not, stopping fails, and
        // nothing is lost.
        let _ = xen.hal.hypercall(Hypercall::StopPeriodicTimer(FIRST_VCPU));
        let timer = xen.events.bind_virq(&xen.hal, VIRQ_TIMER)?;
        xen.events.unmask(timer);
        let drivers = Rc::new(Executor::new());
        let bus = Bus::new(xen, store, &drivers, config);
        let follow = bus.clone().run();
        drivers.spawn(async move {
            if let Err(error) = follow.await {
                log::error!("no devices can come or go any more: {error}");
            }
        });
        let _job = mm::enter(Memory::Job);
        Ok(Self {
            xen: xen.clone(),
            store: store.clone(),
            console,
            bus,
            jobs: Rc::new(Executor::new()),
            drivers,
            alarm: Alarm::new(),
        })
    }

    /// Runs until all jobs have ended.
    pub fn run(&self) {
        while !self.jobs.is_empty() {
            if !self.pass() {
                self.rest();
            }
        }
    }

    /// One look at everything. Returns whether there may be more to do.
    fn pass(&self) -> bool {
        self.xen.poll();
        let more = self.store.poll();
        if let Some(console) = &self.console {
            console.flush();
        }
        self.bus.for_each(|vbd| {
            if let Ok(mut front) = vbd.front.try_borrow_mut() {
                front.take_event();
            }
        });
        let drivers = self.drivers.poll_ready();
        let _job = mm::enter(Memory::Job);
        self.jobs.poll_ready() || drivers || more
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
