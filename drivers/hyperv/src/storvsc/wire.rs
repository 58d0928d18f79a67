//! What a controller and its disks share: the link, and what became of it.

use super::link::Link;
use super::offence::Offence;
use crate::hal::Hal;
use crate::machine::HyperV;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use firn_task::Signal;

pub(super) struct Wire<H: Hal> {
    pub(super) hv: Rc<HyperV<H>>,
    /// Never borrowed across a wait, nor while a disk is asked for something.
    pub(super) link: RefCell<Option<Link<H>>>,
    pub(super) offence: Cell<Option<Offence>>,
    /// Notified when the control path should look.
    pub(super) attention: Rc<Signal>,
}

impl<H: Hal> Wire<H> {
    /// Does something with the link, if there is one that is believed. A rule
    /// that is broken by it is noted.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Link<H>) -> Result<T, Offence>,
    ) -> Option<T> {
        if self.offence.get().is_some() {
            return None;
        }
        let mut link = self.link.borrow_mut();
        let link_now = link.as_mut()?;
        let known = link_now.news();
        match work(link_now) {
            Ok(result) => {
                if link_now.news() > known {
                    self.attention.notify();
                }
                Some(result)
            }
            Err(offence) => {
                drop(link);
                self.fail(offence);
                None
            }
        }
    }

    /// The host broke a rule: the link is not used any more. Each disk notices at
    /// its next occasion.
    pub(super) fn fail(&self, offence: Offence) {
        if self.offence.get().is_none() {
            log::error!("storvsc: the host broke the protocol: {offence}");
            self.offence.set(Some(offence));
            self.attention.notify();
        }
    }
}
