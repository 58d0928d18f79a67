//! `cargo xtask run --demo freeze`: a guest with a ledger is frozen to a disk
//! and switched off; a fresh boot goes on where it stood; the host counts.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::campaign::image_state;
use firn_boot_tests::ledger::LedgerAt;
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

    let jobs = first_jobs(options.fill);
    let spec = |jobs: &str| spec(elf.stripped.clone(), jobs, options.fill);
    show.say("first boot: measures xvdb, fills memory, keeps a ledger, and is frozen");
    let first = live(&lab, &spec(&jobs), show, options.deadline)?;
    judge(&first.results)?;
    let frozen = Event::last(&first.console, "frozen").context("it was not frozen")?;
    let (_, state) = image_state(&image)?.context("there is no image on xvdb")?;
    ensure!(state == State::Valid, "the image on xvdb is {state}");
    let at = LedgerAt::of(LEDGER)?;
    let before = at.tally(&data, &first.console)?;
    ledger::judge(&before)?;
    show.say(&format!(
        "the guest is off; xvdb holds a valid image, xvda {} acknowledged records",
        before.acknowledged
    ));

    show.say("second boot, of the same ELF on the same disks");
    let second = live(&lab, &spec("poweroff"), show, options.deadline)?;
    judge(&second.results)?;
    let restored = Event::last(&second.console, "restored").context("it was not restored")?;
    let first_read = Event::last(&second.console, "first-read");
    let (_, state) = image_state(&image)?.context("there is no image on xvdb")?;
    ensure!(state == State::Consumed, "the image on xvdb is {state}");
    let after = at.tally(&data, &(first.console + "\n" + &second.console))?;

    let report = Report::new(
        described,
        &first.results,
        (&frozen, &restored, first_read.as_ref()),
        (&before, &after),
    )?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("\n{report}");
    }
    report.judge()
}

/// What the guest does, of which everything after the freeze it does in the
/// second boot.
fn first_jobs(fill: u32) -> String {
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
    format!(
        "disks; {measures}; image format disk=xvdb; fill size={fill}M; {LEDGER} &; \
         sleep time=2s; freeze image=xvdb audit; fill-check; sleep time=2s; stop; poweroff"
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
