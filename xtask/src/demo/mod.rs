//! `cargo xtask run --demo ...`: a guest with a ledger is frozen to a disk and
//! switched off; a fresh boot, on the same host or on the next one, goes on where it
//! stood, and is frozen again; the host counts.

mod report;
mod stage;

use std::time::Duration;

use anyhow::{Context, Result};
use firn_boot_tests::ledger::{LedgerAt, Tally};
use firn_boot_tests::{Event, JobResult, judge, ledger};
use firn_image::State;
use firn_lab::{BrokenGuest, Host};

use report::Report;
use stage::{Life, Stage, disks, ledger_line};

/// What a person may choose.
pub(crate) struct Options {
    /// Where it boots, in turn; the first one again after the last.
    pub(crate) hosts: Vec<Host>,
    /// How much memory to fill with what cannot be made smaller, in MiB.
    pub(crate) fill: u32,
    /// How often it is frozen.
    pub(crate) rounds: u32,
    /// One line of JSON instead of the story.
    pub(crate) json: bool,
    /// For each boot.
    pub(crate) deadline: Duration,
}

impl Options {
    /// Where boot `number` takes place, from 0 on.
    fn host(&self, number: u32) -> Host {
        self.hosts[number as usize % self.hosts.len()]
    }
}

/// How often a demonstration is begun at most.
const TRIES: u32 = 3;

/// Shows a guest's life; another one, if the emulator broke this one.
///
/// # Errors
/// Something was lost, doubled or changed on the way.
pub(crate) fn show(options: &Options) -> Result<()> {
    for _ in 1..TRIES {
        match show_once(options) {
            Err(error) if error.is::<BrokenGuest>() => {
                eprintln!("host: {error}: the demonstration begins again, on new disks");
            }
            outcome => return outcome,
        }
    }
    show_once(options)
}

fn show_once(options: &Options) -> Result<()> {
    let mut stage = Stage::set(options)?;
    let show = stage.show;
    let at = LedgerAt::of(&ledger_line(options.host(0)))?;
    let mut story = Story::default();
    for number in 0..=options.rounds {
        let host = options.host(number);
        let described = stage.lab(host)?.describe()?;
        let [data, image] = disks(host);
        if story.labs.last() != Some(&described) {
            show.say(&format!(
                "{described}; disks: {data} for data, {image} for the image"
            ));
            story.labs.push(described);
        }
        let jobs = match number {
            0 => first_jobs(options),
            _ => "poweroff".to_owned(),
        };
        show.say(&headline(number, options));
        story.live(stage.live(host, &jobs)?)?;
        let last = number == options.rounds;
        let due = if last { State::Consumed } else { State::Valid };
        stage.expect_image(due)?;
        let tally = at.tally(&stage.data, &story.console)?;
        ledger::judge(&tally)?;
        let records = tally.acknowledged;
        show.say(&format!(
            "the guest is off; the image on {image} is {due}; {data} has {records} acknowledged \
             records"
        ));
        story.tallies.push(tally);
    }

    let report = Report::new(&story)?;
    match options.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("\n{report}"),
    }
    report.judge()
}

/// What was seen of all boots so far.
#[derive(Default)]
struct Story {
    /// Where it lived.
    labs: Vec<String>,
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
fn headline(number: u32, options: &Options) -> String {
    if number == 0 {
        let [_, image] = disks(options.host(0));
        return format!(
            "first boot: measures {image}, fills memory, keeps a ledger, and is frozen"
        );
    }
    let then = match number < options.rounds {
        true => ", and is frozen again",
        false => "",
    };
    format!(
        "boot {}, of the same ELF on the same disks: it goes on{then}",
        number + 1
    )
}

/// What the guest does, of which everything after the first freeze it does in
/// later boots.
fn first_jobs(options: &Options) -> String {
    let [_, image] = disks(options.host(0));
    // The image is written over what the measurement has written, so that both
    // find a disk file of which all blocks are allocated. What counts is the best
    // that the disk does: few requests, whose pages the backend keeps mapped, or
    // many; the many last, because their pages crowd out the others'.
    let measure = |how| format!("bench disk={image} bs=1M time=2s {how}");
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
    let ledger = ledger_line(options.host(0));
    let freeze = |number| {
        // The disk has another name on another host.
        let [_, image] = disks(options.host(number));
        format!("sleep time=2s; freeze image={image} audit; fill-check; ")
    };
    let rounds: String = (0..options.rounds).map(freeze).collect();
    format!(
        "disks; {measures}; image format disk={image}; fill size={fill}M; {ledger} &; \
         {rounds}sleep time=2s; stop; poweroff"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_freeze_names_the_disk_as_its_host_does() {
        let options = Options {
            hosts: vec![Host::Xen, Host::HyperV],
            fill: 8,
            rounds: 2,
            json: false,
            deadline: Duration::ZERO,
        };
        let jobs = first_jobs(&options);
        let freezes: Vec<_> = jobs
            .split("; ")
            .filter(|job| job.starts_with("freeze"))
            .collect();
        assert_eq!(
            freezes,
            ["freeze image=xvdb audit", "freeze image=sdb audit"]
        );
        assert!(jobs.contains("ledger disk=xvda "));
    }
}
