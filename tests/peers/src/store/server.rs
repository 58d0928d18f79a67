//! What the daemon answers: one tree, one guest connection, many watches.

use super::transaction::{Change, Transaction};
use super::tree::{Perms, Tree, absolute};
use crate::machine::GUEST;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::xs::{Header, MessageType, PAYLOAD_MAX};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Weak;

/// The guest may have so many of each.
const MAX_WATCHES: usize = 128;
const MAX_TRANSACTIONS: usize = 10;

/// A message to or from the guest.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

impl Message {
    pub(super) fn new(ty: MessageType, req_id: u32, tx_id: u32, payload: Vec<u8>) -> Self {
        let header = Header {
            ty: ty.0,
            req_id,
            tx_id,
            len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        };
        Self { header, payload }
    }

    pub(super) fn ty(&self) -> MessageType {
        MessageType(self.header.ty)
    }
}

struct GuestWatch {
    /// As the guest wrote it: events use the same form.
    given: String,
    path: String,
    token: String,
}

/// A list that a watch of the host's adds to.
pub(super) type Fired = RefCell<VecDeque<String>>;

/// The daemon without its ring.
pub(super) struct Server {
    pub(super) tree: Tree,
    generation: u64,
    host_watches: Vec<(String, Weak<Fired>)>,
    watches: Vec<GuestWatch>,
    transactions: BTreeMap<u32, Transaction>,
    next_transaction: u32,
    /// Messages to the guest, in order.
    pub(super) out: VecDeque<Message>,
    pub(super) commits_fail: bool,
    pub(super) directory: DirectoryTrick,
}

/// How directory parts are spoiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectoryTrick {
    None,
    NeverEnds,
    KeepsChanging,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            tree: Tree::new(),
            generation: 1,
            host_watches: Vec::new(),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            next_transaction: 1,
            out: VecDeque::new(),
            commits_fail: false,
            directory: DirectoryTrick::None,
        }
    }

    /// The guest's connection starts anew.
    pub(super) fn forget_guest(&mut self) {
        self.watches.clear();
        self.transactions.clear();
        self.out.clear();
    }

    pub(super) fn watch_count(&self) -> usize {
        self.watches.len()
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    // The host's own access: domain 0, no transactions.

    pub(super) fn host_write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        let generation = self.next_generation();
        self.tree.write(path, value, 0, generation)?;
        self.fire(path, false);
        Ok(())
    }

    pub(super) fn host_remove(&mut self, path: &str) {
        let generation = self.next_generation();
        let gone = self.tree.remove(path, generation);
        for (index, path) in gone.iter().enumerate() {
            self.fire(path, index > 0);
        }
    }

    pub(super) fn host_watch(&mut self, path: &str, fired: Weak<Fired>) {
        if let Some(list) = fired.upgrade() {
            list.borrow_mut().push_back(path.to_owned());
        }
        self.host_watches.push((path.to_owned(), fired));
    }

    /// Tells every watch that covers `path`.
    fn fire(&mut self, path: &str, exact: bool) {
        self.host_watches
            .retain(|(_, list)| list.strong_count() > 0);
        for (watched, list) in &self.host_watches {
            if let Some(list) = list.upgrade().filter(|_| covers(watched, path, exact)) {
                list.borrow_mut().push_back(path.to_owned());
            }
        }
        // What a domain may not read it does not hear of, except that it went.
        if !matches!(
            self.tree.readable(path, GUEST.0),
            Ok(_) | Err(Errno::ENOENT)
        ) {
            return;
        }
        for watch in &self.watches {
            if covers(&watch.path, path, exact) {
                let below = path.strip_prefix(&watch.path).unwrap_or("");
                let name = format!("{}{below}", watch.given);
                self.out.push_back(watch_event(&name, &watch.token));
            }
        }
    }

    /// Answers one request of the guest.
    pub(super) fn handle(&mut self, request: &Message) {
        let result = self.dispatch(request);
        let Header { req_id, tx_id, .. } = request.header;
        let reply = match result {
            Ok(payload) => Message::new(request.ty(), req_id, tx_id, payload),
            Err(errno) => {
                let name = format!("{errno}\0").into_bytes();
                Message::new(MessageType::ERROR, req_id, tx_id, name)
            }
        };
        self.out.push_back(reply);
        if request.ty() == MessageType::WATCH {
            self.fire_new_watch(request);
        }
    }

    /// A new watch fires once, after its reply.
    fn fire_new_watch(&mut self, request: &Message) {
        let replied = self.out.back().map(Message::ty);
        if let (Some(MessageType::WATCH), Some(watch)) = (replied, self.watches.last()) {
            debug_assert!(!request.payload.is_empty());
            let event = watch_event(&watch.given, &watch.token);
            self.out.push_back(event);
        }
    }

    fn dispatch(&mut self, request: &Message) -> Result<Vec<u8>, Errno> {
        let tx = request.header.tx_id;
        if tx != 0 && !self.transactions.contains_key(&tx) {
            return Err(Errno::ENOENT);
        }
        let payload = &request.payload[..];
        match request.ty() {
            MessageType::READ => self.read(tx, payload),
            MessageType::DIRECTORY => self.list(tx, payload),
            MessageType::DIRECTORY_PART => self.list_part(tx, payload),
            MessageType::GET_PERMS => self.get_perms(tx, payload),
            MessageType::SET_PERMS => self.set_perms(tx, payload),
            MessageType::WRITE => self.write(tx, payload),
            MessageType::MKDIR => self.mkdir(tx, payload),
            MessageType::RM => self.remove(tx, payload),
            MessageType::WATCH => self.watch(payload),
            MessageType::UNWATCH => self.unwatch(payload),
            MessageType::RESET_WATCHES => {
                self.watches.clear();
                Ok(ok())
            }
            MessageType::TRANSACTION_START => self.start(tx),
            MessageType::TRANSACTION_END => self.end(tx, payload),
            MessageType::GET_DOMAIN_PATH => {
                let [domid] = words(payload)?;
                let domid: u16 = domid.parse().map_err(|_| Errno::EINVAL)?;
                Ok(format!("/local/domain/{domid}\0").into_bytes())
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The tree that a request works on.
    fn view(&self, tx: u32) -> &Tree {
        self.transactions.get(&tx).map_or(&self.tree, |tx| &tx.tree)
    }

    /// Resolves a path and notes that the transaction looked at it.
    fn look(&mut self, tx: u32, path: &str) -> Result<String, Errno> {
        let path = absolute(path, GUEST.0)?;
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.touch(&path);
        }
        Ok(path)
    }

    fn read(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [path] = words(payload)?;
        let path = self.look(tx, path)?;
        let node = self.view(tx).readable(&path, GUEST.0)?;
        Ok(node.value.clone())
    }

    fn list(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [path] = words(payload)?;
        let path = self.look(tx, path)?;
        self.view(tx).readable(&path, GUEST.0)?;
        let names = names(&self.view(tx).children(&path));
        if names.len() > PAYLOAD_MAX || self.directory != DirectoryTrick::None {
            return Err(Errno::E2BIG);
        }
        Ok(names)
    }

    /// A generation, then names from a byte offset on, then an empty name at
    /// the end of the list.
    fn list_part(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [path, offset] = words(payload)?;
        let offset: usize = offset.parse().map_err(|_| Errno::EINVAL)?;
        let path = self.look(tx, path)?;
        let mut generation = self.view(tx).readable(&path, GUEST.0)?.generation;
        let names = names(&self.view(tx).children(&path));
        if self.directory == DirectoryTrick::KeepsChanging {
            generation = self.next_generation();
        }
        let mut reply = format!("{generation}\0").into_bytes();
        if self.directory == DirectoryTrick::NeverEnds {
            reply.extend(b"again\0");
            return Ok(reply);
        }
        let rest = names.get(offset..).ok_or(Errno::EINVAL)?;
        for name in rest.split_inclusive(|byte| *byte == 0) {
            // One byte stays free for the end mark.
            if reply.len() + name.len() >= PAYLOAD_MAX {
                return Ok(reply);
            }
            reply.extend(name);
        }
        reply.push(0);
        Ok(reply)
    }

    fn get_perms(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [path] = words(payload)?;
        let path = self.look(tx, path)?;
        let perms = self.view(tx).readable(&path, GUEST.0)?.perms.words();
        let perms: Vec<&str> = perms.iter().map(String::as_str).collect();
        Ok(names(&perms))
    }

    /// Runs a change on the right tree and tells or keeps what changed.
    fn change(
        &mut self,
        tx: u32,
        path: &str,
        run: impl FnOnce(&mut Tree, u64) -> Result<Vec<Change>, Errno>,
    ) -> Result<Vec<u8>, Errno> {
        let generation = self.next_generation();
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.will_write(path);
            let changes = run(&mut transaction.tree, generation)?;
            for change in changes {
                transaction.wrote(&change.path);
                transaction.changes.push(change);
            }
        } else {
            for change in run(&mut self.tree, generation)? {
                self.fire(&change.path, change.exact);
            }
        }
        Ok(ok())
    }

    fn set_perms(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let text = text(payload.strip_suffix(&[0]).unwrap_or(payload))?;
        let parts: Vec<&str> = text.split('\0').collect();
        let (path, perms) = parts.split_first().ok_or(Errno::EINVAL)?;
        let path = absolute(path, GUEST.0)?;
        let perms = Perms::parse(perms).ok_or(Errno::EINVAL)?;
        let target = path.clone();
        self.change(tx, &path, move |tree, generation| {
            let absent = tree.absent(&target, GUEST.0);
            let node = tree.get_mut(&target).ok_or(absent)?;
            if node.perms.owner() != GUEST.0 {
                return Err(Errno::EACCES);
            }
            if perms.owner() != GUEST.0 {
                return Err(Errno::EPERM);
            }
            node.perms = perms;
            node.generation = generation;
            Ok(vec![changed(target)])
        })
    }

    fn write(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let end = payload.iter().position(|b| *b == 0).ok_or(Errno::EINVAL)?;
        let path = absolute(text(&payload[..end])?, GUEST.0)?;
        let value = payload[end + 1..].to_vec();
        let target = path.clone();
        self.change(tx, &path, move |tree, generation| {
            tree.write(&target, &value, GUEST.0, generation)?;
            Ok(vec![changed(target)])
        })
    }

    fn mkdir(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [path] = words(payload)?;
        let path = absolute(path, GUEST.0)?;
        let target = path.clone();
        self.change(tx, &path, move |tree, generation| {
            if tree.get(&target).is_some() {
                return Ok(Vec::new());
            }
            tree.create(&target, GUEST.0, generation)?;
            Ok(vec![changed(target)])
        })
    }

    fn remove(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [path] = words(payload)?;
        let path = absolute(path, GUEST.0)?;
        if path.is_empty() {
            return Err(Errno::EINVAL);
        }
        let target = path.clone();
        self.change(tx, &path, move |tree, generation| {
            match tree.get(&target) {
                // What is not there is removed already, if it could be.
                None if tree.get(super::tree::parent(&target)).is_some() => return Ok(Vec::new()),
                None => return Err(tree.absent(&target, GUEST.0)),
                Some(node) if !node.perms.allow_write(GUEST.0) => return Err(Errno::EACCES),
                Some(_) => {}
            }
            let gone = tree.remove(&target, generation);
            let change = |(index, path)| Change {
                path,
                exact: index > 0,
            };
            Ok(gone.into_iter().enumerate().map(change).collect())
        })
    }

    fn watch(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [given, token] = words(payload)?;
        let path = if given.starts_with('@') {
            given.to_owned()
        } else {
            absolute(given, GUEST.0)?
        };
        if self.watches.len() >= MAX_WATCHES {
            return Err(Errno::E2BIG);
        }
        let same = |watch: &GuestWatch| watch.path == path && watch.token == token;
        if self.watches.iter().any(same) {
            return Err(Errno::EEXIST);
        }
        self.watches.push(GuestWatch {
            given: given.to_owned(),
            path,
            token: token.to_owned(),
        });
        Ok(ok())
    }

    fn unwatch(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [given, token] = words(payload)?;
        let before = self.watches.len();
        self.watches
            .retain(|watch| watch.given != given || watch.token != token);
        if self.watches.len() == before {
            return Err(Errno::ENOENT);
        }
        Ok(ok())
    }

    fn start(&mut self, tx: u32) -> Result<Vec<u8>, Errno> {
        if tx != 0 {
            return Err(Errno::EBUSY);
        }
        if self.transactions.len() >= MAX_TRANSACTIONS {
            return Err(Errno::ENOSPC);
        }
        let id = self.next_transaction;
        self.next_transaction += 1;
        self.transactions.insert(id, Transaction::new(&self.tree));
        Ok(format!("{id}\0").into_bytes())
    }

    fn end(&mut self, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let [word] = words(payload)?;
        let transaction = self.transactions.remove(&tx).ok_or(Errno::ENOENT)?;
        match word {
            "F" => return Ok(ok()),
            "T" => {}
            _ => return Err(Errno::EINVAL),
        }
        let generation = self.next_generation();
        if self.commits_fail || !transaction.commit(&mut self.tree, generation) {
            return Err(Errno::EAGAIN);
        }
        for change in &transaction.changes {
            self.fire(&change.path, change.exact);
        }
        Ok(ok())
    }
}

fn changed(path: String) -> Change {
    Change { path, exact: false }
}

/// Whether a watch of `watched` hears of `path`.
fn covers(watched: &str, path: &str, exact: bool) -> bool {
    match path.strip_prefix(watched) {
        Some("") => true,
        Some(below) => !exact && below.starts_with('/'),
        None => false,
    }
}

fn watch_event(path: &str, token: &str) -> Message {
    let payload = format!("{path}\0{token}\0").into_bytes();
    Message::new(MessageType::WATCH_EVENT, 0, 0, payload)
}

fn ok() -> Vec<u8> {
    b"OK\0".to_vec()
}

fn names(names: &[&str]) -> Vec<u8> {
    names
        .iter()
        .flat_map(|name| format!("{name}\0").into_bytes())
        .collect()
}

fn text(bytes: &[u8]) -> Result<&str, Errno> {
    std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)
}

/// A payload of exactly `N` strings, each ended by a NUL.
fn words<const N: usize>(payload: &[u8]) -> Result<[&str; N], Errno> {
    let payload = text(payload.strip_suffix(&[0]).ok_or(Errno::EINVAL)?)?;
    let words: Vec<&str> = payload.split('\0').collect();
    words.try_into().map_err(|_| Errno::EINVAL)
}
