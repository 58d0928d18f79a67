//! Frozen to disk and restored by a fresh boot, again and again.

use anyhow::{Context, Result, ensure};
use firn_image::State;

use super::{Plan, Run, image_state};

impl Run<'_> {
    /// Freezes and restores one memory again and again; gives how often.
    pub(super) fn freezes(&mut self, plan: &Plan<'_>) -> Result<u32> {
        self.create()?;
        self.how_it_came_up()?;
        let mut done = 0;
        while !plan.is_over(done) {
            self.wait_acks(100)?;
            self.live()?.begin("freeze image=xvdb audit")?;
            self.wait_off()?;
            self.count()?;
            let state = self.image()?.context("no image after the freeze")?;
            ensure!(state == State::Valid, "the image is {state}");
            self.create()?;
            let restored = self.how_it_came_up()?;
            ensure!(restored.is_some(), "the image was not restored");
            let state = self.image()?.context("no image after the restore")?;
            ensure!(state == State::Consumed, "the image is {state}");
            done += 1;
            (plan.report)(done, "frozen and restored");
        }
        Ok(done)
    }

    /// What became of the image, by the disk's file.
    pub(super) fn image(&self) -> Result<Option<State>> {
        Ok(image_state(self.image.file())?.map(|(_, state)| state))
    }
}
