//! Medians, ratios, a table for people and a file for programs.

use std::fmt::Write;

use serde::Serialize;

use super::start::Start;
use super::{SIDES, Sample, Side, WORKLOADS, Workload};

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The lab, in its own words.
    lab: String,
    /// fio's engine on the Linux side.
    engine: String,
    pub(crate) samples: Vec<Measured>,
    pub(crate) starts: Vec<Started>,
    /// Filled from the samples when the report is written.
    ratios: Vec<Ratio>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) workload: Workload,
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) sample: Sample,
}

#[derive(Debug, Serialize)]
pub(crate) struct Started {
    pub(crate) side: Side,
    #[serde(flatten)]
    pub(crate) start: Start,
}

/// How firn compares, by the medians.
#[derive(Debug, Serialize)]
struct Ratio {
    workload: Workload,
    side: Side,
    ratio: f64,
}

impl Report {
    /// A report without measurements.
    pub(crate) fn new(lab: String, engine: String) -> Self {
        Self {
            lab,
            engine,
            ..Self::default()
        }
    }

    /// The lab, in its own words.
    pub(crate) fn lab(&self) -> &str {
        &self.lab
    }

    /// The report as JSON, with the ratios of what was measured.
    pub(crate) fn finish_json(&mut self) -> serde_json::Result<String> {
        let ratios = pairs().filter(|(_, side)| *side != Side::Linux);
        let ratio = |(workload, side)| {
            let ratio = self.ratio(workload, side)?;
            Some(Ratio {
                workload,
                side,
                ratio,
            })
        };
        self.ratios = ratios.filter_map(ratio).collect();
        serde_json::to_string_pretty(self)
    }

    /// The report as a table.
    pub(crate) fn to_table(&self) -> String {
        let mut text = format!(
            "{:<20} {:<11} {:>9} {:>8} {:>8} {:>8} {:>8}  {:>6} {:>6} {:>6}\n",
            "workload",
            "side",
            "IOPS",
            "x Linux",
            "mean us",
            "p50 us",
            "p99 us",
            "hcalls",
            "events",
            "notif."
        );
        for (workload, side) in pairs() {
            let median = |pick: fn(&Sample) -> Option<f64>| self.median(workload, side, pick);
            let Some(iops) = median(|s| Some(s.iops)) else {
                continue;
            };
            let shown = |value: Option<f64>, digits: usize| {
                value.map_or("-".into(), |value| format!("{value:.digits$}"))
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<20} {:<11} {iops:>9.0} {:>8} {:>8} {:>8} {:>8}  {:>6} {:>6} {:>6}{}",
                format!("{} {} QD{}", workload.rw, workload.bs, workload.qd),
                side.name(),
                shown(self.ratio(workload, side), 2),
                shown(median(|s| Some(s.mean_us)), 0),
                shown(median(|s| Some(s.p50_us)), 0),
                shown(median(|s| Some(s.p99_us)), 0),
                shown(median(|s| s.hypercalls), 3),
                shown(median(|s| Some(s.events)), 3),
                shown(median(|s| Some(s.notifications)), 3),
                self.verdict(workload, side),
            );
        }
        text += &self.start_table();
        text
    }

    fn start_table(&self) -> String {
        let mut text = String::new();
        for side in SIDES {
            let pick = |pick: fn(&Start) -> f64| {
                let of_side = self.starts.iter().filter(|s| s.side == side);
                median(of_side.map(|s| pick(&s.start)).collect())
            };
            let (Some(inside), Some(outside)) = (pick(|s| s.inside), pick(|s| s.outside)) else {
                continue;
            };
            let _ = writeln!(
                text,
                "first completed read: {:<11} {inside:>8.3} s after entry by its own clock, \
                 {outside:>8.3} s after xl unpause",
                if side == Side::Linux { "Linux" } else { "firn" },
            );
        }
        text
    }

    /// Whether the aim was met; only for the faster way of the two.
    fn verdict(&self, workload: Workload, side: Side) -> String {
        match (workload.aim, self.ratio(workload, side)) {
            (Some(aim), Some(ratio)) if side == Side::FirnPoll => {
                let met = if ratio >= aim { "met" } else { "missed" };
                format!("  aim {aim:.1}: {met}")
            }
            _ => String::new(),
        }
    }

    fn ratio(&self, workload: Workload, side: Side) -> Option<f64> {
        let iops = |side| self.median(workload, side, |s| Some(s.iops));
        Some(iops(side)? / iops(Side::Linux)?)
    }

    fn median(
        &self,
        workload: Workload,
        side: Side,
        pick: fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        let same = |m: &&Measured| m.workload == workload && m.side == side;
        let values = self.samples.iter().filter(same);
        median(values.filter_map(|m| pick(&m.sample)).collect())
    }
}

fn pairs() -> impl Iterator<Item = (Workload, Side)> {
    WORKLOADS
        .into_iter()
        .flat_map(|workload| SIDES.map(|side| (workload, side)))
}

/// The middle of the values; the mean of both middles of an even number.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(side: Side, iops: f64) -> Measured {
        let sample = Sample {
            iops,
            mean_us: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            events: 1.0,
            notifications: 1.0,
            hypercalls: None,
            cycles: None,
        };
        Measured {
            workload: WORKLOADS[0],
            side,
            sample,
        }
    }

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn ratios_are_of_medians_and_judged_by_the_aim() {
        let mut report = Report::default();
        for iops in [100.0, 1.0, 900.0] {
            report.samples.push(measured(Side::Linux, iops));
        }
        report.samples.push(measured(Side::FirnPoll, 150.0));
        report.samples.push(measured(Side::FirnEvent, 149.0));
        let table = report.to_table();
        assert!(table.contains("1.50"), "{table}");
        assert!(table.contains("aim 1.5: met"), "{table}");
        assert!(!table.contains("missed"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&report.finish_json().unwrap()).unwrap();
        assert_eq!(json["ratios"][1]["ratio"], 1.49);
        assert_eq!(json["samples"][3]["side"], "firn-poll");
    }
}
