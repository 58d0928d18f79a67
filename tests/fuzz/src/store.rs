//! The store client and the bus, against bytes and messages from a daemon that
//! does what the input says.

use super::each_act;
use arbitrary::{Arbitrary, Unstructured};
use firn_block::shm::Region;
use firn_peers::{Channel, FakeMachine, GUEST, Guest};
use firn_task::{Time, sleep_until, timeout};
use firn_xen::Xen;
use firn_xen::blkfront::VbdConfig;
use firn_xen::store::Store;
use firn_xen::wire::xs::{Header, Interface, MessageType, RING_SIZE};
use std::collections::VecDeque;
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Passes of the main loop after which the guest must rest, whatever was said.
const MOST_PASSES: usize = 5_000;

const REQ_CONS: usize = offset_of!(Interface, req_cons);
const REQ_PROD: usize = offset_of!(Interface, req_prod);
const RSP_CONS: usize = offset_of!(Interface, rsp_cons);
const RSP_PROD: usize = offset_of!(Interface, rsp_prod);
const FEATURES: usize = offset_of!(Interface, server_features);
const CONNECTION: usize = offset_of!(Interface, connection);
const ERROR: usize = offset_of!(Interface, error);

#[derive(Arbitrary, Debug)]
enum Act {
    /// A reply to the oldest request, as a sane daemon would give it.
    Answer(u8),
    /// The same with other bytes.
    AnswerWith(Vec<u8>),
    /// An error reply.
    Refuse(u8),
    /// A reply with a spoiled header.
    Spoiled { field: u8, value: u32, text: u8 },
    /// A watch event.
    Watch { path: u8, token: u8 },
    /// A watch event made of any bytes.
    WatchWith(Vec<u8>),
    /// Bytes on the ring.
    Bytes(Vec<u8>),
    /// Only some bytes of what waits to be sent.
    Dribble(u8),
    /// A word of the page that is no data.
    Word { which: u8, value: u32 },
    /// An index moves.
    Index { which: u8, delta: i16 },
    /// Both queues are emptied and the connection is up.
    Reset,
    /// Forgets what the guest asked.
    Forget,
    /// Nothing but an event.
    Event,
    /// Time passes.
    Advance(u16),
}

/// Texts with `|` for a zero byte.
const ERRORS: [&str; 8] = [
    "ENOENT|", "EACCES|", "EAGAIN|", "E2BIG|", "EINVAL|", "EQUOTA|", "", "|",
];

const TEXTS: [&str; 15] = [
    "OK|",
    "",
    "|",
    "1",
    "4",
    "51712|",
    "51712|51728|x|",
    "7|51712||",
    "7|a|b|",
    "7|",
    "/local/domain/1|",
    "/local/domain/0/backend/vbd/1/51712",
    "0",
    "n1|r0|",
    "4294967296|",
];

const PATHS: [&str; 6] = [
    "device/vbd",
    "device/vbd/51712",
    "/local/domain/0/backend/vbd/1/51712/state",
    "data",
    "",
    "/",
];

fn pick<T: Copy>(list: &[T], index: u8) -> T {
    list[usize::from(index) % list.len()]
}

fn text(text: &str) -> Vec<u8> {
    text.replace('|', "\0").into_bytes()
}

/// The daemon's end of the page.
struct Daemon {
    page: Region,
    channel: Channel,
    incoming: Vec<u8>,
    asked: VecDeque<Header>,
    outgoing: VecDeque<u8>,
}

impl Daemon {
    fn word(&self, offset: usize) -> u32 {
        self.page.atomic_u32(offset).load(SeqCst)
    }

    fn set(&self, offset: usize, value: u32) {
        self.page.atomic_u32(offset).store(value, SeqCst);
    }

    /// Reads what the guest wrote and remembers the headers.
    fn listen(&mut self) {
        let (end, mut at) = (self.word(REQ_PROD), self.word(REQ_CONS));
        if end.wrapping_sub(at) > RING_SIZE {
            return;
        }
        while at != end {
            let byte = self.page.atomic_u8((at % RING_SIZE) as usize);
            self.incoming.push(byte.load(SeqCst));
            at = at.wrapping_add(1);
        }
        self.set(REQ_CONS, at);
        while let Some((header, len)) = self.next_header() {
            self.incoming.drain(..len);
            self.asked.push_back(header);
        }
    }

    fn next_header(&self) -> Option<(Header, usize)> {
        let word = |at: usize| {
            let bytes = self.incoming.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let header = Header {
            ty: word(0)?,
            req_id: word(4)?,
            tx_id: word(8)?,
            len: word(12)?,
        };
        let len = size_of::<Header>() + header.len as usize;
        (self.incoming.len() >= len).then_some((header, len))
    }

    fn say(&mut self, header: Header, payload: &[u8]) {
        for word in [header.ty, header.req_id, header.tx_id, header.len] {
            self.outgoing.extend(word.to_le_bytes());
        }
        self.outgoing.extend(payload);
    }

    fn reply(&mut self, ty: Option<MessageType>, payload: &[u8]) {
        if let Some(header) = self.asked.pop_front() {
            let ty = ty.map_or(header.ty, |ty| ty.0);
            let len = payload.len() as u32;
            self.say(Header { ty, len, ..header }, payload);
        }
    }

    /// Puts as many bytes on the ring as fit, `most` at most.
    fn send(&mut self, most: usize) {
        let (mut at, start) = (self.word(RSP_PROD), self.word(RSP_CONS));
        let used = at.wrapping_sub(start);
        let room = RING_SIZE.saturating_sub(used) as usize;
        let count = room.min(most).min(self.outgoing.len());
        for byte in self.outgoing.drain(..count) {
            let place = offset_of!(Interface, rsp) + (at % RING_SIZE) as usize;
            self.page.atomic_u8(place).store(byte, SeqCst);
            at = at.wrapping_add(1);
        }
        self.set(RSP_PROD, at);
        self.channel.notify();
    }

    /// What a sane daemon would say, more or less.
    fn answer(&mut self, choice: u8) {
        let Some(header) = self.asked.front() else {
            return;
        };
        let payload = match MessageType(header.ty) {
            MessageType::READ => pick(&["1", "2", "4", "0", "51712", "512", "/b", ""], choice),
            MessageType::DIRECTORY => pick(&["51712|", "", "51712|51728|", "a|b|"], choice),
            MessageType::DIRECTORY_PART => pick(&["7|51712||", "7|a|", "8||"], choice),
            MessageType::TRANSACTION_START => pick(&["1|", "2|", "3|"], choice),
            MessageType::GET_PERMS => "n1|r0|",
            MessageType::GET_DOMAIN_PATH => "/local/domain/1|",
            _ => "OK|",
        };
        self.reply(None, &text(payload));
    }

    fn spoiled(&mut self, field: u8, value: u32, choice: u8) {
        let Some(mut header) = self.asked.pop_front() else {
            return;
        };
        let payload = text(pick(&TEXTS, choice));
        header.len = payload.len() as u32;
        match field % 4 {
            0 => header.ty = value,
            1 => header.req_id = value,
            2 => header.tx_id = value,
            _ => header.len = value,
        }
        self.say(header, &payload);
    }

    fn event(&mut self, payload: &[u8]) {
        let header = Header {
            ty: MessageType::WATCH_EVENT.0,
            req_id: 0,
            tx_id: 0,
            len: payload.len() as u32,
        };
        self.say(header, payload);
    }

    fn act(&mut self, act: Act) {
        let mut most = usize::MAX;
        match act {
            Act::Answer(choice) => self.answer(choice),
            Act::AnswerWith(bytes) => self.reply(None, &bytes),
            Act::Refuse(error) => {
                self.reply(Some(MessageType::ERROR), &text(pick(&ERRORS, error)));
            }
            Act::Spoiled { field, value, text } => self.spoiled(field, value, text),
            Act::Watch { path, token } => {
                let payload = format!("{}|{}|", pick(&PATHS, path), token % 8);
                self.event(&text(&payload));
            }
            Act::WatchWith(bytes) => self.event(&bytes),
            Act::Bytes(bytes) => self.outgoing.extend(bytes),
            Act::Dribble(count) => most = count.into(),
            Act::Word { which, value } => {
                let words = [FEATURES, CONNECTION, ERROR, RSP_PROD, REQ_CONS];
                self.set(pick(&words, which), value);
            }
            Act::Index { which, delta } => {
                let word = pick(&[REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD], which);
                self.set(word, self.word(word).wrapping_add_signed(delta.into()));
            }
            Act::Reset => self.reset(),
            Act::Forget => self.asked.clear(),
            Act::Event | Act::Advance(_) => {}
        }
        self.send(most);
    }

    fn reset(&mut self) {
        self.incoming.clear();
        self.asked.clear();
        self.outgoing.clear();
        for word in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, ERROR, CONNECTION] {
            self.set(word, 0);
        }
    }
}

/// Somebody who uses all of the client. Errors are expected; the pause lets
/// time decide how often.
async fn use_everything(xen: Rc<Xen<FakeMachine>>, store: Store<FakeMachine>) {
    loop {
        let _ = store.read("data/a").await;
        let _ = store.write("data/a", "value").await;
        let _ = store.directory("data").await;
        let _ = store.mkdir("data/b").await;
        let _ = store.permissions("data/a").await;
        let _ = store.domain_path(GUEST).await;
        if let Ok(mut watch) = store.watch("data").await {
            let limit = Duration::from_millis(20);
            let _ = timeout(xen.clone(), limit, watch.changed()).await;
        }
        let change = store.transact(async |transaction| {
            transaction.read("data/a").await?;
            transaction.rm("data/b").await
        });
        let _ = change.await;
        let _ = store.reconnect().await;
        let at = xen.now() + Duration::from_millis(1);
        sleep_until(xen.clone(), at).await;
    }
}

fn rest(guest: &mut Guest) {
    let passes = (0..MOST_PASSES).take_while(|_| guest.pass()).count();
    assert!(passes < MOST_PASSES, "the guest never comes to rest");
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let machine = FakeMachine::new();
    let (page, channel) = machine.take_store();
    let mut daemon = Daemon {
        page,
        channel,
        incoming: Vec::new(),
        asked: VecDeque::new(),
        outgoing: VecDeque::new(),
    };
    daemon.set(FEATURES, 3);
    let mut guest = Guest::new(&machine, VbdConfig::default());
    let user = use_everything(guest.xen.clone(), guest.store.clone());
    guest.executor.spawn(user);
    rest(&mut guest);

    let mut input = Unstructured::new(data);
    let _ = each_act(&mut input, |act: Act| {
        if let Act::Advance(millis) = act {
            machine.advance(Duration::from_millis(millis.into()));
        }
        daemon.listen();
        daemon.act(act);
        rest(&mut guest);
        ControlFlow::Continue(())
    });
    // Silence from now on: every wait ends.
    for _ in 0..40 {
        machine.advance(Duration::from_secs(1));
        rest(&mut guest);
    }
    assert_eq!(machine.violations(), []);
}
