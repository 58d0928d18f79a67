//! Devices and their channels.

use crate::hyperv::device::{Device, HostChannel};
use std::ops::{Index, IndexMut};

/// Numbers of further channels' slots begin here: devices keep theirs.
const FURTHER: usize = 1 << 16;

/// A device and one of its channels.
pub(super) struct Slot {
    pub(super) device: Device,
    /// Which of the device's channels; zero is the first.
    pub(super) number: u16,
    /// The slot of the first one.
    pub(super) owner: usize,
    /// Nobody offers it.
    pub(super) hidden: bool,
    pub(super) relid: u32,
    pub(super) connection: u32,
    /// Taken back, and the guest has not given it back yet.
    pub(super) rescinded: bool,
    /// The guest asked to open it, whatever came of that.
    pub(super) asked: bool,
    pub(super) channel: Option<HostChannel>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Slots {
    devices: Vec<Slot>,
    further: Vec<Slot>,
}

impl Slots {
    /// A new device; its slot.
    pub(super) fn plug(&mut self, device: Device) -> usize {
        let owner = self.devices.len();
        self.devices.push(slot(device, owner, 0));
        owner
    }

    /// A slot for a further channel of a device. Nobody has its number.
    pub(super) fn further(&mut self, owner: usize, number: u16) -> usize {
        let free = |slot: &Slot| slot.owner == owner && slot.number == number && slot.relid == 0;
        let at = self.further.iter().position(free).unwrap_or_else(|| {
            let device = self.devices[owner].device.clone();
            self.further.push(slot(device, owner, number));
            self.further.len() - 1
        });
        FURTHER + at
    }

    /// Slots of the further channels of a device that are offered.
    pub(super) fn of(&self, owner: usize) -> Vec<usize> {
        let all = (FURTHER..).zip(&self.further);
        let its = all.filter(|(_, slot)| slot.owner == owner && slot.relid != 0);
        its.filter(|(_, slot)| !slot.rescinded)
            .map(|(index, _)| index)
            .collect()
    }

    /// Slots of devices.
    pub(super) fn devices(&self) -> std::ops::Range<usize> {
        0..self.devices.len()
    }

    /// There is no connection: further channels are made by the next one.
    pub(super) fn forget_further(&mut self) {
        self.further.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.devices.iter().chain(&self.further)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.devices.iter_mut().chain(&mut self.further)
    }

    /// The slot of a channel's number.
    pub(super) fn find(&self, relid: u32) -> Option<usize> {
        let devices = self.devices.iter().enumerate();
        let further = (FURTHER..).zip(&self.further);
        let mut all = devices.chain(further);
        let found = all.find(|(_, slot)| slot.relid == relid);
        found.map(|(index, _)| index)
    }
}

const fn slot(device: Device, owner: usize, number: u16) -> Slot {
    Slot {
        device,
        number,
        owner,
        hidden: false,
        relid: 0,
        connection: 0,
        rescinded: false,
        asked: false,
        channel: None,
    }
}

impl Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, index: usize) -> &Slot {
        match index.checked_sub(FURTHER) {
            Some(further) => &self.further[further],
            None => &self.devices[index],
        }
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, index: usize) -> &mut Slot {
        match index.checked_sub(FURTHER) {
            Some(further) => &mut self.further[further],
            None => &mut self.devices[index],
        }
    }
}
