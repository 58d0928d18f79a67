use super::*;
use firn_block::shm::Region;
use firn_xen::Hal;
use firn_xen::hal::HalExt;
use firn_xen::wire::Gfn;
use firn_xen::wire::event_channel::Port;
use firn_xen::wire::hvm::{PARAM_STORE_EVTCHN, PARAM_STORE_PFN};
use firn_xen::wire::xs::{Header, MessageType, RECONNECT};
use std::sync::atomic::Ordering::SeqCst;

/// A client so plain that it cannot share the real one's mistakes.
struct Client {
    machine: FakeMachine,
    store: XenStored,
    page: Region,
    port: Port,
    received: Vec<u8>,
}

impl Client {
    fn new() -> Self {
        let machine = FakeMachine::new();
        let store = XenStored::new(&machine);
        let pfn = machine.hvm_param(PARAM_STORE_PFN).expect("the page");
        let port = machine.hvm_param(PARAM_STORE_EVTCHN).expect("the port");
        let page = machine.map_frames(Gfn(pfn), 1).expect("a page");
        Self {
            store,
            page,
            port: Port(u32::try_from(port).expect("a port")),
            machine,
            received: Vec::new(),
        }
    }

    fn index(&self, at: usize) -> u32 {
        self.page.atomic_u32(at).load(SeqCst)
    }

    fn send(&self, ty: MessageType, tx: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        for word in [ty.0, 77, tx, payload.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(payload);
        let prod = self.index(2052);
        for (i, byte) in bytes.iter().enumerate() {
            let at = (prod as usize + i) % 1024;
            self.page.atomic_u8(at).store(*byte, SeqCst);
        }
        let prod = prod.wrapping_add(bytes.len() as u32);
        self.page.atomic_u32(2052).store(prod, SeqCst);
        self.machine.send_event(self.port).expect("an event");
    }

    fn drain(&mut self) {
        while self.store.step() {
            let (mut cons, prod) = (self.index(2056), self.index(2060));
            while cons != prod {
                let at = 1024 + cons as usize % 1024;
                self.received.push(self.page.atomic_u8(at).load(SeqCst));
                cons = cons.wrapping_add(1);
            }
            self.page.atomic_u32(2056).store(cons, SeqCst);
            self.machine.send_event(self.port).expect("an event");
        }
    }

    /// Messages received so far, as type and text with `|` for NUL.
    fn take(&mut self) -> Vec<(MessageType, String)> {
        self.drain();
        let mut messages = Vec::new();
        let bytes = std::mem::take(&mut self.received);
        let mut rest = &bytes[..];
        while rest.len() >= size_of::<Header>() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4"));
            let end = 16 + word(12) as usize;
            let text = String::from_utf8_lossy(&rest[16..end]).replace('\0', "|");
            messages.push((MessageType(word(0)), text));
            rest = &rest[end..];
        }
        assert!(rest.is_empty(), "half a message");
        messages
    }

    fn ask(&mut self, ty: MessageType, tx: u32, payload: &str) -> String {
        self.send(ty, tx, payload.replace('|', "\0").as_bytes());
        let messages = self.take();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages[0].1.clone()
    }
}

#[test]
fn values_directories_and_errors() {
    let mut client = Client::new();
    assert_eq!(client.ask(MessageType::READ, 0, "domid|"), "1");
    assert_eq!(
        client.ask(MessageType::READ, 0, "/local/domain/1/name|"),
        "guest"
    );
    assert_eq!(client.ask(MessageType::READ, 0, "absent|"), "ENOENT|");
    assert_eq!(client.ask(MessageType::READ, 0, "absent"), "EINVAL|");
    assert_eq!(client.ask(MessageType::WRITE, 0, "name|mine"), "EACCES|");
    assert_eq!(client.ask(MessageType::WRITE, 0, "data/a/b|x"), "OK|");
    assert_eq!(client.ask(MessageType::MKDIR, 0, "data/c|"), "OK|");
    assert_eq!(client.ask(MessageType::DIRECTORY, 0, "data|"), "a|c|");
    assert_eq!(client.ask(MessageType::GET_PERMS, 0, "data/a|"), "n1|r0|");
    assert_eq!(
        client.ask(MessageType::SET_PERMS, 0, "data/a|n1|w0|"),
        "OK|"
    );
    assert_eq!(client.ask(MessageType::RM, 0, "data/a|"), "OK|");
    assert_eq!(client.ask(MessageType::RM, 0, "data/a|"), "OK|");
    assert_eq!(client.ask(MessageType::RM, 0, "data/a/b|"), "ENOENT|");
    let path = client.ask(MessageType::GET_DOMAIN_PATH, 0, "1|");
    assert_eq!(path, "/local/domain/1|");
    assert_eq!(client.ask(MessageType(99), 0, "|"), "ENOSYS|");
    client.store.write_as("/secret", "", &Perms::private(0));
    client.store.write_as("/secret/x", "", &Perms::private(0));
    assert_eq!(client.ask(MessageType::READ, 0, "/secret/x|"), "EACCES|");
    assert_eq!(client.ask(MessageType::READ, 0, "/secret/y|"), "EACCES|");
}

#[test]
fn a_watch_fires_at_once_and_for_what_is_below() {
    let mut client = Client::new();
    client.send(MessageType::WATCH, 0, b"device\0t\0");
    let event = |path: &str| (MessageType::WATCH_EVENT, format!("{path}|t|"));
    let ok = (MessageType::WATCH, "OK|".to_owned());
    assert_eq!(client.take(), [ok, event("device")]);
    client
        .store
        .write("/local/domain/1/device/vbd/51712/state", "1");
    client.store.write("/local/domain/1/devices", "1");
    client.store.remove("/local/domain/1/device/vbd/51712");
    let expected = ["device/vbd/51712/state", "device/vbd/51712"].map(event);
    assert_eq!(client.take(), expected);
    client.store.remove("/local/domain/1");
    assert_eq!(client.take(), [event("device")], "gone with its parent");
    assert_eq!(client.ask(MessageType::UNWATCH, 0, "device|t|"), "OK|");
    assert_eq!(client.ask(MessageType::UNWATCH, 0, "device|t|"), "ENOENT|");
}

#[test]
fn a_transaction_loses_against_a_change_of_what_it_read() {
    let mut client = Client::new();
    let begin = |client: &mut Client| {
        let id = client.ask(MessageType::TRANSACTION_START, 0, "|");
        id.trim_end_matches('|').parse::<u32>().expect("a number")
    };
    let tx = begin(&mut client);
    assert_eq!(client.ask(MessageType::READ, tx, "name|"), "guest");
    assert_eq!(client.ask(MessageType::WRITE, tx, "data/x|1"), "OK|");
    assert_eq!(client.store.read("/local/domain/1/data/x"), None);
    client.store.write("/local/domain/1/name", "other");
    assert_eq!(
        client.ask(MessageType::TRANSACTION_END, tx, "T|"),
        "EAGAIN|"
    );
    let tx = begin(&mut client);
    assert_eq!(client.ask(MessageType::WRITE, tx, "data/y/z|2"), "OK|");
    client.store.write("/local/domain/1/name", "third");
    assert_eq!(client.ask(MessageType::TRANSACTION_END, tx, "T|"), "OK|");
    let written = client.store.read("/local/domain/1/data/y/z");
    assert_eq!(written.as_deref(), Some("2"));
    assert_eq!(
        client.ask(MessageType::TRANSACTION_END, tx, "T|"),
        "ENOENT|"
    );
}

#[test]
fn a_large_directory_comes_in_parts() {
    let mut client = Client::new();
    for i in 0..900 {
        client
            .store
            .write(&format!("/local/domain/1/data/entry-{i}"), "");
    }
    assert_eq!(client.ask(MessageType::DIRECTORY, 0, "data|"), "E2BIG|");
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let part = client.ask(MessageType::DIRECTORY_PART, 0, &format!("data|{offset}|"));
        let (_, list) = part.split_once('|').expect("a generation");
        let (list, last) = match list.strip_suffix("||") {
            Some(list) => (format!("{list}|"), true),
            None => (list.to_owned(), false),
        };
        offset += list.len();
        names.extend(list.split_terminator('|').map(str::to_owned));
        if last {
            break;
        }
    }
    assert_eq!(names, client.store.list("/local/domain/1/data"));
}

#[test]
fn the_guest_may_reconnect_and_the_host_may_reset() {
    let mut client = Client::new();
    client.ask(MessageType::TRANSACTION_START, 0, "|");
    client.send(MessageType::WATCH, 0, b"data\0t\0");
    client.take();
    client.page.atomic_u32(2068).store(RECONNECT, SeqCst);
    client.machine.send_event(client.port).expect("an event");
    client.drain();
    assert_eq!((client.index(2068), client.index(2052)), (0, 0));
    assert_eq!(client.store.guest_watches(), 0);
    assert_eq!(client.ask(MessageType::READ, 1, "name|"), "ENOENT|");
    client.store.reset();
    assert_eq!(client.index(2068), RECONNECT);
    client.drain();
    assert_eq!(client.ask(MessageType::READ, 0, "name|"), "guest");
}

#[test]
fn a_byte_per_step_is_slow_but_right() {
    let mut client = Client::new();
    client.store.offend(StoreOffence::OneBytePerStep);
    assert_eq!(client.ask(MessageType::READ, 0, "name|"), "guest");
}

#[test]
fn a_guest_that_says_too_much_is_ignored() {
    let client = Client::new();
    client.page.atomic_u32(2052).store(1025, SeqCst);
    client.machine.send_event(client.port).expect("an event");
    assert!(!client.store.clone().step());
    assert_eq!(client.index(2072), 2, "XENSTORE_ERROR_RINGIDX");
}
