//! The wire between a lab and the machine that drives it.
//!
//! Both ends exchange *frames* over one byte stream (a virtio-serial port):
//! a line of JSON that ends in `\n`, followed by exactly `len` bytes of
//! payload. Every frame carries the id of the request it belongs to, so any
//! number of commands, file transfers and console streams share the stream.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Name of the virtio-serial port that carries the frames.
pub const PORT_NAME: &str = "firn.agent";

/// Longest JSON line that a reader accepts, in bytes.
pub const MAX_HEADER: u64 = 64 << 10;

/// Longest payload that a reader accepts, in bytes.
pub const MAX_PAYLOAD: usize = 256 << 20;

/// What the driving machine asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Run a program. Answered by [`Event::Out`], [`Event::Err`] and one
    /// final [`Event::Exit`]. The payload is ignored.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
        /// After this many milliseconds the program's group is killed.
        deadline_ms: u64,
    },
    /// Write the payload to the standard input of a running `Exec`; an empty
    /// payload closes it.
    Input {
        /// The id of the `Exec` request.
        target: u64,
    },
    /// Kill a running `Exec`, or end a `Tail`.
    Kill {
        /// The id of the request to end.
        target: u64,
    },
    /// Create a file with the payload as its content.
    Put {
        /// Absolute path; missing folders are made.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Send a file's content: [`Event::Out`] frames, then [`Event::Done`].
    Get {
        /// Absolute path.
        path: String,
    },
    /// Follow a growing file from its first byte, also before it exists:
    /// [`Event::Out`] frames until it is killed.
    Tail {
        /// Absolute path.
        path: String,
    },
    /// Open an existing file or terminal, write the payload to it, close it.
    Send {
        /// Absolute path.
        path: String,
    },
}

/// What the lab answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "kebab-case")]
pub enum Event {
    /// The agent is up (id 0, once).
    Hello,
    /// The payload is standard output, or file content.
    Out,
    /// The payload is standard error.
    Err,
    /// The program ended.
    Exit {
        /// Its exit code, if it ended by itself.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The deadline passed and the agent killed it.
        timed_out: bool,
    },
    /// The request is done.
    Done,
    /// The request failed.
    Failed {
        /// What failed and why.
        what: String,
    },
}

/// One frame: request id, body, payload length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header<T> {
    id: u64,
    len: usize,
    body: T,
}

/// Writes one frame and flushes it.
///
/// # Errors
/// Whatever the stream reports; the stream is then of no more use.
pub fn write_frame<T: Serialize>(
    out: &mut impl Write,
    id: u64,
    body: &T,
    payload: &[u8],
) -> io::Result<()> {
    let header = Header {
        id,
        len: payload.len(),
        body,
    };
    let mut frame = serde_json::to_vec(&header)?;
    frame.push(b'\n');
    frame.extend_from_slice(payload);
    out.write_all(&frame)?;
    out.flush()
}

/// Reads one frame: id, body, payload. `None` at the end of the stream.
///
/// # Errors
/// The stream's own, `UnexpectedEof` within a frame, `InvalidData` for a line
/// that is no header or a length above [`MAX_PAYLOAD`].
pub fn read_frame<T: DeserializeOwned>(
    input: &mut impl BufRead,
) -> io::Result<Option<(u64, T, Vec<u8>)>> {
    let mut line = Vec::new();
    let mut limited = io::Read::take(&mut *input, MAX_HEADER);
    if limited.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(bad(format!("a header of {} bytes without end", line.len())));
    }
    let header: Header<T> = serde_json::from_slice(&line)
        .map_err(|e| bad(format!("{e} in {:?}", String::from_utf8_lossy(&line))))?;
    if header.len > MAX_PAYLOAD {
        return Err(bad(format!("a payload of {} bytes", header.len)));
    }
    let mut payload = vec![0; header.len];
    input.read_exact(&mut payload)?;
    Ok(Some((header.id, header.body, payload)))
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let mut wire = Vec::new();
        let exec = Request::Exec {
            argv: vec!["sh".into(), "-c".into(), "echo \"a\nb\"".into()],
            deadline_ms: 5,
        };
        write_frame(&mut wire, 7, &exec, b"").unwrap();
        let put = Request::Put {
            path: "/x".into(),
            mode: 0o755,
        };
        write_frame(&mut wire, 8, &put, b"\n\0{\n").unwrap();
        let mut input = &wire[..];
        let first = read_frame::<Request>(&mut input).unwrap().unwrap();
        assert_eq!(first, (7, exec, vec![]));
        let second = read_frame::<Request>(&mut input).unwrap().unwrap();
        assert_eq!(second, (8, put, b"\n\0{\n".to_vec()));
        assert!(read_frame::<Request>(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let mut wire = Vec::new();
        write_frame(&mut wire, 1, &Event::Out, b"abc").unwrap();
        for cut in 1..wire.len() {
            assert!(read_frame::<Event>(&mut &wire[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        let line = format!(
            "{{\"id\":1,\"len\":{},\"body\":{{\"ev\":\"out\"}}}}\n",
            MAX_PAYLOAD + 1
        );
        let error = read_frame::<Event>(&mut line.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
