//! A person's terminal, passed through to a console in the lab.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use anyhow::{Result, bail};
use duct::cmd;

/// Ctrl-] ends a session, as it does in `telnet` and `xl console`.
const LEAVE: u8 = 0x1d;

/// The terminal in raw mode; dropping it restores how it was.
struct Raw {
    saved: String,
}

impl Raw {
    fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            bail!("standard input is no terminal");
        }
        let saved = cmd!("stty", "--save").read()?.trim().to_owned();
        cmd!("stty", "raw", "-echo").run()?;
        Ok(Self { saved })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Best effort; a person can type `reset`.
        let _failed = cmd!("stty", &self.saved).run();
        println!();
    }
}

/// Gives every key to `send` until Ctrl-] or until `send` fails.
pub(crate) fn pass_keys(mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let _raw = Raw::enter()?;
    let mut buffer = [0; 256];
    loop {
        let count = stdin().read(&mut buffer)?;
        let keys = &buffer[..count];
        if keys.is_empty() || keys.contains(&LEAVE) {
            return Ok(());
        }
        send(keys)?;
    }
}

/// Shows bytes as they are.
pub(crate) fn show(bytes: &[u8]) {
    let mut out = stdout().lock();
    // A closed terminal is noticed by whoever reads its keys.
    let _gone = out.write_all(bytes).and_then(|()| out.flush());
}
