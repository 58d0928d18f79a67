//! Builds our own programs for this machine; they run in the lab with the lab's
//! own C library.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

/// What answers us from inside the lab.
pub(crate) const AGENT: &str = "firn-lab-agent";
/// The Hyper-V host on KVM.
pub(crate) const MONITOR: &str = "firn-hyperv-host";

/// The ELF file of a program that is called like its package, built if need be.
pub(crate) fn build(name: &str) -> Result<Vec<u8>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = cmd!(
        &cargo,
        "build",
        "--quiet",
        format!("--package={name}"),
        format!("--bin={name}"),
        "--message-format=json"
    )
    .dir(&workspace)
    // Flags meant for other builds (coverage, the kernel) are not for this one.
    .env_remove("RUSTFLAGS")
    .env_remove("CARGO_ENCODED_RUSTFLAGS")
    .stdout_capture()
    .stderr_capture()
    .unchecked()
    .run()
    .with_context(|| format!("cannot start {cargo}"))?;
    if !output.status.success() {
        bail!(
            "building {name}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let path = executable(&said).with_context(|| format!("cargo did not tell where {name} is"))?;
    fs::read(&path).with_context(|| path.display().to_string())
}

fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(message.get("executable")?.as_str()?.into())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_executable_is_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/agent\"}\n{\"reason\":\"x\"}";
        assert_eq!(
            super::executable(messages).unwrap(),
            std::path::Path::new("/t/agent")
        );
    }
}
