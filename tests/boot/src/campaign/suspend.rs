//! Suspended by the hypervisor and resumed elsewhere, under load.

use anyhow::Result;

use super::{CYCLE, Plan, Run};
use crate::scene::Live;

impl Run<'_> {
    /// Moves one guest again and again; gives how often.
    pub(super) fn suspends(
        &mut self,
        plan: &Plan<'_>,
        mut away: impl FnMut(&mut Live) -> Result<()>,
    ) -> Result<u32> {
        self.create()?;
        self.wait_ack()?;
        let mut done = 0;
        while !plan.is_over(done) {
            self.wait_acks(200)?;
            if let Some(live) = &mut self.live {
                away(live)?;
            }
            // It has compared its disk with its memory by then.
            self.live()?
                .guest
                .wait_for("after the resume: all", CYCLE)?;
            self.wait_acks(50)?;
            self.count_running()?;
            done += 1;
            (plan.report)(done, "moved and resumed");
        }
        Ok(done)
    }

    /// Counts while the guest goes on: what it had acknowledged before the look
    /// must be there.
    fn count_running(&self) -> Result<()> {
        let before = self.console();
        let tally = self.ledger.tally(self.data.file(), &before)?;
        // The ledger may have gone round since, so newer records may have taken
        // the oldest places; a gap is not to be told from that here.
        anyhow::ensure!(tally.doubled == 0, "{tally:?}");
        Ok(())
    }
}
