//! `cargo xtask run --demo freeze`: a guest with a ledger is frozen to a disk
//! and switched off; a fresh boot goes on where it stood, and is frozen again;
//! the host counts.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::campaign::image_state;
use firn_boot_tests::ledger::{LedgerAt, Tally};
use firn_boot_tests::{Event, JobResult, judge, ledger};
use firn_image::State;
use firn_lab::{Cache, DiskSpec, Exit, Guest, GuestDisk, GuestSpec, Host, Lab, LabConfig, by_line};

use crate::progress::Progress;
use crate::{cmd, elf};
use report::Report;

/// Beside what is filled: the kernel, and what jobs and drivers need.
const OWN_MIB: u32 = 112;
/// Beside what is filled, on the image disk.
const SPARE: u64 = 64 << 20;
const DATA: u64 = 64 << 20;
/// The ledger that lives through it.
const LEDGER: &str = "ledger disk=xvda size=8M rate=500 qd=8 reads=20";

/// What a person may choose.
pub(crate) struct Options {
    /// How much memory to fill with what cannot be made smaller, in MiB.
    pub(crate) fill: u32,
    /// How often it is frozen.
    pub(crate) rounds: u32,
    /// One line of JSON instead of the story.
    pub(crate) json: bool,
    /// For each boot.
    pub(crate) deadline: Duration,
}

/// Everything that a guest printed until it was off.
struct Life {
    console: String,
    results: Vec<JobResult>,
}

pub(crate) fn freeze(options: &Options) -> Result<()> {
    let show = Show { json: options.json };
    let elf = cmd::build::build()?;
    elf::check(&elf.stripped, &elf.debug)?;
    let progress = Progress::new();
    let images = cmd::lab::prepare(&progress)?;
    let folder = Cache::open()?.run_folder()?;
    let fill = u64::from(options.fill) << 20;
    let (data, image) = (folder.path("xvda.img"), folder.path("xvdb.img"));
    for (file, bytes) in [(&data, DATA), (&image, fill + SPARE)] {
        std::fs::File::create(file)?.set_len(bytes)?;
    }
    let config = LabConfig::new(Host::Xen)
        .with_disk(DiskSpec::new("xvda", &data))
        .with_disk(DiskSpec::new("xvdb", &image));
    let lab = Lab::boot(&images, &config, &|step| progress.step(step))?;
    progress.done();
    let described = lab.describe()?;
    show.say(&format!(
        "{described}; disks: xvda for data, xvdb for the image"
    ));

    let at = LedgerAt::of(LEDGER)?;
    let mut story = Story::default();
    for number in 0..=options.rounds {
        let jobs = match number {
            0 => first_jobs(options),
            _ => "poweroff".to_owned(),
        };
        show.say(&headline(number, options.rounds));
        let spec = spec(elf.stripped.clone(), &jobs, options.fill);
        story.live(live(&lab, &spec, show, options.deadline)?)?;
        let (_, state) = image_state(&image)?.context("there is no image on xvdb")?;
        let last = number == options.rounds;
        let due = if last { State::Consumed } else { State::Valid };
        ensure!(state == due, "the image on xvdb is {state}, not {due}");
        let tally = at.tally(&data, &story.console)?;
        ledger::judge(&tally)?;
        let records = tally.acknowledged;
        show.say(&format!(
            "the guest is off; the image on xvdb is {state}; xvda has {records} acknowledged records"
        ));
        story.tallies.push(tally);
    }

    let report = Report::new(described, &story)?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("\n{report}");
    }
    report.judge()
}

/// What was seen of all boots so far.
#[derive(Default)]
struct Story {
    console: String,
    /// What the first boot measured.
    results: Vec<JobResult>,
    rounds: Vec<Round>,
    /// The ledger after each boot.
    tallies: Vec<Tally>,
}

/// One freeze, and what became of it.
struct Round {
    frozen: Event,
    restored: Option<Event>,
    first_read: Option<Event>,
}

impl Story {
    /// One boot more: it ends the round before, and may begin one.
    fn live(&mut self, life: Life) -> Result<()> {
        judge(&life.results)?;
        let text = &life.console;
        if let Some(round) = self.rounds.last_mut() {
            round.restored = Some(Event::last(text, "restored").context("it was not restored")?);
            round.first_read = Event::last(text, "first-read");
        }
        if let Some(frozen) = Event::last(text, "frozen") {
            self.rounds.push(Round {
                frozen,
                restored: None,
                first_read: None,
            });
        }
        self.results.extend(life.results);
        self.console += &life.console;
        self.console.push('\n');
        Ok(())
    }
}

/// What a boot is there for.
fn headline(number: u32, rounds: u32) -> String {
    match number {
        0 => "first boot: measures xvdb, fills memory, keeps a ledger, and is frozen".to_owned(),
        _ => {
            let then = if number < rounds {
                ", and is frozen again"
            } else {
                ""
            };
            format!(
                "boot {}, of the same ELF on the same disks: it goes on{then}",
                number + 1
            )
        }
    }
}

/// What the guest does, of which everything after the first freeze it does in
/// later boots.
fn first_jobs(options: &Options) -> String {
    // The image is written over what the measurement has written, so that both
    // find a disk file of which all blocks are allocated. What counts is the best
    // that the disk does: few requests, whose pages the backend keeps mapped, or
    // many; the many last, because their pages crowd out the others'.
    let measure = |how| format!("bench disk=xvdb bs=1M time=2s {how}");
    let measures = [
        "rw=write qd=3",
        "rw=read qd=3",
        "rw=write qd=3",
        "rw=read qd=3",
        "rw=write qd=32 mode=poll",
        "rw=read qd=32 mode=poll",
    ];
    let measures = measures.map(measure).join("; ");
    let fill = options.fill;
    let again = "sleep time=2s; freeze image=xvdb audit; fill-check; ";
    let rounds = again.repeat(options.rounds as usize);
    format!(
        "disks; {measures}; image format disk=xvdb; fill size={fill}M; {LEDGER} &; \
         {rounds}sleep time=2s; stop; poweroff"
    )
}

fn spec(elf: PathBuf, jobs: &str, fill: u32) -> GuestSpec {
    GuestSpec::new("firn", elf)
        .with_memory(fill + OWN_MIB)
        .with_cmdline(&format!(
            "log=info deadline=20 freeze.deadline=30s -- {jobs}"
        ))
        .with_disk(GuestDisk::new("xvda", "xvda"))
        .with_disk(GuestDisk::new("xvdb", "xvdb"))
}

/// One boot, from its creation until it is off.
fn live(lab: &Lab, spec: &GuestSpec, show: Show, deadline: Duration) -> Result<Life> {
    let guest = lab.guest(spec)?;
    guest.stream_to(by_line(move |line| show.line(line)));
    let exit = wait(&guest, deadline)?;
    let console = guest.console().text();
    ensure!(exit == Exit::PowerOff, "the guest ended with {exit:?}");
    let results = console.lines().filter_map(JobResult::parse);
    Ok(Life {
        results: results.collect::<Result<_>>()?,
        console,
    })
}

/// Waits for the end; a refusal is one at once, not after the deadline.
fn wait(guest: &Guest, deadline: Duration) -> Result<Exit> {
    guest.wait_exit(deadline).map_err(|error| {
        match Event::last(&guest.console().text(), "refused") {
            Some(event) => anyhow::anyhow!(
                "the image was refused: {}; {}",
                event.text("what").unwrap_or_default(),
                event.text("hint").unwrap_or_default()
            ),
            None => error,
        }
    })
}

/// What a person sees on the way.
#[derive(Clone, Copy)]
struct Show {
    json: bool,
}

impl Show {
    /// The host speaks.
    fn say(self, text: &str) {
        match self.json {
            true => eprintln!("host: {text}"),
            false => println!("host: {text}"),
        }
    }

    /// The guest's console, without what it says to programs.
    fn line(self, line: &str) {
        let to_programs = ["firn-ack ", "firn-result ", "firn-event "];
        if !self.json && !to_programs.iter().any(|mark| line.contains(mark)) {
            println!("{line}");
        }
    }
}
