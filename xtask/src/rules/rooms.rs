//! Which room may depend on which (ARCHITECTURE.md, "The rooms").

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use duct::cmd;
use serde_json::Value;

use crate::workspace;

/// Every crate of ours, and which others its code may use. Tests may use more:
/// a driver's tests need the other end of its ring.
const ROOMS: &[(&str, &[&str])] = &[
    ("firn-task", &[]),
    ("firn-block", &["firn-task"]),
    ("firn-image", &["firn-block", "firn-task"]),
    ("firn-scsi", &["firn-block"]),
    ("firn-xen", &["firn-block", "firn-task"]),
    ("firn-hyperv", &["firn-block", "firn-scsi", "firn-task"]),
    ("firn-jobs", &["firn-block", "firn-task"]),
    ("firn-power", &["firn-block", "firn-image", "firn-task"]),
    (
        "firn-kernel",
        &[
            "firn-block",
            "firn-hyperv",
            "firn-image",
            "firn-jobs",
            "firn-power",
            "firn-task",
            "firn-xen",
        ],
    ),
    ("firn-boot", &["firn-kernel"]),
    (
        "firn-peers",
        &["firn-block", "firn-hyperv", "firn-task", "firn-xen"],
    ),
    (
        "firn-sim",
        &[
            "firn-block",
            "firn-hyperv",
            "firn-image",
            "firn-jobs",
            "firn-kernel",
            "firn-peers",
            "firn-power",
            "firn-task",
            "firn-xen",
        ],
    ),
    ("firn-abi-tests", &["firn-lab", "firn-xen"]),
    (
        "firn-fuzz",
        &[
            "firn-block",
            "firn-hyperv",
            "firn-peers",
            "firn-scsi",
            "firn-task",
            "firn-xen",
        ],
    ),
    ("firn-lab-agent", &[]),
    (
        "firn-hyperv-host",
        &["firn-block", "firn-hyperv", "firn-peers"],
    ),
    ("firn-lab", &["firn-lab-agent"]),
    ("firn-boot-tests", &["firn-image", "firn-jobs", "firn-lab"]),
    (
        "xtask",
        &[
            "firn-block",
            "firn-boot-tests",
            "firn-image",
            "firn-jobs",
            "firn-kernel",
            "firn-lab",
            "firn-media",
            "firn-peers",
            "firn-task",
        ],
    ),
    ("firn-media", &["firn-lab"]),
];

/// Our crates and what each one uses of ours.
type Uses = BTreeMap<String, Vec<String>>;

/// Asks cargo and compares with the table.
pub(crate) fn check() -> Result<String> {
    let metadata = cmd!(
        workspace::cargo(),
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked"
    )
    .dir(workspace::root())
    .read()
    .context("cargo metadata; is Cargo.lock up to date?")?;
    let uses = read(&metadata)?;
    let wrong = offences(&uses);
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(format!("{} crates", uses.len()))
}

fn read(metadata: &str) -> Result<Uses> {
    let metadata: Value = serde_json::from_str(metadata)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let of_package = |package: &Value| {
        let ours = |dependency: &&Value| {
            // A path means: of this workspace. The kind of ordinary ones is null.
            dependency["path"].is_string() && dependency["kind"] != "dev"
        };
        let all = list(&package["dependencies"]);
        let used = all.iter().filter(ours).map(|d| text(&d["name"]));
        (text(&package["name"]), used.collect())
    };
    Ok(packages.iter().map(of_package).collect())
}

fn offences(uses: &Uses) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, used) in uses {
        let Some((_, may)) = ROOMS.iter().find(|(room, _)| room == name) else {
            wrong.push(format!(
                "{name} is not in the table of rooms (xtask/src/rules/rooms.rs)"
            ));
            continue;
        };
        for other in used.iter().filter(|u| !may.contains(&u.as_str())) {
            wrong.push(format!("{name} must not depend on {other}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &str) -> String {
        format!(r#"{{"packages":[{{"name":"{name}","dependencies":[{dependencies}]}}]}}"#)
    }

    #[test]
    fn the_wrong_direction_is_found() {
        let metadata = package(
            "firn-block",
            r#"{"name":"firn-xen","path":"x","kind":null}"#,
        );
        let wrong = offences(&read(&metadata).unwrap());
        assert_eq!(wrong, ["firn-block must not depend on firn-xen"]);
    }

    #[test]
    fn tests_and_other_peoples_crates_are_free() {
        let metadata = package(
            "firn-xen",
            r#"{"name":"firn-peers","path":"x","kind":"dev"},{"name":"log","path":null,"kind":null}"#,
        );
        assert!(offences(&read(&metadata).unwrap()).is_empty());
    }

    #[test]
    fn a_new_crate_must_be_given_a_room() {
        let wrong = offences(&read(&package("firn-new", "")).unwrap());
        assert!(wrong[0].contains("firn-new is not in the table"));
    }
}
