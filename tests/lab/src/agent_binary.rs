//! Builds the agent for this machine; it runs in the lab with the lab's own C
//! library.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

/// The agent's ELF file, built if need be.
pub(crate) fn build() -> Result<Vec<u8>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = cmd!(
        &cargo,
        "build",
        "--quiet",
        "--package=firn-lab-agent",
        "--bin=firn-lab-agent",
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
            "building the agent:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let path = executable(&said).context("cargo did not tell where the agent is")?;
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
