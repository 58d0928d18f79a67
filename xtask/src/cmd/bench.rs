//! `cargo xtask bench`: firn beside Linux, on the same backend, in the same lab.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use firn_lab::{Guest, Host, Images, Lab, LabConfig};

use crate::bench::report::{Measured, Report, Started};
use crate::bench::{SIDES, Side, WORKLOADS, Workload, firn, linux, start};
use crate::progress::Progress;
use crate::{cmd, elf, workspace};

/// Dom0's backend serves this: it answers at once and keeps nothing.
const NULL_BLK: [(&str, &str); 6] = [
    ("size", "1024"),
    ("blocksize", "4096"),
    ("queue_mode", "2"),
    ("irqmode", "0"),
    ("submit_queues", "2"),
    ("hw_queue_depth", "256"),
];

/// Compares firn with Linux's blkfront on one backend, in one lab.
///
/// Both guests run at the same time and take turns, so that whatever else the
/// machine does slows both. Only the ratios of one run mean anything: under
/// software emulation the numbers themselves do not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds per measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    time: u64,
    /// Turns of each side per workload; medians are reported.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    rounds: usize,
    /// Starts of each guest for the time to the first completed read.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    starts: usize,
    /// fio's engine on the Linux side.
    #[arg(long, value_name = "ENGINE", default_value = "io_uring")]
    engine: String,
    /// Where to write all samples, medians and ratios.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let elf = cmd::build::build()?;
    elf::check(&elf.stripped, &elf.debug)?;
    let progress = Progress::new();
    let images = cmd::lab::prepare(&progress)?;
    let lab = Lab::boot(&images, &LabConfig::new(Host::Xen), &|s| progress.step(s))?;
    // The guests get the other CPU.
    lab.run("xl vcpu-pin Domain-0 0 0")?;
    let disk = lab.null_blk("bench", &NULL_BLK)?;
    let mut bench = Bench {
        args,
        progress: &progress,
        images: &images,
        lab: &lab,
        elf: elf.stripped,
        disk,
        report: Report::new(lab.describe()?, args.engine.clone()),
    };
    bench.starts()?;
    bench.rounds()?;
    progress.done();
    bench.publish()
}

struct Bench<'a> {
    args: &'a Args,
    progress: &'a Progress,
    images: &'a Images,
    lab: &'a Lab,
    elf: PathBuf,
    disk: String,
    report: Report,
}

impl Bench<'_> {
    fn starts(&mut self) -> Result<()> {
        let count = self.args.starts;
        for number in 1..=count {
            self.progress.step(&format!("start {number} of {count}"));
            let spec = linux::spec(self.images, &self.disk);
            let linux = start::linux(self.lab, spec).context("starting Linux")?;
            let firn = start::firn(self.lab, self.elf.clone(), &self.disk);
            let firn = firn.context("starting firn")?;
            for (side, start) in [(Side::Linux, linux), (Side::FirnPoll, firn)] {
                self.report.starts.push(Started { side, start });
            }
        }
        Ok(())
    }

    fn rounds(&mut self) -> Result<()> {
        self.progress.step("booting both guests");
        let linux = linux::boot(self.lab, self.images, &self.disk)?;
        let firn = firn::boot(self.lab, self.elf.clone(), &self.disk)?;
        let rounds = self.args.rounds;
        for round in 1..=rounds {
            for workload in WORKLOADS {
                for side in SIDES {
                    let Workload { rw, bs, qd, .. } = workload;
                    let name = side.name();
                    self.progress.step(&format!(
                        "round {round} of {rounds}: {rw} {bs} QD{qd} by {name}"
                    ));
                    self.measure(&linux, &firn, workload, side)?;
                }
            }
        }
        Ok(())
    }

    fn measure(
        &mut self,
        linux: &Guest,
        firn: &Guest,
        workload: Workload,
        side: Side,
    ) -> Result<()> {
        let time = Duration::from_secs(self.args.time);
        let sample = match side {
            Side::Linux => linux::measure(self.lab, linux, workload, time, &self.args.engine),
            Side::FirnPoll => firn::measure(firn, workload, time, "poll"),
            Side::FirnEvent => firn::measure(firn, workload, time, "event"),
        };
        self.report.samples.push(Measured {
            workload,
            side,
            sample: sample.with_context(|| side.name())?,
        });
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        println!("{}\n", self.report.lab());
        println!("{}", self.report.to_table());
        let default = || workspace::target().join("bench.json");
        let path = self.args.json.clone().unwrap_or_else(default);
        std::fs::write(&path, self.report.finish_json()?)
            .with_context(|| path.display().to_string())?;
        println!("all samples: {}", path.display());
        Ok(())
    }
}
