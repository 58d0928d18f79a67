//! Moving bytes between the stream and files of the lab.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use firn_lab_agent::Event;

use crate::{Agent, Control};

/// How often a followed file is looked at: short enough for a person at the
/// console, long enough to cost nothing.
const LOOK: Duration = Duration::from_millis(15);

fn at(path: &str, error: &std::io::Error) -> String {
    format!("{path}: {error}")
}

/// Creates the file `path` with `mode` and `content`.
pub(crate) fn put(path: &str, mode: u32, content: &[u8]) -> Result<(), String> {
    if let Some(folder) = Path::new(path).parent() {
        fs::create_dir_all(folder).map_err(|e| at(path, &e))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(|e| at(path, &e))?;
    file.write_all(content).map_err(|e| at(path, &e))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(|e| at(path, &e))
}

/// Sends the content of `path`.
pub(crate) fn get(agent: &Agent, id: u64, path: &str) -> Result<(), String> {
    let mut file = File::open(path).map_err(|e| at(path, &e))?;
    copy_out(agent, id, &mut file).map_err(|e| at(path, &e))
}

/// Writes `bytes` to the existing file or terminal `path`.
pub(crate) fn send(path: &str, bytes: &[u8]) -> Result<(), String> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|e| at(path, &e))
}

/// Follows `path` until the request is killed.
pub(crate) fn tail(
    agent: &Agent,
    id: u64,
    path: &str,
    control: &mpsc::Receiver<Control>,
) -> Result<(), String> {
    let mut file = None;
    loop {
        if file.is_none() {
            file = match File::open(path) {
                Ok(file) => Some(file),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(at(path, &e)),
            };
        }
        if let Some(file) = &mut file {
            copy_out(agent, id, file).map_err(|e| at(path, &e))?;
        }
        match control.recv_timeout(LOOK) {
            Err(mpsc::RecvTimeoutError::Timeout) | Ok(Control::Input(_)) => {}
            Ok(Control::Kill) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Sends what is left of `file` from its current position.
fn copy_out(agent: &Agent, id: u64, file: &mut File) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => agent.send(id, &Event::Out, &buffer[..n]),
        }
    }
}
