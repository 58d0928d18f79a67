//! Hyper-V as the main loop sees it.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use firn_block::gate::Lifecycle;
use firn_block::{Armed, Completion, DiskId, Queue};
use firn_hyperv::ic::{Command, Event, Services, WallTime};
use firn_hyperv::storvsc::{Controller, ControllerConfig, ScsiBus, Unit};
use firn_hyperv::vmbus::{BusError, Vmbus, VmbusConfig};
use firn_hyperv::{Hal, HyperV};
use firn_jobs::{DiskReport, Report};
use firn_task::{Executor, Instant, Time, Timers};

use super::{Connected, HyperVHal};
use crate::arch::{apic, traps};
use crate::console;
use crate::drives::ScsiDrives;
use crate::host::platform::Look;

/// How often COM1 is looked at for what was typed: nothing tells of it.
const TYPED: Duration = Duration::from_millis(20);

/// Hyper-V, its bus and its disks.
pub(crate) struct HyperVPlatform {
    pub(super) hv: Rc<HyperV<HyperVHal>>,
    pub(super) bus: Rc<Vmbus<HyperVHal>>,
    pub(super) scsi: Rc<ScsiBus<HyperVHal>>,
    pub(super) services: Rc<Services<HyperVHal>>,
    /// When the clock read zero, in nanoseconds since 1970, if the host has said
    /// what time it is.
    wall_zero: Cell<Option<u64>>,
    executor: Rc<Executor>,
    /// Ticks of the local timer in a second.
    timer: u64,
    /// There is a COM1 to read from.
    has_serial: bool,
    /// When it was last looked at.
    looked: Cell<Instant>,
    /// Looks at event flags that found some.
    events: Cell<u64>,
    /// Contact was made, or failed.
    contacted: Rc<Cell<bool>>,
}

impl HyperVPlatform {
    /// Contact is made as soon as the executor runs.
    ///
    /// # Errors
    /// [`BusError::NoMemory`].
    pub(crate) fn new(
        connected: Connected,
        bus: VmbusConfig,
        scsi: ControllerConfig,
        has_serial: bool,
    ) -> Result<Self, BusError> {
        let Connected { hv, timer } = connected;
        let bus = Vmbus::new(&hv, bus)?;
        let executor = Rc::new(Executor::new());
        let scsi = ScsiBus::new(&bus, &executor, scsi);
        let contacted = Rc::new(Cell::new(false));
        executor.spawn(contact(bus.clone(), contacted.clone()));
        executor.spawn(bus.clone().run());
        executor.spawn(scsi.clone().run());
        let services = Services::new(&bus);
        executor.spawn(services.clone().run());
        Ok(Self {
            hv,
            bus,
            scsi,
            services,
            wall_zero: Cell::new(None),
            executor,
            timer,
            has_serial,
            looked: Cell::new(Instant::default()),
            events: Cell::new(0),
            contacted,
        })
    }

    pub(in crate::host) const fn executor(&self) -> &Rc<Executor> {
        &self.executor
    }

    pub(in crate::host) fn drives(&self) -> ScsiDrives<HyperVHal> {
        ScsiDrives::new(&self.hv, &self.scsi)
    }

    pub(in crate::host) fn look(&self) -> Look {
        if self.hv.synic.scan_events() {
            self.events.set(self.events.get().wrapping_add(1));
        }
        let now = self.hv.hal.now();
        self.hv.timers.fire(now);
        Look {
            now,
            timer: traps::take_timer(),
            more: self.bus.poll(),
        }
    }

    pub(in crate::host) fn has_news(&self) -> bool {
        self.hv.synic.is_pending()
    }

    pub(in crate::host) fn next_deadline(&self) -> Option<Instant> {
        self.hv.timers.next_deadline()
    }

    pub(in crate::host) fn set_timer(&self, at: Instant) -> bool {
        let wait = at.since(self.latest()).as_nanos();
        let ticks = wait * u128::from(self.timer) / 1_000_000_000;
        // One that comes too early is set again.
        apic::set_timer(u32::try_from(ticks).unwrap_or(u32::MAX));
        true
    }

    /// What the clock said when this pass began: a deadline that comes a little
    /// late by that costs nothing.
    fn latest(&self) -> Instant {
        Instant::from_nanos(crate::clock::latest_ns())
    }

    pub(in crate::host) fn wait(&self) {
        traps::halt();
    }

    pub(in crate::host) fn reap(&self, budget: usize, deliver: &mut dyn FnMut(Completion)) {
        self.scsi.for_each(|unit| {
            let Ok(mut front) = unit.front.try_borrow_mut() else {
                return;
            };
            front.take_event();
            front.poll(budget, deliver);
        });
    }

    pub(in crate::host) fn arm(&self, wanted: impl Fn(DiskId) -> bool) -> bool {
        let mut quiet = true;
        self.scsi.for_each(|unit| {
            if let Ok(mut front) = unit.front.try_borrow_mut()
                && front.in_flight() > 0
                && wanted(unit.id())
            {
                quiet &= front.arm() == Armed::Sleep;
            }
        });
        quiet
    }

    pub(in crate::host) fn find(&self, disk: DiskId) -> Option<Rc<Unit<HyperVHal>>> {
        self.scsi.find(disk)
    }

    pub(in crate::host) fn reports(&self) -> Vec<DiskReport> {
        let mut reports = Vec::new();
        for controller in self.scsi.controllers() {
            let disks = controller.units();
            reports.extend(disks.iter().map(|unit| self.report_of(&controller, unit)));
        }
        reports
    }

    fn report_of(&self, controller: &Controller<HyperVHal>, unit: &Unit<HyperVHal>) -> DiskReport {
        let info = unit.info();
        let features = match (controller.offence(), controller.error()) {
            (Some(offence), _) => offence.to_string(),
            (None, Some(error)) => error.to_string(),
            (None, None) => self.features(controller, unit),
        };
        // What a disk is, is known from its first connection on.
        let known = info.capacity > 0;
        DiskReport {
            id: unit.id(),
            state: unit.state(),
            info: known.then_some(info),
            features,
            stats: *unit.front.borrow().stats(),
        }
    }

    /// What was negotiated, in a few words.
    fn features(&self, controller: &Controller<HyperVHal>, unit: &Unit<HyperVHal>) -> String {
        let version = |name: &str, version: Option<String>| match version {
            Some(version) => format!("{name}={version}"),
            None => format!("{name}=none"),
        };
        let mut words = Vec::from([
            version("vmbus", self.bus.version().map(|v| v.to_string())),
            version("vstor", controller.version().map(|v| v.to_string())),
            format!("channels={}", controller.channels()),
            format!("lun={}", unit.number()),
            "flush".into(),
        ]);
        if unit.info().discard.is_some() {
            words.push("discard".into());
        }
        words.join(" ")
    }

    pub(in crate::host) fn is_settled(&self) -> bool {
        self.contacted.get() && (!self.bus.is_complete() || self.scsi.is_settled())
    }

    pub(in crate::host) fn keep_shut(&self, shut: bool) {
        self.scsi.keep_shut(shut);
    }

    pub(in crate::host) fn hold_devices(&self, hold: bool) {
        self.scsi.hold(hold);
    }

    pub(in crate::host) fn read_input(&self, to: &mut [u8]) -> usize {
        match self.has_serial {
            true => console::read_serial(to),
            false => 0,
        }
    }

    pub(in crate::host) fn has_input(&self) -> bool {
        // Looking costs an exit to the hypervisor: not at each pass.
        let now = self.latest();
        let due = self.has_serial && now.since(self.looked.get()) >= TYPED;
        if due {
            self.looked.set(now);
        }
        due
    }

    pub(in crate::host) fn mask(&self, _disk: DiskId) {
        // Its first request keeps the ring's events away.
    }

    pub(in crate::host) fn wall_clock(&self) -> u64 {
        let zero = self.wall_zero.get();
        zero.map_or(0, |zero| zero.saturating_add(self.now().as_nanos()))
    }

    /// The next thing that the host asks for. What it says of the time is taken
    /// in meanwhile.
    pub(crate) async fn next_command(&self) -> Command {
        loop {
            match self.services.next().await {
                Event::Command(command) => return command,
                Event::Time(time) => self.set_wall_clock(time),
            }
        }
    }

    fn set_wall_clock(&self, time: WallTime) {
        let since = u64::try_from(time.since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let zero = since.saturating_sub(time.at.as_nanos());
        // What was told earlier of a moment stays before what is told of a later.
        let late = self.wall_zero.get().is_some_and(|before| before > zero);
        if !late {
            self.wall_zero.set(Some(zero));
        }
        if time.set {
            log::info!(
                "the host says that it is {} s after 1970",
                since / 1_000_000_000
            );
        }
    }

    /// Tells the host whether it may ask for a hibernation.
    pub(crate) fn hibernates(&self, can: bool) {
        self.services.hibernates(can);
    }

    /// After so long somebody who waits for input wants a look.
    pub(in crate::host) const fn patience(&self) -> Option<Duration> {
        match self.has_serial {
            true => Some(TYPED),
            false => None,
        }
    }

    pub(in crate::host) fn events(&self) -> u64 {
        self.events.get()
    }

    pub(in crate::host) fn report(&self, report: Report, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
        match report {
            Report::Grants => line(format_args!(
                "{} shared memories of channels that the host knows",
                self.bus.gpadls()
            )),
            Report::Trace | Report::Memory => {}
        }
    }

    /// Whether every disk is where the host cannot reach it.
    pub(super) fn is_away(&self) -> bool {
        let connected = |state| matches!(state, Lifecycle::Live | Lifecycle::Freezing);
        let mut away = true;
        self.scsi.for_each(|unit| away &= !connected(unit.state()));
        away
    }
}

/// Makes contact, once.
async fn contact(bus: Rc<Vmbus<HyperVHal>>, contacted: Rc<Cell<bool>>) {
    if let Err(error) = bus.connect().await {
        log::error!("VMBus: {error}; there are no disks without it");
    }
    contacted.set(true);
}

impl Time for HyperVPlatform {
    fn now(&self) -> Instant {
        self.hv.now()
    }

    fn timers(&self) -> &Timers {
        &self.hv.timers
    }
}
