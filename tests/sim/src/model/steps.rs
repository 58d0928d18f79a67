//! How the model goes from one state to the next.

use super::disk::{Disk, Header, Mark, Slot, Write};
use super::{Action, At, Bounds, Broken, Image, Left, Memory, Seen, State, Wrong};

/// Chunks that nobody wrote.
const ROT: u8 = u8::MAX;

/// Whether a valid header on the medium stands for a whole image there.
pub(super) fn is_whole(state: &State) -> bool {
    let disk = &state.image;
    match disk.newest() {
        Some((_, header)) if header.state == Mark::Valid && disk.chunks != ROT => {
            disk.chunks == header.freeze && disk.table == header.freeze
        }
        _ => true,
    }
}

pub(super) fn start(bounds: Bounds) -> State {
    let left = Left {
        cuts: bounds.cuts,
        faults: bounds.faults,
        freezes: bounds.freezes,
        writes: bounds.writes,
    };
    State {
        at: At::Off,
        memory: Memory::default(),
        image: Disk::blank(),
        data: 0,
        data_cached: None,
        freeze: 0,
        generation: 0,
        slot: 0,
        seen: Seen::default(),
        left,
    }
}

pub(super) fn actions(state: &State, actions: &mut Vec<Action>) {
    match state.at {
        At::Off => {
            actions.push(Action::Boot);
            if state.left.faults > 0 {
                actions.push(Action::Rot);
            }
        }
        At::Running => {
            if state.left.writes > 0 && !state.memory.in_flight {
                actions.push(Action::Write);
            }
            if state.memory.written > state.memory.acked {
                actions.push(Action::Sync);
            }
            if state.left.freezes > 0 {
                actions.push(Action::Freeze);
            }
        }
        At::Stopped | At::Refused => actions.push(Action::Decide),
        _ => {
            actions.push(Action::Step);
            if state.left.faults > 0 {
                actions.extend([Action::Fail(false), Action::Fail(true)]);
            }
        }
    }
    if state.left.cuts > 0 && state.at != At::Off {
        for way in 0..state.image.after_power_cut().len() {
            actions.push(Action::Cut(way, false));
            if state.data_cached.is_some() {
                actions.push(Action::Cut(way, true));
            }
        }
    }
}

pub(super) fn next(broken: Broken, state: &State, action: &Action) -> Option<State> {
    let mut run = Run {
        broken,
        state: state.clone(),
    };
    match action {
        Action::Step => run.step(),
        Action::Fail(effect) => run.fail(*effect),
        Action::Cut(way, data) => {
            run.state.left.cuts -= 1;
            let disk = run.state.image.after_power_cut().get(*way)?.clone();
            run.off(disk, *data);
        }
        Action::Boot => {
            run.state.seen.touched = false;
            run.state.at = At::Look;
        }
        Action::Rot => {
            run.state.left.faults -= 1;
            run.state.image.chunks = ROT;
            run.state.seen.promised = None;
        }
        Action::Write => {
            run.state.left.writes -= 1;
            run.state.memory.written += 1;
            run.state.memory.in_flight = true;
            run.state.data_cached = Some(run.state.memory.written);
        }
        Action::Sync => {
            run.state.memory.in_flight = false;
            run.flush_data();
            run.state.memory.acked = run.state.memory.written;
            run.state.seen.acked = run.state.memory.written;
        }
        Action::Freeze => {
            run.state.left.freezes -= 1;
            run.state.at = At::Drain;
        }
        Action::Decide if state.at == At::Stopped => run.state.at = At::VoidWrite(2),
        Action::Decide => {
            // Whoever says so gives up what was promised.
            run.state.seen.promised = None;
            run.state.at = At::ColdLook;
        }
    }
    Some(run.state)
}

struct Run {
    broken: Broken,
    state: State,
}

impl Run {
    fn is(&self, broken: Broken) -> bool {
        self.broken == broken
    }

    fn wrong(&mut self, what: Wrong) {
        self.state.seen.wrong.get_or_insert(what);
    }

    fn flush_data(&mut self) {
        if !self.is(Broken::DiskLies)
            && let Some(version) = self.state.data_cached.take()
        {
            self.state.data = version;
        }
    }

    fn flush_image(&mut self) {
        if !self.is(Broken::DiskLies) {
            self.state.image.flush();
        }
    }

    fn put(&mut self, write: Write) {
        // A write that is already cached at this place is replaced in effect,
        // and still may arrive alone.
        self.state.image.cache.push(write);
    }

    fn put_header(&mut self, slot: usize, state: Mark) {
        self.state.slot = slot;
        let header = Header {
            generation: self.state.generation,
            freeze: self.state.freeze,
            state,
        };
        self.put(Write::Slot(slot, Slot::Header(header)));
    }

    fn newest(&self) -> Option<(usize, Header)> {
        let seen = self.state.image.seen();
        let (at, newest) = seen.newest()?;
        if self.is(Broken::ValidWins) && newest.state == Mark::Spent {
            let other = seen.slots[1 - at];
            if let Slot::Header(header) = other
                && header.generation == newest.generation
            {
                return Some((1 - at, header));
            }
        }
        Some((at, newest))
    }

    /// The slot that does not hold the latest state.
    fn free_slot(&self) -> usize {
        let free = self.newest().map_or(0, |(at, _)| 1 - at);
        match self.is(Broken::SlotsSwapped) {
            true => 1 - free,
            false => free,
        }
    }

    /// Writes a header where the latest state is not, so that it is still there
    /// should the sector be lost in writing.
    fn put_beside(&mut self, state: Mark) {
        let slot = self.free_slot();
        let latest = self.newest().map(|(at, _)| at);
        if latest == Some(slot) {
            self.wrong(Wrong::OnlyCopy);
        }
        self.put_header(slot, state);
    }

    /// Power is off; what the caches held is lost but for what arrived.
    fn off(&mut self, disk: Disk, data: bool) {
        let state = &mut self.state;
        state.at = At::Off;
        state.image = disk;
        if let Some(version) = state.data_cached.take().filter(|_| data) {
            state.data = version;
        }
        state.memory = Memory::default();
        (state.freeze, state.generation, state.slot) = (0, 0, 0);
    }

    /// Gates open: from here on the world sees this machine.
    fn open(&mut self, from: Option<u8>) {
        let seen = &mut self.state.seen;
        if let Some(freeze) = from {
            let image = seen.images.get(usize::from(freeze).wrapping_sub(1));
            match image {
                Some(image) if image.memory != self.state.memory => self.wrong(Wrong::Mixed),
                Some(image) if image.epoch != seen.epoch => self.wrong(Wrong::Doubled),
                Some(_) => {}
                None => self.wrong(Wrong::Mixed),
            }
            self.state.seen.restored = true;
        } else if seen.promised.is_some() {
            self.wrong(Wrong::Lost);
        }
        self.state.seen.epoch += 1;
        self.state.seen.promised = None;
        self.state.at = At::Running;
    }

    /// A machine without an image: jobs find what is on the data disk.
    fn open_cold(&mut self) {
        let there = self.state.data_cached.unwrap_or(self.state.data);
        self.state.memory = Memory {
            written: there,
            acked: there.min(self.state.seen.acked),
            in_flight: false,
        };
        self.open(None);
    }

    fn step(&mut self) {
        let at = self.state.at;
        self.state.at = match at {
            At::Look => return self.look(),
            At::ColdLook => return self.cold_look(),
            At::SpentFlush => {
                if !self.is(Broken::NoFlushSpent) {
                    self.flush_image();
                }
                return self.open_cold();
            }
            At::Load => return self.load(),
            At::ConsumeWrite => {
                self.consume();
                At::ConsumeFlush
            }
            At::ConsumeFlush => {
                self.flush_image();
                At::RetireWrite
            }
            At::RetireWrite => {
                self.put_header(1 - self.state.slot, Mark::Spent);
                At::RetireFlush
            }
            At::RetireFlush => {
                self.flush_image();
                if self.is(Broken::ConsumeBeforeVerify) {
                    return self.load();
                }
                return self.open(Some(self.state.freeze));
            }
            At::AbandonWrite => {
                self.put_beside(Mark::Spent);
                At::AbandonFlush
            }
            At::AbandonFlush => {
                self.flush_image();
                self.state.seen.abandoned = true;
                self.state.seen.promised = None;
                return self.open_cold();
            }
            _ => return self.freeze_step(at),
        };
    }

    fn consume(&mut self) {
        // From here the session may be used up without having gone on.
        self.state.seen.promised = None;
        if !self.is(Broken::NoConsume) {
            self.put_beside(Mark::Spent);
        }
        if self.is(Broken::OpenBeforeConsumed) {
            self.state.at = At::Running;
        }
    }

    fn look(&mut self) {
        let newest = self.newest();
        let Some((_, header)) = newest else {
            return self.open_cold();
        };
        (self.state.generation, self.state.freeze) = (header.generation, header.freeze);
        match header.state {
            Mark::Spent => self.state.at = At::SpentFlush,
            Mark::Valid => {
                let begun = self.state.seen.begun.replace(header.freeze);
                self.state.seen.restored_again |= begun == Some(header.freeze);
                if self.is(Broken::NotesTries) {
                    self.touch(Mark::Valid);
                }
                self.state.at = match self.is(Broken::ConsumeBeforeVerify) {
                    true => At::ConsumeWrite,
                    false => At::Load,
                };
            }
        }
    }

    fn cold_look(&mut self) {
        let newest = self.newest().map(|(_, header)| header);
        match newest {
            Some(header) if header.state != Mark::Spent && !self.is(Broken::NoAbandon) => {
                (self.state.generation, self.state.freeze) = (header.generation, header.freeze);
                self.state.at = At::AbandonWrite;
            }
            Some(_) => self.state.at = At::SpentFlush,
            None => self.open_cold(),
        }
    }

    fn load(&mut self) {
        let disk = self.state.image.seen();
        let freeze = self.state.freeze;
        let sound = disk.chunks == freeze && disk.table == freeze;
        if !sound && !self.is(Broken::NoVerify) {
            self.refuse();
            return;
        }
        // Without verification, whatever is there becomes memory.
        let image = self.state.seen.images.get(usize::from(disk.chunks) - 1);
        self.state.memory = image.map_or(Memory::default(), |image| image.memory);
        if self.is(Broken::ConsumeBeforeVerify) || self.is(Broken::OpenBeforeConsumed) {
            self.consume_unless_done();
            return self.open(Some(freeze));
        }
        self.state.at = At::ConsumeWrite;
    }

    fn consume_unless_done(&mut self) {
        if self.is(Broken::OpenBeforeConsumed) {
            self.consume();
        }
    }

    /// A header is written before the image is used up.
    fn touch(&mut self, state: Mark) {
        self.put_beside(state);
        self.flush_image();
        self.state.seen.touched = true;
    }

    /// What a boot found cannot be restored now.
    fn stand_refused(&mut self) {
        if self.is(Broken::RefusalAbandons) {
            self.touch(Mark::Spent);
        }
        if std::mem::take(&mut self.state.seen.touched) {
            self.wrong(Wrong::Touched);
        }
        self.state.at = At::Refused;
    }

    /// A promised image whose content is not there is lost.
    fn refuse(&mut self) {
        if self.state.seen.promised.is_some() || self.is(Broken::ConsumeBeforeVerify) {
            self.wrong(Wrong::Lost);
        }
        self.state.memory = Memory::default();
        self.stand_refused();
    }

    fn freeze_step(&mut self, at: At) {
        self.state.at = match at {
            At::Drain => {
                if !self.is(Broken::NoDrain) {
                    self.state.memory.in_flight = false;
                }
                At::FlushData
            }
            At::FlushData => {
                if !self.is(Broken::NoFlushData) {
                    self.flush_data();
                }
                At::WriteChunks
            }
            At::WriteChunks => {
                self.begin_image();
                self.put(Write::Chunks(self.state.freeze));
                At::WriteTable
            }
            At::WriteTable => {
                self.put(Write::Table(self.state.freeze));
                At::FlushImage
            }
            At::FlushImage => {
                if !self.is(Broken::NoFlushImage) {
                    self.flush_image();
                }
                At::WriteHeader
            }
            At::WriteHeader => {
                let newest = self.newest().map_or(0, |(_, header)| header.generation);
                self.state.generation = newest + 1;
                self.put_beside(Mark::Valid);
                At::FlushHeader
            }
            At::FlushHeader => {
                if !self.is(Broken::NoFlushHeader) {
                    self.flush_image();
                }
                At::ReadBack
            }
            At::ReadBack => At::PowerOff,
            At::PowerOff => return self.power_off(),
            At::VoidWrite(rounds) => {
                let slot = usize::from(rounds % 2);
                self.put_header(slot, Mark::Spent);
                At::VoidFlush(rounds)
            }
            At::VoidFlush(rounds) => {
                if !self.is(Broken::NoFlushVoid) {
                    self.flush_image();
                }
                match rounds {
                    2 => At::VoidWrite(1),
                    _ => {
                        self.state.seen.voided = true;
                        return self.live_again();
                    }
                }
            }
            other => other,
        };
    }

    fn begin_image(&mut self) {
        let state = &mut self.state;
        if state.memory.in_flight {
            self.wrong(Wrong::NotStill);
            return;
        }
        state.seen.images.push(Image {
            memory: state.memory,
            epoch: state.seen.epoch,
        });
        state.freeze = u8::try_from(state.seen.images.len()).unwrap_or(u8::MAX);
    }

    /// The cache of a disk whose machine is off is lost as well: here in the
    /// worst way that there is.
    fn power_off(&mut self) {
        self.state.seen.promised = Some(self.state.freeze);
        let worst = Disk {
            cache: Vec::new(),
            ..self.state.image.clone()
        };
        self.off(worst, false);
    }

    fn fail(&mut self, effect: bool) {
        self.state.left.faults -= 1;
        let at = self.state.at;
        if effect {
            self.effect(at);
        }
        let header_may_be_there = matches!(
            at,
            At::WriteHeader | At::FlushHeader | At::ReadBack | At::PowerOff
        );
        self.state.at = match at {
            At::Look | At::Load => return self.stand_refused(),
            // The memory is loaded and nothing has seen it: it may only go on
            // once CONSUMED is durable, so it stays where it is.
            At::ConsumeWrite | At::ConsumeFlush => At::Refused,
            // It is consumed all the same.
            At::RetireWrite | At::RetireFlush => return self.open(Some(self.state.freeze)),
            At::SpentFlush | At::ColdLook | At::AbandonWrite | At::AbandonFlush => At::Refused,
            At::VoidWrite(_) | At::VoidFlush(_) => At::Stopped,
            _ if header_may_be_there && !self.is(Broken::NoVoid) => At::VoidWrite(2),
            _ => return self.live_again(),
        };
    }

    /// A freeze is undone: what it wrote must not go on.
    fn live_again(&mut self) {
        self.state.seen.epoch += 1;
        self.state.at = At::Running;
    }

    /// The I/O of a step that reports an error, when it took effect all the
    /// same.
    fn effect(&mut self, at: At) {
        match at {
            At::ConsumeWrite | At::RetireWrite | At::AbandonWrite => self.step(),
            At::VoidWrite(_) | At::WriteTable | At::WriteHeader => self.step(),
            At::WriteChunks => self.step(),
            At::FlushData => self.flush_data(),
            At::SpentFlush
            | At::ConsumeFlush
            | At::RetireFlush
            | At::AbandonFlush
            | At::VoidFlush(_)
            | At::FlushImage
            | At::FlushHeader => self.flush_image(),
            _ => {}
        }
    }
}
