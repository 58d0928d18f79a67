//! The PV console against a host that is played by hand.

use firn_block::shm::Region;
use firn_peers::{CallKind, Channel, FakeMachine};
use firn_xen::console::{Console, ConsoleError, ConsoleOffence};
use firn_xen::wire::console::{IN_SIZE, Interface, OUT_SIZE};
use firn_xen::wire::hvm::{PARAM_CONSOLE_EVTCHN, PARAM_CONSOLE_PFN};
use firn_xen::{StartPageError, Xen};
use proptest::prelude::*;
use std::mem::offset_of;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

const IN_CONS: usize = offset_of!(Interface, in_cons);
const IN_PROD: usize = offset_of!(Interface, in_prod);
const OUT_CONS: usize = offset_of!(Interface, out_cons);
const OUT_PROD: usize = offset_of!(Interface, out_prod);

/// The host's end, and the guest's.
struct Host {
    machine: FakeMachine,
    page: Region,
    channel: Channel,
    xen: Rc<Xen<FakeMachine>>,
    console: Console<FakeMachine>,
}

impl Host {
    fn new() -> Self {
        Self::starting_at(0).expect("a console")
    }

    /// With all indices at `start`, as an earlier user leaves them.
    fn starting_at(start: u32) -> Result<Self, ConsoleError> {
        Self::with(|page| {
            for at in [IN_CONS, IN_PROD, OUT_CONS, OUT_PROD] {
                page.atomic_u32(at).store(start, SeqCst);
            }
        })
    }

    fn with(prepare: impl FnOnce(&Region)) -> Result<Self, ConsoleError> {
        let machine = FakeMachine::new();
        let (page, channel) = machine.take_console();
        prepare(&page);
        let xen = Xen::new(machine.clone()).expect("pages");
        let console = Console::attach(&xen)?;
        Ok(Self {
            machine,
            page,
            channel,
            xen,
            console,
        })
    }

    fn word(&self, at: usize) -> u32 {
        self.page.atomic_u32(at).load(SeqCst)
    }

    fn set(&self, at: usize, value: u32) {
        self.page.atomic_u32(at).store(value, SeqCst);
    }

    /// Reads up to `limit` bytes of the guest's output.
    fn read(&self, limit: usize) -> Vec<u8> {
        let cons = self.word(OUT_CONS);
        let len = self.word(OUT_PROD).wrapping_sub(cons) as usize;
        assert!(len <= OUT_SIZE, "the guest overran the ring");
        let len = len.min(limit) as u32;
        let byte = |i| IN_SIZE + cons.wrapping_add(i) as usize % OUT_SIZE;
        let bytes = (0..len).map(|i| self.page.atomic_u8(byte(i)).load(SeqCst));
        let bytes = bytes.collect();
        self.set(OUT_CONS, cons.wrapping_add(len));
        self.channel.notify();
        bytes
    }

    fn read_text(&self) -> String {
        String::from_utf8(self.read(usize::MAX)).expect("text")
    }

    /// Types as much of `bytes` as fits.
    fn type_in(&self, bytes: &[u8]) -> usize {
        let prod = self.word(IN_PROD);
        let used = prod.wrapping_sub(self.word(IN_CONS)) as usize;
        let len = bytes.len().min(IN_SIZE - used);
        for (i, byte) in (0u32..).zip(&bytes[..len]) {
            let at = prod.wrapping_add(i) as usize % IN_SIZE;
            self.page.atomic_u8(at).store(*byte, SeqCst);
        }
        self.set(IN_PROD, prod.wrapping_add(len as u32));
        self.channel.notify();
        len
    }

    fn read_guest(&self, limit: usize) -> Vec<u8> {
        let mut buffer = vec![0; limit];
        let len = self.console.read(&mut buffer);
        buffer.truncate(len);
        buffer
    }
}

#[test]
fn bytes_pass_as_they_are_and_each_side_is_told() {
    let host = Host::new();
    host.channel.take_pending();
    assert_eq!(host.console.write(b"hello\n\xff"), 7);
    assert!(host.channel.take_pending());
    assert_eq!(host.read(100), b"hello\n\xff");
    host.type_in(b"ls\r");
    assert!(host.machine.take_upcall(), "the port is unmasked");
    host.xen.poll();
    assert!(host.xen.events.take(host.console.port()));
    assert_eq!(host.read_guest(2), b"ls");
    assert_eq!(host.read_guest(100), b"\r");
    assert_eq!(host.read_guest(100), b"");
}

#[test]
fn what_does_not_fit_follows_when_the_host_reads() {
    let host = Host::new();
    let text: Vec<u8> = (0..10_000_u32).map(|i| b'a' + (i % 26) as u8).collect();
    assert_eq!(host.console.write(&text), text.len());
    let mut all = Vec::new();
    for _ in 0..10 {
        all.extend(host.read(1500));
        host.console.flush();
    }
    assert!(host.console.flush(), "all is out");
    assert_eq!(all, text);
}

#[test]
fn a_host_that_does_not_read_costs_the_oldest_bytes() {
    let host = Host::new();
    for i in 0..2000 {
        let line = format!("line {i:04} of many\r\n");
        assert_eq!(host.console.write(line.as_bytes()), line.len());
    }
    let mut text = host.read_text();
    assert!(
        text.starts_with("line 0000 of many\r\n"),
        "already in the ring"
    );
    assert!(!host.console.flush(), "more than a ring waits");
    text += &host.read_text();
    while !host.console.flush() {
        text += &host.read_text();
    }
    text += &host.read_text();
    let (before, rest) = text.split_once("\r\n[").expect("a note");
    let (lost, after) = rest.split_once(" bytes lost]\r\n").expect("a note");
    let lost: usize = lost.parse().expect("a number");
    assert_eq!(before.len() + after.len() + lost, 2000 * 19);
    assert!(after.ends_with("line 1999 of many\r\n"));
    assert_eq!(text.matches("bytes lost").count(), 1);
}

#[test]
fn one_write_larger_than_the_buffer_keeps_its_end() {
    let host = Host::new();
    let text = [vec![b'x'; 100_000], b"the end".to_vec()].concat();
    host.console.write(&text);
    let mut said = Vec::new();
    while !host.console.flush() {
        said.extend(host.read(usize::MAX));
    }
    said.extend(host.read(usize::MAX));
    assert!(said.ends_with(b"the end"));
    assert!(said.len() < 20_000);
}

#[test]
fn the_host_is_told_when_it_may_wait_for_room() {
    let host = Host::new();
    host.channel.take_pending();
    assert_eq!(host.type_in(&[b'x'; 2000]), IN_SIZE);
    assert_eq!(host.read_guest(100).len(), 100);
    assert!(host.channel.take_pending(), "the ring was full");
    assert_eq!(host.read_guest(100).len(), 100);
    assert!(!host.channel.take_pending(), "it was not");
}

#[test]
fn an_idle_console_costs_no_hypercall() {
    let host = Host::new();
    let before = host.machine.all_calls();
    for _ in 0..10 {
        assert!(host.console.flush());
        assert_eq!(host.read_guest(10), b"");
    }
    assert_eq!(host.machine.all_calls(), before);
}

#[track_caller]
fn assert_disabled(host: &Host, offence: ConsoleOffence) {
    assert_eq!(host.console.is_failed(), Some(offence));
    assert!(host.xen.events.is_masked(host.console.port()));
    let before = (host.word(OUT_PROD), host.machine.calls(CallKind::SendEvent));
    assert_eq!(host.console.write(b"more"), 0);
    assert_eq!(host.read_guest(10), b"");
    assert!(host.console.flush(), "nobody waits for a disabled console");
    let after = (host.word(OUT_PROD), host.machine.calls(CallKind::SendEvent));
    assert_eq!(after, before);
}

#[test]
fn output_index_runs_away_or_goes_back() {
    for cons in [6, 2, u32::MAX, 1 << 31] {
        let host = Host::new();
        host.console.write(b"123");
        assert_eq!(host.read(3), b"123");
        // Now the guest sees that index 3 was reached.
        host.console.write(b"45");
        host.set(OUT_CONS, cons);
        host.console.write(b"x");
        assert_disabled(&host, ConsoleOffence::OutputIndex { cons, prod: 5 });
    }
}

#[test]
fn input_index_runs_away_or_goes_back() {
    for prod in [2, 3 + 1025, u32::MAX] {
        let host = Host::new();
        host.type_in(b"123");
        assert_eq!(host.read_guest(10), b"123");
        host.set(IN_PROD, prod);
        assert_eq!(host.read_guest(10), b"");
        assert_disabled(&host, ConsoleOffence::InputIndex { prod, cons: 3 });
    }
}

#[test]
fn indices_that_are_impossible_from_the_start_are_refused() {
    let console = Host::with(|page| page.atomic_u32(OUT_PROD).store(2049, SeqCst));
    let expected = ConsoleOffence::OutputIndex {
        cons: 0,
        prod: 2049,
    };
    assert_eq!(console.err(), Some(ConsoleError::Offence(expected)));
}

#[test]
fn what_was_typed_early_is_read() {
    let host = Host::with(|page| {
        page.atomic_u8(0).store(b'x', SeqCst);
        page.atomic_u32(IN_PROD).store(1, SeqCst);
    });
    assert_eq!(host.expect("a console").read_guest(10), b"x");
}

#[test]
fn a_missing_console_is_named() {
    for (index, name) in [
        (PARAM_CONSOLE_PFN, "CONSOLE_PFN"),
        (PARAM_CONSOLE_EVTCHN, "CONSOLE_EVTCHN"),
    ] {
        let machine = FakeMachine::new();
        machine.set_param_by_toolstack(index, 0);
        let xen = Xen::new(machine).expect("pages");
        let error = Console::attach(&xen).err();
        let expected = ConsoleError::Page(StartPageError::Absent(name));
        assert_eq!(error, Some(expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_arrive_in_order_under_any_chunking(
        start in prop_oneof![Just(0), (u32::MAX - 5000)..=u32::MAX],
        steps in prop::collection::vec((0_usize..1500, 0_usize..3000, 0_usize..900, 0_usize..900), 1..60),
    ) {
        let host = Host::starting_at(start).expect("a console");
        let mut counter = 0_u8;
        let mut bytes = |len: usize| -> Vec<u8> {
            (0..len).map(|_| { counter = counter.wrapping_mul(5).wrapping_add(3); counter }).collect()
        };
        let (mut written, mut heard) = (Vec::new(), Vec::new());
        let (mut typed, mut read) = (Vec::new(), Vec::new());
        for (write, host_read, type_in, guest_read) in steps {
            // Less than the buffer waits, so nothing gives way.
            if written.len() - heard.len() < 14_000 {
                let text = bytes(write);
                prop_assert_eq!(host.console.write(&text), text.len());
                written.extend(text);
            }
            heard.extend(host.read(host_read));
            host.console.flush();
            let text = bytes(type_in);
            typed.extend(&text[..host.type_in(&text)]);
            read.extend(host.read_guest(guest_read));
        }
        while heard.len() < written.len() {
            host.console.flush();
            heard.extend(host.read(usize::MAX));
        }
        read.extend(host.read_guest(2 * IN_SIZE));
        prop_assert_eq!(heard, written);
        prop_assert_eq!(read, typed);
    }
}
