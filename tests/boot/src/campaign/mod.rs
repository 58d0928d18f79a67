//! Long lives: guests with a ledger that are frozen, suspended, migrated and
//! destroyed again and again. The host counts, from the disk's file, the image
//! disk's headers and the consoles of all boots. Short forms of it are tests;
//! `cargo xtask soak` runs it for as long as one likes.

mod destroy;
mod freeze;
mod suspend;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use firn_image::{Header, Slots, State, Verdict};
use firn_jobs::ledger_format::Tally;
use firn_lab::{Exit, GuestDisk, GuestSpec, Host};

use crate::again::again;
use crate::bench::{Bench, Lent};
use crate::events::Event;
use crate::ledger::{self, LedgerAt};
use crate::results::JobResult;
use crate::scene::{Live, PATIENT, Scene};

/// The ledger of every campaign: mixed I/O at depth 32.
const LEDGER: &str = "ledger disk=xvda size=8M bs=4k qd=32 reads=30";
/// From creation to the first acknowledgement, on a machine that is busy.
const UP: Duration = Duration::from_secs(90);
/// For a freeze or a restore.
const CYCLE: Duration = Duration::from_secs(120);

/// Which campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `xl save` and `xl restore`.
    Save,
    /// `xl migrate` to the same host.
    Migrate,
    /// Freeze, power off, fresh boot, restore.
    Freeze,
    /// `xl destroy` at a random moment of a freeze or a restore, then a boot.
    Destroy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Save, Self::Migrate, Self::Freeze, Self::Destroy];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Migrate => "migrate",
            Self::Freeze => "freeze",
            Self::Destroy => "destroy",
        }
    }
}

/// How much of it.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// How many times.
    pub count: u32,
    /// Begin no further time after this moment, but for the first one.
    pub until: Option<Instant>,
    /// Start of the random numbers.
    pub seed: u64,
    /// Hears how it goes on: how many times so far, and what happened.
    pub report: &'a dyn Fn(u32, &str),
}

impl Plan<'_> {
    /// So many times, with this seed, in silence.
    #[must_use]
    pub fn quiet(count: u32, seed: u64) -> Self {
        Self {
            count,
            until: None,
            seed,
            report: &|_, _| (),
        }
    }

    /// The part of it that one life takes when so many times are done. Run as a
    /// whole plan, it repeats that life.
    #[must_use]
    pub fn life(&self, done: u32) -> Self {
        Self {
            count: self.count.saturating_sub(done).min(LIFE),
            seed: self.seed.wrapping_add(done.into()),
            ..*self
        }
    }

    fn is_over(&self, done: u32) -> bool {
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        done >= self.count || (late && done > 0)
    }
}

/// What a campaign came to; nothing is lost and nothing doubled.
#[derive(Debug, Clone)]
pub struct Score {
    /// Which campaign.
    pub kind: Kind,
    /// How many times.
    pub times: u32,
    /// The final counts of its ledgers.
    pub tally: Tally,
    /// Boots that restored an image.
    pub restored: u32,
    /// Boots that found none to restore.
    pub cold: u32,
}

/// Lives are no longer than this, so that one that the emulator broke is no
/// great loss.
const LIFE: u32 = 25;

impl Score {
    /// Nothing yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            times: 0,
            tally: Tally::default(),
            restored: 0,
            cold: 0,
        }
    }

    fn add(&mut self, life: &Self) {
        self.times += life.times;
        self.restored += life.restored;
        self.cold += life.cold;
        let (all, own) = (&mut self.tally, &life.tally);
        all.acknowledged += own.acknowledged;
        all.due += own.due;
        all.present += own.present;
        all.lost += own.lost;
        all.doubled += own.doubled;
        all.damaged += own.damaged;
    }
}

/// Runs one campaign in lives of its own.
///
/// # Errors
/// Something was lost, doubled, resumed twice or not at all; dom0 complained;
/// or the guest or the lab did not do what it should.
pub fn run(kind: Kind, plan: &Plan<'_>) -> Result<Score> {
    let mut score = Score::new(kind);
    run_into(&mut score, plan)?;
    Ok(score)
}

/// The same; what was done before an error is in `score`, whole lives only, and
/// [`Plan::life`] of its times is the one that failed.
///
/// # Errors
/// As [`run`].
pub fn run_into(score: &mut Score, plan: &Plan<'_>) -> Result<()> {
    let kind = score.kind;
    while !plan.is_over(score.times) {
        let before = score.times;
        let report = |done, text: &str| (plan.report)(before + done, text);
        let life = Plan {
            report: &report,
            ..plan.life(before)
        };
        let lived = again(Host::Xen, || live(kind, &life));
        let name = kind.name();
        score.add(&lived.with_context(|| format!("{name} (seed {})", life.seed))?);
    }
    Ok(())
}

/// One guest's life: with all its boots, on one pair of disks.
///
/// # Errors
/// As [`run`].
fn live(kind: Kind, plan: &Plan<'_>) -> Result<Score> {
    let scene = Scene::new(Host::Xen)?;
    let mut run = Run::new(&scene)?;
    let lived = run.through(kind, plan);
    let score = lived.with_context(|| {
        let tail = firn_lab::tail(&run.console(), 40);
        format!("the console ended with:\n{tail}")
    })?;
    drop(run);
    scene.finish()?;
    Ok(score)
}

/// One campaign under way.
struct Run<'a> {
    scene: &'a Scene,
    data: Lent<'a>,
    image: Lent<'a>,
    ledger: LedgerAt,
    /// The consoles of guests that have ended.
    past: String,
    live: Option<Live>,
    restored: u32,
    cold: u32,
}

impl<'a> Run<'a> {
    fn new(scene: &'a Scene) -> Result<Self> {
        Ok(Self {
            scene,
            data: scene.bench.disk(512)?,
            image: scene.bench.disk(512)?,
            ledger: LedgerAt::of(LEDGER)?,
            past: String::new(),
            live: None,
            restored: 0,
            cold: 0,
        })
    }

    /// All of a life.
    fn through(&mut self, kind: Kind, plan: &Plan<'_>) -> Result<Score> {
        let times = match kind {
            Kind::Save => self.suspends(plan, |live| {
                live.guest.save()?;
                live.guest.restore()
            }),
            Kind::Migrate => self.suspends(plan, |live| live.guest.migrate()),
            Kind::Freeze => self.freezes(plan),
            Kind::Destroy => self.destroys(plan),
        }?;
        Ok(Score {
            kind,
            times,
            tally: self.end()?,
            restored: self.restored,
            cold: self.cold,
        })
    }

    /// Creates the guest, as often as one likes: the same disks, the same line.
    fn create(&mut self) -> Result<()> {
        let spec = GuestSpec::new("firn", Bench::elf())
            .with_memory(128)
            .with_cmdline(&format!(
                "log=info {PATIENT} -- wait-disk xvda timeout=60s; wait-disk xvdb timeout=60s; {LEDGER} &"
            ))
            .with_disk(GuestDisk::new(self.data.name(), "xvda"))
            .with_disk(GuestDisk::new(self.image.name(), "xvdb"));
        self.live = Some(self.scene.start_spec(&spec)?);
        Ok(())
    }

    fn live(&self) -> Result<&Live> {
        self.live.as_ref().context("the guest has ended")
    }

    /// Everything that was said so far, in order.
    fn console(&self) -> String {
        let now = self.live.as_ref().map(|live| live.guest.console().text());
        self.past.clone() + &now.unwrap_or_default()
    }

    /// Waits until the ledger has acknowledged something new in this guest.
    fn wait_ack(&self) -> Result<()> {
        self.live()?.guest.wait_for("firn-ack ", UP).map(|_| ())
    }

    /// Waits until it has acknowledged `more` records than it has now.
    fn wait_acks(&self, more: u64) -> Result<()> {
        let wanted = self.ledger.acked(&self.console()) + more;
        let start = Instant::now();
        while self.ledger.acked(&self.console()) < wanted {
            self.no_failed_job()?;
            if start.elapsed() > UP {
                bail!("the ledger does not get to record {wanted} within {UP:?}");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// No job of this guest has failed.
    fn no_failed_job(&self) -> Result<()> {
        let text = self.live()?.guest.console().text();
        for result in text.lines().filter_map(JobResult::parse) {
            // A line that a destroyed guest did not finish is no result.
            let Ok(result) = result else { continue };
            ensure!(result.ok, "{}", result.describe());
        }
        Ok(())
    }

    /// The guest has ended, one way or another: keeps what it said.
    fn keep_console(&mut self) -> Result<()> {
        self.no_failed_job()?;
        if let Some(live) = self.live.take() {
            self.past += &live.guest.console().text();
            self.past.push('\n');
        }
        Ok(())
    }

    /// Counts the ledger as it is on the disk, and judges.
    fn count(&self) -> Result<Tally> {
        let tally = self.ledger.tally(self.data.file(), &self.console())?;
        ledger::judge(&tally)?;
        Ok(tally)
    }

    /// Waits for a freeze that was begun, up to the end of the guest.
    fn wait_off(&mut self) -> Result<()> {
        // The event `frozen`, or else the job's result.
        self.live()?.guest.wait_for(":\"fr", CYCLE)?;
        self.no_failed_job()?;
        let exit = self.live()?.guest.wait_exit(CYCLE)?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");
        self.keep_console()
    }

    /// What this guest did with the image, once its ledger is at work.
    fn how_it_came_up(&mut self) -> Result<Option<Event>> {
        self.wait_ack()?;
        let text = self.live()?.guest.console().text();
        let restored = Event::last(&text, "restored");
        match restored {
            Some(_) => self.restored += 1,
            None => self.cold += 1,
        }
        Ok(restored)
    }

    /// Ends the guest in good order, and counts for the last time.
    fn end(&mut self) -> Result<Tally> {
        if self.live.is_some() {
            let live = self.live()?;
            live.begin("stop; poweroff")?;
            let exit = live.guest.wait_exit(CYCLE)?;
            ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");
            self.keep_console()?;
        }
        self.count()
    }
}

/// What is on an image disk, by its file.
///
/// # Errors
/// The file cannot be read, or holds what no freeze or restore leaves behind.
pub fn image_state(file: &Path) -> Result<Option<(Header, State)>> {
    use std::os::unix::fs::FileExt;
    let disk = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let mut front = vec![0; 2 * 4096];
    disk.read_exact_at(&mut front, 0)?;
    match Slots::parse(&front).verdict() {
        Verdict::Blank => Ok(None),
        Verdict::Ended(header, _) => Ok(Some((header, header.state))),
        Verdict::Valid(header, _) => Ok(Some((header, State::Valid))),
        verdict => bail!("{}: {verdict:?}", file.display()),
    }
}
