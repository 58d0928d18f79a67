//! The synthetic interrupt controller: one slot for messages, a page of event
//! flags, both of source 2 (TLFS, chapter 11).

use crate::hal::{Hal, HalExt};
use crate::wire::msr::{ENABLE, Msr, SINT_AUTO_EOI, SINT_MASKED, SINT_POLLING, SINT_VECTOR};
use crate::wire::synic::{FLAGS, MORE_PENDING, Message, NO_MESSAGE, SLOT, VMBUS_SLOT};
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};
use core::sync::atomic::fence;
use firn_block::shm::Region;
use firn_task::{Few, Signal};

const WORDS: usize = FLAGS as usize / 64;

/// The first virtual processor's SynIC.
pub struct Synic {
    messages: Region,
    events: Region,
    /// The input of messages that we post.
    pub(crate) outgoing: Region,
    auto_eoi: bool,
    fired: [Cell<u64>; WORDS],
    signals: RefCell<Few<u32, Rc<Signal>>>,
}

impl Synic {
    /// Turns the SynIC on; `None` if there is no memory for its pages.
    pub(crate) fn new(hal: &impl Hal, auto_eoi: bool) -> Option<Self> {
        let pages = [(); 3].map(|()| hal.alloc_shared(1));
        if pages.iter().any(Option::is_none) {
            pages
                .into_iter()
                .flatten()
                .for_each(|page| hal.free_shared(page));
            return None;
        }
        let [Some(messages), Some(events), Some(outgoing)] = pages else {
            return None;
        };
        let synic = Self {
            messages,
            events,
            outgoing,
            auto_eoi,
            fired: [const { Cell::new(0) }; WORDS],
            signals: RefCell::new(Few::new()),
        };
        synic.turn_on(hal);
        Some(synic)
    }

    /// Tells the hypervisor where the pages are, and lets source 2 through.
    pub(crate) fn turn_on(&self, hal: &impl Hal) {
        self.messages.zero(0, self.messages.len());
        self.events.zero(0, self.events.len());
        self.fired.iter().for_each(|word| word.set(0));
        hal.set_page(Msr::SIMP, Some(hal.gfn(&self.messages, 0)));
        hal.set_page(Msr::SIEFP, Some(hal.gfn(&self.events, 0)));
        let eoi = if self.auto_eoi { SINT_AUTO_EOI } else { 0 };
        set_source(hal, u64::from(hal.vector()) | eoi);
        hal.update_msr(Msr::SCONTROL, ENABLE, ENABLE);
    }

    /// The source first, so that nothing comes any more; the whole controller
    /// last, as hosts are used to.
    pub(crate) fn turn_off(&self, hal: &impl Hal) {
        set_source(hal, SINT_MASKED | u64::from(hal.vector()));
        hal.set_page(Msr::SIMP, None);
        hal.set_page(Msr::SIEFP, None);
        hal.update_msr(Msr::SCONTROL, ENABLE, 0);
    }

    /// Whether there is a message or an event that nobody has looked at.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        if self.messages.atomic_u32(VMBUS_SLOT).load(Acquire) != NO_MESSAGE {
            return true;
        }
        let flags = self.events.words(VMBUS_SLOT, SLOT / 8);
        flags.iter().any(|word| word.load(Acquire) != 0)
    }

    /// Takes the message out of the slot: the copy is what is looked at. The
    /// hypervisor fills the slot again at once if more wait.
    pub fn take_message(&self, hal: &impl Hal) -> Option<Message> {
        let kind = self.messages.atomic_u32(VMBUS_SLOT);
        if kind.load(Acquire) == NO_MESSAGE {
            return None;
        }
        let message: Message = self.messages.read(VMBUS_SLOT);
        kind.store(NO_MESSAGE, SeqCst);
        // The slot must be seen empty before the flag is read: the hypervisor
        // sets the flag when it finds the slot full.
        fence(SeqCst);
        let flags = self.messages.atomic_u8(VMBUS_SLOT + 5).load(Acquire);
        if (flags | message.flags) & MORE_PENDING != 0 {
            hal.write_msr(Msr::EOM, 0);
        }
        Some(message)
    }

    /// Collects event flags and wakes who waits for them; whether there were
    /// any. Bounded by the number of flags.
    pub fn scan_events(&self) -> bool {
        let mut any = false;
        let flags = self.events.words(VMBUS_SLOT, WORDS);
        for (index, flags) in flags.iter().enumerate() {
            if flags.load(Acquire) == 0 {
                continue;
            }
            any = true;
            let mut news = flags.swap(0, AcqRel);
            self.fired[index].set(self.fired[index].get() | news);
            while news != 0 {
                let relid = index as u32 * 64 + news.trailing_zeros();
                news &= news - 1;
                if let Some(signal) = self.signals.borrow().get(&relid) {
                    signal.notify();
                }
            }
        }
        any
    }

    /// Whether the channel's flag was set since this was last asked.
    pub fn take_event(&self, relid: u32) -> bool {
        let (word, bit) = place(relid);
        let fired = self.fired[word].get();
        self.fired[word].set(fired & !bit);
        fired & bit != 0
    }

    /// The signal that is notified whenever the channel's flag is set.
    pub fn signal(&self, relid: u32) -> Rc<Signal> {
        let mut signals = self.signals.borrow_mut();
        if let Some(signal) = signals.get(&relid) {
            return signal.clone();
        }
        let signal = Rc::<Signal>::default();
        signals.insert(relid, signal.clone());
        signal
    }

    /// Has a channel's flag notify a signal of somebody's.
    pub fn share(&self, relid: u32, signal: Rc<Signal>) {
        self.signals.borrow_mut().insert(relid, signal);
    }

    /// Forgets a channel: its number may be another's soon.
    pub fn forget(&self, relid: u32) {
        self.take_event(relid);
        self.signals.borrow_mut().remove(&relid);
    }
}

/// Programs source 2.
fn set_source(hal: &impl Hal, value: u64) {
    let ours = SINT_VECTOR | SINT_MASKED | SINT_AUTO_EOI | SINT_POLLING;
    hal.update_msr(Msr::SINT2, ours, value);
}

/// Word and bit of a flag; relids were checked when they were offered.
const fn place(relid: u32) -> (usize, u64) {
    ((relid / 64) as usize % WORDS, 1 << (relid % 64))
}
