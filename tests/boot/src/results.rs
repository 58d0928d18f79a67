//! What the guest's console tells a program: `firn-result {json}` lines.

use anyhow::{Context, Result};
use serde_json::Value;

/// Begins every machine-readable line.
const MARK: &str = "firn-result ";

/// One job's result.
#[derive(Debug, Clone, PartialEq)]
pub struct JobResult {
    /// The job's name.
    pub job: String,
    /// Whether it succeeded.
    pub ok: bool,
    /// The whole object, for fields of one kind of job.
    pub fields: Value,
}

impl JobResult {
    /// Reads a console line; `None` if it is no result at all, an error if it
    /// is a broken one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Result<Self>> {
        let (_, json) = line.split_once(MARK)?;
        Some(Self::from_json(json).with_context(|| format!("in the line {line:?}")))
    }

    fn from_json(json: &str) -> Result<Self> {
        let fields: Value = serde_json::from_str(json)?;
        let job = fields.get("job").and_then(Value::as_str);
        let ok = fields.get("ok").and_then(Value::as_bool);
        Ok(Self {
            job: job.context("no \"job\"")?.to_owned(),
            ok: ok.context("no \"ok\"")?,
            fields,
        })
    }

    /// A text field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// The same, if it succeeded.
    ///
    /// # Errors
    /// It did not; the message describes it.
    pub fn into_ok(self) -> Result<Self> {
        anyhow::ensure!(self.ok, "{}", self.describe());
        Ok(self)
    }

    /// The job, and what went wrong if something did, in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let part = |name: &str| {
            let text = self.text(name)?;
            Some(format!("; {name}: {text}"))
        };
        let parts: String = ["error", "what", "where", "hint"]
            .into_iter()
            .filter_map(part)
            .collect();
        format!("{}{parts}", self.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_in_a_line() {
        let line = r#"firn-result {"job":"verify","ok":true,"disk":"xvda","bytes":67108864}"#;
        let result = JobResult::parse(line).unwrap().unwrap();
        assert_eq!((result.job.as_str(), result.ok), ("verify", true));
        assert_eq!(result.text("disk"), Some("xvda"));
        assert_eq!(result.text("bytes"), None);
    }

    #[test]
    fn other_lines_are_none_and_broken_ones_are_errors() {
        assert!(JobResult::parse("firn 0.1.0").is_none());
        for broken in ["", "{", "{}", r#"{"job":"x"}"#, r#"{"job":1,"ok":true}"#] {
            assert!(
                JobResult::parse(&format!("firn-result {broken}"))
                    .unwrap()
                    .is_err()
            );
        }
    }
}
