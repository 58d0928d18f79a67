//! Destroyed at a random moment of a freeze or of a restore, then booted.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use firn_image::State;
use firn_jobs::Random;

use super::{CYCLE, Plan, Run};

impl Run<'_> {
    /// Destroys the guest again and again; gives how often.
    pub(super) fn destroys(&mut self, plan: &Plan<'_>) -> Result<u32> {
        let mut random = Random::new(plan.seed);
        self.create()?;
        self.how_it_came_up()?;
        // How long a whole freeze and a whole restore take here.
        let (freeze, restore) = self.time_one_cycle()?;
        let mut done = 0;
        while !plan.is_over(done) {
            self.wait_acks(20)?;
            let moment = match random.below(2) {
                0 => self.destroy_in_freeze(pick(&mut random, freeze))?,
                _ => self.destroy_in_restore(pick(&mut random, restore))?,
            };
            self.count()?;
            let image = self.image()?;
            self.create()?;
            let restored = self.how_it_came_up()?.is_some();
            let valid = image == Some(State::Valid);
            ensure!(
                restored == valid,
                "destroyed {moment}; the image was {image:?}, and the next boot {}",
                if restored {
                    "restored it"
                } else {
                    "began cold"
                }
            );
            done += 1;
            let then = match restored {
                true => "restored",
                false => "no image, the ledger goes on from its disk",
            };
            (plan.report)(done, &format!("destroyed {moment}: {then}"));
        }
        Ok(done)
    }

    fn time_one_cycle(&mut self) -> Result<(Duration, Duration)> {
        let start = Instant::now();
        self.live()?.begin("freeze image=xvdb")?;
        self.wait_off()?;
        let freeze = start.elapsed();
        let start = Instant::now();
        self.create()?;
        self.live()?
            .guest
            .wait_for("\"event\":\"restored\"", CYCLE)?;
        self.restored += 1;
        Ok((freeze, start.elapsed()))
    }

    fn destroy_in_freeze(&mut self, after: Duration) -> Result<String> {
        self.live()?.begin("freeze image=xvdb")?;
        sleep(after);
        self.destroy()?;
        Ok(format!("{} ms into a freeze", after.as_millis()))
    }

    fn destroy_in_restore(&mut self, after: Duration) -> Result<String> {
        self.live()?.begin("freeze image=xvdb")?;
        self.wait_off()?;
        let start = Instant::now();
        self.create()?;
        sleep(after.saturating_sub(start.elapsed()));
        self.destroy()?;
        Ok(format!("{} ms into a restore", start.elapsed().as_millis()))
    }

    fn destroy(&mut self) -> Result<()> {
        self.live()?.guest.destroy()?;
        // What it said last may still be on its way here.
        sleep(Duration::from_millis(150));
        self.keep_console()
    }
}

/// A moment within about the time that the whole takes.
fn pick(random: &mut Random, whole: Duration) -> Duration {
    let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random.below(micros.saturating_add(micros / 10)))
}
