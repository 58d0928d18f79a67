//! Xen as the main loop sees it.

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use firn_block::gate::Lifecycle;
use firn_block::{Armed, Completion, DiskId, Queue};
use firn_jobs::{DiskReport, Report};
use firn_task::{Executor, Instant, Time, Timers};
use firn_xen::blkfront::{VbdConfig, VbdReport};
use firn_xen::bus::Bus;
use firn_xen::console::Console;
use firn_xen::event::EventError;
use firn_xen::hypercall::Hypercall;
use firn_xen::store::Store;
use firn_xen::wire::event_channel::{Port, VIRQ_TIMER};
use firn_xen::wire::misc::SetSingleshotTimer;
use firn_xen::{Hal, Xen};

use super::{XenHal, report};
use crate::clock;
use crate::drives::XenDrives;
use crate::host::platform::Look;

const FIRST_VCPU: u32 = 0;

/// Xen, its buses and its console.
pub(crate) struct XenPlatform {
    pub(crate) xen: Rc<Xen<XenHal>>,
    pub(crate) store: Store<XenHal>,
    pub(crate) bus: Rc<Bus<XenHal>>,
    console: Option<Rc<Console<XenHal>>>,
    executor: Rc<Executor>,
    /// The event channel of the hypervisor's timer.
    timer: Cell<Port>,
}

impl XenPlatform {
    /// The bus looks for devices as soon as the executor runs.
    ///
    /// # Errors
    /// What Xen says if it gives no timer.
    pub(crate) fn new(
        xen: &Rc<Xen<XenHal>>,
        store: &Store<XenHal>,
        console: Option<Rc<Console<XenHal>>>,
        config: VbdConfig,
    ) -> Result<Self, EventError> {
        let timer = Cell::new(bind_timer(xen)?);
        let executor = Rc::new(Executor::new());
        let bus = Bus::new(xen, store, &executor, config);
        let follow = bus.clone().run();
        executor.spawn(async move {
            if let Err(error) = follow.await {
                log::error!("no devices can come or go any more: {error}");
            }
        });
        Ok(Self {
            xen: xen.clone(),
            store: store.clone(),
            bus,
            console,
            executor,
            timer,
        })
    }

    /// Takes up the main loop's own part on a new host.
    pub(crate) fn meet_new_host(&self) -> Result<(), &'static str> {
        let timer = bind_timer(&self.xen).map_err(|_| "Xen gives no timer")?;
        self.timer.set(timer);
        super::set_upcall(&self.xen).map_err(|_| "an upcall vector was refused")
    }

    /// The console, if there is one.
    pub(crate) fn console(&self) -> Option<&Console<XenHal>> {
        self.console.as_deref()
    }

    pub(in crate::host) const fn executor(&self) -> &Rc<Executor> {
        &self.executor
    }

    pub(in crate::host) fn drives(&self) -> XenDrives<XenHal> {
        XenDrives::new(&self.xen, &self.bus)
    }

    pub(in crate::host) fn look(&self) -> Look {
        Look {
            now: self.xen.poll(),
            timer: self.xen.events.take(self.timer.get()),
            more: self.store.poll(),
        }
    }

    pub(in crate::host) fn has_news(&self) -> bool {
        self.xen.events.upcall_pending()
    }

    pub(in crate::host) fn next_deadline(&self) -> Option<Instant> {
        self.xen.next_deadline()
    }

    pub(in crate::host) fn set_timer(&self, at: Instant) -> bool {
        let timeout_abs_ns = clock::to_source(at.as_nanos());
        let timer = SetSingleshotTimer {
            timeout_abs_ns,
            flags: 0,
            pad: 0,
        };
        let call = Hypercall::SetTimer(FIRST_VCPU, &timer);
        self.xen.hal.hypercall(call).is_ok()
    }

    pub(in crate::host) fn wait(&self) {
        self.xen.events.wait(&self.xen.hal);
    }

    pub(in crate::host) fn reap(&self, budget: usize, deliver: &mut dyn FnMut(Completion)) {
        self.bus.for_each(|vbd| {
            let Ok(mut front) = vbd.front.try_borrow_mut() else {
                return;
            };
            front.take_event();
            front.poll(budget, deliver);
        });
    }

    pub(in crate::host) fn arm(&self, wanted: impl Fn(DiskId) -> bool) -> bool {
        let mut quiet = true;
        self.bus.for_each(|vbd| {
            if let Ok(mut front) = vbd.front.try_borrow_mut()
                && front.in_flight() > 0
                && wanted(vbd.id())
            {
                quiet &= front.arm() == Armed::Sleep;
            }
        });
        quiet
    }

    pub(in crate::host) fn mask(&self, disk: DiskId) {
        let vbd = self.bus.find(disk);
        if let Some(port) = vbd.and_then(|vbd| vbd.front.borrow().port()) {
            self.xen.events.mask(port);
        }
    }

    pub(in crate::host) fn reports(&self) -> Vec<DiskReport> {
        let vbds = self.bus.vbds();
        vbds.iter().map(|vbd| disk(vbd.to_report())).collect()
    }

    pub(in crate::host) fn is_settled(&self) -> bool {
        self.bus.is_settled()
    }

    pub(in crate::host) fn keep_shut(&self, shut: bool) {
        self.bus.keep_shut(shut);
    }

    pub(in crate::host) fn hold_devices(&self, hold: bool) {
        match hold {
            true => self.bus.freeze(),
            false => self.bus.thaw(),
        }
    }

    pub(in crate::host) fn read_input(&self, to: &mut [u8]) -> usize {
        let console = self.console.as_ref();
        console.map_or(0, |console| console.read(to))
    }

    pub(in crate::host) fn has_input(&self) -> bool {
        let Some(console) = &self.console else {
            return false;
        };
        console.flush();
        self.xen.events.take(console.port())
    }

    pub(in crate::host) fn wall_clock(&self) -> u64 {
        super::wall_clock(self.xen.events.shared_info())
    }

    pub(in crate::host) fn events(&self) -> u64 {
        self.xen.events.scans()
    }

    pub(in crate::host) fn report(&self, report: Report, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
        match report {
            Report::Grants => report::grants(&self.xen, line),
            Report::Trace => report::trace(&self.xen, line),
            Report::Memory => {}
        }
    }
}

impl Time for XenPlatform {
    fn now(&self) -> Instant {
        self.xen.hal.now()
    }

    fn timers(&self) -> &Timers {
        &self.xen.timers
    }
}

/// A disk as jobs see it.
fn disk(vbd: VbdReport) -> DiskReport {
    let features = match (&vbd.offence, &vbd.error) {
        (Some(offence), _) => offence.to_string(),
        (None, Some(error)) => error.to_string(),
        (None, None) => vbd.features,
    };
    // What a disk is, is known from its first connection on.
    let known = vbd.info.capacity > 0 || vbd.state == Lifecycle::Live;
    DiskReport {
        id: vbd.info.id,
        state: vbd.state,
        info: known.then_some(vbd.info),
        features,
        stats: vbd.stats,
    }
}

/// Binds the timer of the first vCPU.
fn bind_timer(xen: &Xen<XenHal>) -> Result<Port, EventError> {
    // Xen ticks every new vCPU; where it does not, stopping fails, and nothing
    // is lost.
    let _ = xen.hal.hypercall(Hypercall::StopPeriodicTimer(FIRST_VCPU));
    let timer = xen.events.bind_virq(&xen.hal, VIRQ_TIMER)?;
    xen.events.unmask(timer);
    Ok(timer)
}
