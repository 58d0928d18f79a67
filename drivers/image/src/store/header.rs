//! Writing headers: every change of an image's state.
//!
//! A state is changed by one write of one sector into the slot that does not
//! hold what must survive it, and a flush; only then comes the other slot.

use super::{Area, BLOCK, Store, Table};
use crate::format::{RECORD_BYTES, SLOT_BYTES, TABLE_PLACE, header};
use crate::io::Purpose;
use crate::plan::Stage;
use crate::{
    Commit, Damage, Device, Error, Generation, Header, Plan, Slot, SlotId, Slots, State, Verdict,
};
use firn_block::{Op, PAGE};
use zerocopy::IntoBytes;

impl<D: Device> Store<D> {
    /// F11: one write of the header, into the slot that does not hold the
    /// latest state. An error of the flush after it means the same as
    /// [`Commit::Unknown`].
    ///
    /// # Errors
    /// [`Commit`] says whether the image may be valid.
    pub async fn commit(&mut self, plan: &mut Plan) -> Result<(), Commit> {
        if plan.stage != Stage::Table {
            let early = Error::Order("commit before the table was written");
            return Err(Commit::Untouched(early));
        }
        plan.stage = Stage::Committed;
        let what = "writing the image header";
        self.io.settle(what).await.map_err(Commit::Untouched)?;
        self.stage_header(plan.target, &plan.header);
        let span = plan.area.span(slot_place(plan.target), SLOT_BYTES);
        let purpose = Purpose { what, tag: 0 };
        let sent = self.io.send(BLOCK, Op::Write, span, purpose).await;
        sent.map_err(Commit::Untouched)?;
        self.io.settle(what).await.map_err(Commit::Unknown)
    }

    /// F13: reads the header back and compares.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Damaged`] when it differs. Treat both as
    /// [`Commit::Unknown`].
    pub async fn read_back(&mut self, plan: &Plan) -> Result<(), Error> {
        let slots = self.look(plan.area).await?;
        if *slots.get(plan.target) == Slot::Header(plan.header) {
            return Ok(());
        }
        Err(Error::Damaged(Damage::Header {
            slot: plan.target,
            what: "it is not what was written",
        }))
    }

    /// Rule 2 of failures: marks the image of a commit that went wrong VOID, in
    /// both slots, each durable before the next.
    ///
    /// # Errors
    /// [`Error`]: the image may be valid. Nothing may go on.
    pub async fn void(&mut self, plan: &Plan) -> Result<(), Error> {
        let header = with_state(&plan.header, State::Void);
        for slot in [plan.target.other(), plan.target] {
            self.set(&plan.area, slot, &header).await?;
        }
        Ok(())
    }

    /// R9: marks the image CONSUMED in the slot that does not hold it, durably.
    /// Not before this has succeeded may anything outside change.
    ///
    /// # Errors
    /// [`Error`]: the image may or may not be restored once more.
    pub async fn consume(&mut self, table: &Table) -> Result<(), Error> {
        let header = with_state(&table.header, State::Consumed);
        self.set(&table.area, table.slot.other(), &header).await
    }

    /// R9: marks the image CONSUMED in its own slot, too, durably. Only after
    /// [`Store::consume`].
    ///
    /// # Errors
    /// [`Error`]; the image is consumed all the same.
    pub async fn retire(&mut self, table: &Table) -> Result<(), Error> {
        let header = with_state(&table.header, State::Consumed);
        self.set(&table.area, table.slot, &header).await
    }

    /// Gives up whatever image is on the disk, or whatever it is that cannot
    /// be told because headers are damaged or of another format: ABANDONED in
    /// both slots, durably. An image that has ended stays as it is. Returns the
    /// generation that ended.
    ///
    /// # Errors
    /// [`Error`]: the image may or may not still be valid. [`Error::Order`] when
    /// the disk never held one.
    pub async fn abandon(&mut self, area: Area, slots: &Slots) -> Result<Generation, Error> {
        let (header, order) = match slots.verdict() {
            Verdict::Valid(header, slot) => {
                (with_state(&header, State::Abandoned), [slot.other(), slot])
            }
            Verdict::Damaged(_) | Verdict::Version(_) => {
                let generation = slots.next_generation();
                let header = Header::bare(generation, State::Abandoned, area.sectors);
                // What is sound stays until the newer state is elsewhere.
                let first = match slots.a {
                    Slot::Header(_) => SlotId::B,
                    _ => SlotId::A,
                };
                (header, [first, first.other()])
            }
            Verdict::Ended(header, _) => return Ok(header.generation),
            Verdict::Blank | Verdict::Foreign => {
                return Err(Error::Order("there is no image to give up"));
            }
        };
        for slot in order {
            self.set(&area, slot, &header).await?;
        }
        Ok(header.generation)
    }

    /// Makes the area an empty image disk, whatever is on it.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Memory`] also where the area is too small for any
    /// image.
    pub async fn format(&mut self, area: Area) -> Result<(), Error> {
        if !area.holds(0, TABLE_PLACE + PAGE as u64) {
            return Err(Error::Memory("the disk is too small for an image"));
        }
        let what = "clearing the image disk's front";
        self.io.settle(what).await?;
        self.io.memory(BLOCK).zero(0, TABLE_PLACE as usize);
        let span = area.span(0, TABLE_PLACE as usize);
        self.io.once(BLOCK, Op::Write, span, what).await?;
        self.flush().await?;
        self.empty_headers(&area).await
    }

    /// The headers of an image disk without image.
    pub(super) async fn empty_headers(&mut self, area: &Area) -> Result<(), Error> {
        let header = Header::bare(Generation(0), State::Empty, area.sectors);
        for slot in SlotId::ALL {
            self.set(area, slot, &header).await?;
        }
        Ok(())
    }

    /// Writes a header and makes it durable.
    async fn set(&mut self, area: &Area, slot: SlotId, header: &Header) -> Result<(), Error> {
        let what = "writing an image header";
        self.io.settle(what).await?;
        self.stage_header(slot, header);
        let span = area.span(slot_place(slot), SLOT_BYTES);
        self.io.once(BLOCK, Op::Write, span, what).await?;
        self.io.flush("flushing an image header").await
    }

    /// Puts a slot's bytes into the block lane, which is idle.
    fn stage_header(&self, slot: SlotId, header: &Header) {
        let memory = self.io.memory(BLOCK);
        memory.copy_in(0, header.to_raw(slot).as_bytes());
        memory.zero(RECORD_BYTES, SLOT_BYTES - RECORD_BYTES);
    }
}

const _: () = assert!(size_of::<header::RawHeader>() == RECORD_BYTES);

const fn slot_place(slot: SlotId) -> u64 {
    match slot {
        SlotId::A => 0,
        SlotId::B => SLOT_BYTES as u64,
    }
}

const fn with_state(header: &Header, state: State) -> Header {
    Header { state, ..*header }
}
