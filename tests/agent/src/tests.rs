//! The agent at the end of a socket, on this machine.

use super::*;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The driving end.
struct Driver {
    out: UnixStream,
    input: BufReader<UnixStream>,
    agent: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Driver {
    fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = File::from(OwnedFd::from(theirs));
        let agent = thread::spawn(move || serve(port, Duration::ZERO));
        let input = BufReader::new(ours.try_clone().unwrap());
        let mut driver = Self {
            out: ours,
            input,
            agent: Some(agent),
        };
        assert_eq!(driver.next(), (0, Event::Hello, vec![]));
        driver
    }

    fn ask(&mut self, id: u64, request: &Request, payload: &[u8]) {
        write_frame(&mut self.out, id, request, payload).unwrap();
    }

    fn next(&mut self) -> (u64, Event, Vec<u8>) {
        read_frame(&mut self.input).unwrap().unwrap()
    }

    /// Waits for the end of request `id`; gives its output.
    fn finish(&mut self, id: u64) -> (Event, Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                (of, Event::Out, bytes) if of == id => out.extend(bytes),
                (of, Event::Err, bytes) if of == id => err.extend(bytes),
                (of, event, _) if of == id => return (event, out, err),
                _ => {}
            }
        }
    }

    fn hang_up(mut self) {
        self.out.shutdown(std::net::Shutdown::Both).unwrap();
        self.agent.take().unwrap().join().unwrap().unwrap();
    }
}

fn sh(script: &str, deadline_ms: u64) -> Request {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    Request::Exec { argv, deadline_ms }
}

fn exit(code: i32) -> Event {
    Event::Exit {
        code: Some(code),
        signal: None,
        timed_out: false,
    }
}

#[test]
fn a_command_gives_output_and_code() {
    let mut driver = Driver::new();
    driver.ask(1, &sh("echo out; echo err >&2; exit 3", 10_000), b"");
    assert_eq!(
        driver.finish(1),
        (exit(3), b"out\n".to_vec(), b"err\n".to_vec())
    );
    driver.hang_up();
}

#[test]
fn a_command_gets_input_until_it_is_closed() {
    let mut driver = Driver::new();
    driver.ask(1, &sh("cat", 10_000), b"");
    driver.ask(2, &Request::Input { target: 1 }, b"some words");
    driver.ask(3, &Request::Input { target: 1 }, b"");
    assert_eq!(driver.finish(1), (exit(0), b"some words".to_vec(), vec![]));
    driver.hang_up();
}

#[test]
fn a_deadline_and_a_kill_end_the_whole_group() {
    let mut driver = Driver::new();
    driver.ask(1, &sh("sleep 1000 & sleep 1000", 50), b"");
    let killed = |timed_out| Event::Exit {
        code: None,
        signal: Some(9),
        timed_out,
    };
    assert_eq!(driver.finish(1).0, killed(true));
    driver.ask(2, &sh("echo up; sleep 1000 & sleep 1000", 1_000_000), b"");
    assert_eq!(driver.next(), (2, Event::Out, b"up\n".to_vec()));
    driver.ask(3, &Request::Kill { target: 2 }, b"");
    assert_eq!(driver.finish(2).0, killed(false));
    driver.hang_up();
}

#[test]
fn files_go_both_ways_and_are_followed() {
    let folder = std::env::temp_dir().join(format!("firn-agent-{}", std::process::id()));
    let path = folder.join("new/file").to_string_lossy().into_owned();
    let mut driver = Driver::new();
    driver.ask(1, &Request::Tail { path: path.clone() }, b"");
    let put = Request::Put {
        path: path.clone(),
        mode: 0o600,
    };
    driver.ask(2, &put, b"first\0");
    let mut followed = Vec::new();
    while followed.len() < 11 {
        match driver.next() {
            (1, Event::Out, bytes) => followed.extend(bytes),
            (2, Event::Done, _) => driver.ask(3, &sh(&format!("echo more >>{path}"), 9_000), b""),
            (3, _, _) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(followed, b"first\0more\n");
    driver.hang_up();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_fails_says_why() {
    let mut driver = Driver::new();
    for (id, request, word) in [
        (
            1,
            Request::Get {
                path: "/none/such".into(),
            },
            "/none/such",
        ),
        (2, Request::Kill { target: 77 }, "77 is not running"),
        (
            3,
            Request::Send {
                path: "/none/such".into(),
            },
            "/none/such",
        ),
    ] {
        driver.ask(id, &request, b"");
        let (event, ..) = driver.finish(id);
        assert!(
            matches!(&event, Event::Failed { what } if what.contains(word)),
            "{event:?}"
        );
    }
    driver.hang_up();
}

#[test]
fn hanging_up_ends_what_runs() {
    let mut driver = Driver::new();
    driver.ask(1, &sh("echo $$; sleep 1000", 1_000_000), b"");
    let (_, _, pid) = driver.next();
    let pid = String::from_utf8(pid).unwrap();
    driver.hang_up();
    let gone = |pid: &str| !std::path::Path::new("/proc").join(pid.trim()).exists();
    assert!(gone(&pid), "process {pid} is still there");
}
