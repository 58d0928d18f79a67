//! A SCSI controller: the other end of storvsc.

mod lun;
mod serve;
mod target;

pub use lun::Lun;

use super::device::Link;
use crate::blkback::Disk;
use firn_hyperv::wire::vstor::Version;
use serve::Pending;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// A controller.
#[derive(Clone, Debug)]
pub struct StorvspConfig {
    /// The newest version that it speaks.
    pub newest: Version,
    /// The oldest.
    pub oldest: Version,
    /// Most bytes of a request.
    pub max_transfer: u32,
    /// What tells it from others.
    pub instance: [u8; 16],
    /// Answers are sent the last first, as far as there are several.
    pub reversed: bool,
    /// Steps between a request and its answer.
    pub delay: u64,
    /// Most further channels that it says there may be.
    pub subchannels: u16,
    /// Most that it really makes.
    pub makes: u16,
}

impl Default for StorvspConfig {
    fn default() -> Self {
        Self {
            newest: Version::V6_2,
            oldest: Version::V2_0,
            max_transfer: 0x4_0000,
            instance: [7; 16],
            reversed: false,
            delay: 0,
            subchannels: 0,
            makes: u16::MAX,
        }
    }
}

impl StorvspConfig {
    /// A controller that speaks one version.
    #[must_use]
    pub fn only(version: Version) -> Self {
        Self {
            newest: version,
            oldest: version,
            ..Self::default()
        }
    }
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Opened,
    Begun,
    Versioned,
    Described,
    Ready,
}

/// What is on its way on one channel.
#[derive(Default)]
struct Lane {
    pending: VecDeque<Pending>,
    /// The guest's ring was full: nothing is sent before it signals.
    blocked: bool,
    /// Answers that are only sent after a reset.
    stuck: VecDeque<Pending>,
    clock: u64,
}

struct State {
    config: StorvspConfig,
    luns: BTreeMap<u8, Lun>,
    phase: Phase,
    version: Option<Version>,
    /// By the numbers of the channels.
    lanes: BTreeMap<u16, Lane>,
    /// Further channels to be offered.
    made: Vec<u16>,
    resets: u32,
    /// So many requests are still answered; the others wait.
    allowance: Option<usize>,
    /// Requests so far, by the numbers of the channels.
    served: BTreeMap<u16, u64>,
    /// Notices for the guest.
    notices: VecDeque<u32>,
}

/// A controller; clones are the same.
#[derive(Clone)]
pub struct Storvsp(Rc<RefCell<State>>);

impl Storvsp {
    /// A controller without disks.
    #[must_use]
    pub fn new(config: StorvspConfig) -> Self {
        Self(Rc::new(RefCell::new(State {
            config,
            luns: BTreeMap::new(),
            phase: Phase::Closed,
            version: None,
            lanes: BTreeMap::new(),
            made: Vec::new(),
            resets: 0,
            allowance: None,
            served: BTreeMap::new(),
            notices: VecDeque::new(),
        })))
    }

    /// Plugs a disk as unit `number`; a guest that is connected is told so.
    pub fn plug(&self, number: u8, lun: Lun) {
        let mut state = self.0.borrow_mut();
        state.luns.insert(number, lun);
        state.notices.push_back(11);
    }

    /// Unplugs a disk.
    pub fn unplug(&self, number: u8) {
        let mut state = self.0.borrow_mut();
        state.luns.remove(&number);
        state.notices.push_back(11);
    }

    /// Has a unit say "unit attention" with its next answer.
    pub fn attention(&self, number: u8, code: u8, qualifier: u8) {
        if let Some(lun) = self.0.borrow_mut().luns.get_mut(&number) {
            lun.attention = Some((code, qualifier));
        }
    }

    /// Has a unit refuse to be written from now on.
    pub fn protect(&self, number: u8) {
        if let Some(lun) = self.0.borrow_mut().luns.get_mut(&number) {
            lun.read_only = true;
        }
    }

    /// Has a unit be too busy for so many reads and writes.
    pub fn busy(&self, number: u8, commands: u32) {
        if let Some(lun) = self.0.borrow_mut().luns.get_mut(&number) {
            lun.busy = commands;
        }
    }

    /// Answers so many requests and no more; `None` is all.
    pub fn allow(&self, requests: Option<usize>) {
        self.0.borrow_mut().allowance = requests;
    }

    /// Speaks one version from the next channel on.
    pub fn speaks_only(&self, version: Version) {
        let mut state = self.0.borrow_mut();
        (state.config.newest, state.config.oldest) = (version, version);
    }

    /// The disk that is plugged as a unit.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn disk(&self, number: u8) -> Disk {
        let state = self.0.borrow();
        let lun = state.luns.get(&number);
        lun.map(|lun| lun.disk.clone())
            .unwrap_or_else(|| panic!("no unit {number}"))
    }

    /// Whether a guest has come to the end of the handshake.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().phase == Phase::Ready
    }

    /// The version of the present connection.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.0.borrow().version
    }

    /// SCSI requests so far.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.0.borrow().served.values().sum()
    }

    /// The same by one of its channels.
    #[must_use]
    pub fn served_by(&self, number: u16) -> u64 {
        self.0.borrow().served.get(&number).copied().unwrap_or(0)
    }

    /// From the next handshake on, says that there may be so many further channels,
    /// and makes so many at most.
    pub fn make_subchannels(&self, says: u16, makes: u16) {
        let mut state = self.0.borrow_mut();
        (state.config.subchannels, state.config.makes) = (says, makes);
    }

    pub(super) fn most_subchannels(&self) -> u16 {
        self.0.borrow().config.subchannels
    }

    /// Further channels to be offered.
    pub(super) fn take_made(&self) -> Vec<u16> {
        std::mem::take(&mut self.0.borrow_mut().made)
    }

    /// What tells it from others.
    #[must_use]
    pub fn instance(&self) -> [u8; 16] {
        self.0.borrow().config.instance
    }

    /// How often it was reset.
    #[must_use]
    pub fn resets(&self) -> u32 {
        self.0.borrow().resets
    }

    pub(super) fn opened(&self, number: u16) {
        let mut state = self.0.borrow_mut();
        state.lanes.insert(number, Lane::default());
        if number == 0 {
            state.phase = Phase::Opened;
            state.version = None;
            state.made.clear();
        }
    }

    pub(super) fn closed(&self, number: u16) {
        let mut state = self.0.borrow_mut();
        if let Some(mut lane) = state.lanes.remove(&number) {
            lane.pending.iter_mut().for_each(Pending::give_up);
        }
        if number == 0 {
            state.phase = Phase::Closed;
            state.notices.clear();
            state.made.clear();
        }
    }

    pub(super) fn serve(&self, link: &mut Link<'_>) -> bool {
        self.0.borrow_mut().serve(link)
    }
}
