//! How a job ends: one line for people, one line for programs.
//!
//! ```text
//! flush: ok: everything written to xvda is durable, in 1.20 ms
//! firn-result {"job":"flush","ok":true,"disk":"xvda","bytes":0,"seconds":0.0012,"up":1.5}
//! ```
//!
//! `up` is when the job ended, in seconds since the machine's entry.
//! A failed job has `error` (a short name that does not change), `what`, `where`
//! and `hint` as well; `docs/jobs.md` lists what each job adds.

use crate::error::JobError;
use crate::machine::Machine;
use crate::units::{self, Span};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use firn_block::DiskId;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// What the line for programs starts with.
pub const RESULT_PREFIX: &str = "firn-result ";

/// What a job that succeeded has to say.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// For people.
    pub(crate) summary: String,
    /// The job's own fields.
    pub(crate) fields: Fields,
}

impl Outcome {
    pub(crate) fn new(summary: String) -> Self {
        let fields = Fields::default();
        Self { summary, fields }
    }

    /// Adds a field of the job's own.
    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.fields.add(key, value);
        self
    }
}

/// Names and values that keep their order.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn add(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push((key, value.into()));
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// What every result has.
pub(crate) struct Common<'a> {
    pub(crate) job: &'a str,
    pub(crate) disk: Option<DiskId>,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

/// Prints both lines.
pub(crate) fn print<M: Machine>(
    machine: &M,
    common: &Common<'_>,
    outcome: Result<Outcome, JobError>,
) {
    let job = common.job;
    let mut fields = Fields::default();
    fields.add("job", job);
    fields.add("ok", outcome.is_ok());
    if let Some(disk) = common.disk {
        fields.add("disk", disk.to_string());
    }
    fields.add("bytes", common.bytes);
    fields.add("seconds", units::seconds(common.took));
    let up = Duration::from_nanos(machine.now().as_nanos());
    fields.add("up", units::seconds(up));
    match outcome {
        Ok(outcome) => {
            let took = Span(common.took);
            machine.print(format_args!("{job}: ok: {}, in {took}\n", outcome.summary));
            fields.0.extend(outcome.fields.0);
        }
        Err(error) => {
            let failure = error.failure();
            machine.print(format_args!(
                "{job}: FAILED: {} (at {}); {}\n",
                failure.what, failure.place, failure.hint
            ));
            fields.add("error", failure.error);
            fields.add("what", failure.what);
            fields.add("where", failure.place);
            fields.add("hint", failure.hint);
            if let JobError::Mismatch { mismatch, .. } = error {
                fields.add("sector", mismatch.sector);
                fields.add("difference", mismatch.what.name());
            }
        }
    }
    // Text, numbers and lists of them always have a form in JSON.
    let json = serde_json::to_string(&fields).unwrap_or_default();
    machine.print(format_args!("{RESULT_PREFIX}{json}\n"));
}
