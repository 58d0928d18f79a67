//! Guards of the drivers, the image and the freeze protocol, and how to break each: a test has to notice.

mod hyperv;
mod image;
mod protocol;

/// One guard and its broken form.
pub(crate) struct Mutant {
    /// What the guard is for.
    pub(crate) name: &'static str,
    /// The file, from the workspace's root.
    pub(crate) file: &'static str,
    /// Text that stands there exactly once.
    pub(crate) guard: &'static str,
    /// What replaces it.
    pub(crate) broken: &'static str,
}

const fn mutant(
    name: &'static str,
    file: &'static str,
    guard: &'static str,
    broken: &'static str,
) -> Mutant {
    Mutant {
        name,
        file,
        guard,
        broken,
    }
}

const RING: &str = "drivers/xen/src/blkfront/ring.rs";
const SLOTS: &str = "drivers/block/src/slots.rs";
const CHECK: &str = "drivers/block/src/check.rs";
const ACCEPTED: &str = "drivers/block/src/accepted.rs";
const COMPLETE: &str = "drivers/xen/src/blkfront/complete.rs";
const FRONT: &str = "drivers/xen/src/blkfront/front.rs";
const VBD: &str = "drivers/xen/src/blkfront/vbd.rs";
const CLOSE: &str = "drivers/xen/src/blkfront/close.rs";
const EVENT: &str = "drivers/xen/src/event.rs";
const GRANT: &str = "drivers/xen/src/grant.rs";
const BYTES: &str = "drivers/xen/src/byte_ring.rs";
const CONNECT: &str = "drivers/xen/src/blkfront/connect.rs";
const REISSUE: &str = "drivers/xen/src/blkfront/reissue.rs";
const FREEZE: &str = "drivers/xen/src/blkfront/freeze.rs";
const STEPS: &str = "drivers/block/src/freeze.rs";
const LIFE: &str = "drivers/xen/src/blkfront/life.rs";
const BUFFERS: &str = "drivers/xen/src/blkfront/buffers.rs";
const STORE: &str = "drivers/xen/src/store/mod.rs";
const MESSAGE: &str = "drivers/xen/src/store/message.rs";

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Mutant> {
    let others = image::MUTANTS.iter().chain(protocol::MUTANTS);
    DRIVERS.iter().chain(hyperv::MUTANTS).chain(others)
}

impl Mutant {
    /// The crates whose tests have to notice.
    pub(crate) fn packages(&self) -> &'static [&'static str] {
        let rooms: [(&str, &[&str]); 6] = [
            ("drivers/hyperv/", &["firn-hyperv", "firn-peers"]),
            ("drivers/scsi/", &["firn-scsi"]),
            ("drivers/image/", &["firn-image"]),
            ("kernel/power/", &["firn-power", "firn-sim"]),
            ("kernel/src/power/", &["firn-power", "firn-sim"]),
            ("kernel/jobs/", &["firn-jobs"]),
        ];
        let room = rooms
            .into_iter()
            .find(|(room, _)| self.file.starts_with(room));
        room.map_or(
            &["firn-block", "firn-xen", "firn-peers"],
            |(_, packages)| packages,
        )
    }
}

const DRIVERS: &[Mutant] = &[
    mutant(
        "responses beyond the requests in flight are believed",
        RING,
        "if waiting > self.outstanding() {",
        "if waiting > u32::MAX - 1 {",
    ),
    mutant(
        "a response that came while arming is slept over",
        RING,
        "Ok(self.responses()? > 0)",
        "Ok(self.responses()? > u32::MAX - 1)",
    ),
    mutant(
        "the backend is never notified",
        RING,
        "new.wrapping_sub(event) < new.wrapping_sub(old)",
        "new.wrapping_sub(event) < new.wrapping_sub(new)",
    ),
    mutant(
        "the id of an earlier use of a slot is accepted",
        SLOTS,
        "entry.waiting.is_none() || entry.generation != id >> 16",
        "entry.waiting.is_none()",
    ),
    mutant(
        "a response with another operation is accepted",
        COMPLETE,
        "&& piece.operation != answered",
        "&& piece.operation != piece.operation",
    ),
    mutant(
        "an unknown status counts as success",
        COMPLETE,
        "unknown => return Err(Offence::UnknownStatus(unknown)),",
        "_ => None,",
    ),
    mutant(
        "a flush that the backend does not do counts as done",
        COMPLETE,
        "Status::EOPNOTSUPP => Some(IoError::NotSupported),",
        "Status::EOPNOTSUPP => None,",
    ),
    mutant(
        "a buffer that the backend can still reach is handed out",
        COMPLETE,
        "parent.withhold |= reachable || !self.buffers.owns(buffer);",
        "parent.withhold |= false && (reachable || !self.buffers.owns(buffer));",
    ),
    mutant(
        "a request beyond the end is sent",
        CHECK,
        "end.is_none_or(|end| end > capacity)",
        "end.is_none_or(|end| end > u64::MAX - 1)",
    ),
    mutant(
        "a write to a read-only disk is sent",
        CHECK,
        "if request.op.modifies() && self.read_only {",
        "if request.op.modifies() && false {",
    ),
    mutant(
        "a request is sent while the gate is shut",
        CHECK,
        "Admission::Refuse => Err(Why::NotLive(self)),",
        "Admission::Refuse => Ok(()),",
    ),
    mutant(
        "a storm of events is borne for ever",
        FRONT,
        "None => self.fail(Offence::EventStorm),",
        "None => {}",
    ),
    mutant(
        "a handshake waits for ever",
        VBD,
        "if changed.await.is_err() {",
        "if changed.await.is_err() && false {",
    ),
    mutant(
        "an answer of an old host's counts on the new one",
        VBD,
        "if moved() {",
        "if moved() && false {",
    ),
    mutant(
        "a drain waits for ever",
        CLOSE,
        "if timeout(self.xen.clone(), limit, idle).await.is_err() {",
        "idle.await; let _ = limit; if false {",
    ),
    mutant(
        "an event that came while masked is lost",
        EVENT,
        "if pending.load(SeqCst) & bit == 0 {",
        "if pending.load(SeqCst) & bit == 0 || true {",
    ),
    mutant(
        "a grant is ended under a mapping",
        GRANT,
        "if seen & (GTF_READING | GTF_WRITING) != 0 {",
        "if seen & (GTF_READING | GTF_WRITING) == u16::MAX {",
    ),
    mutant(
        "a page that is still mapped is freed",
        "drivers/xen/src/machine.rs",
        "free &= self.grants.end_or_defer(*reference, reuse, now);",
        "self.grants.end_or_defer(*reference, reuse, now); free &= true;",
    ),
    mutant(
        "what a sleeping backend was told is used again",
        GRANT,
        "Reuse::AfterDevice(number) => entry.state = EntryState::SetAside(number),",
        "Reuse::AfterDevice(_) => {\n                entry.state = EntryState::Free;\n                table.free.push(reference.0);\n            }",
    ),
    mutant(
        "a backend is not waited for before its port is closed",
        CLOSE,
        "self.told.borrow_mut().push((link.generation, link.port));",
        "let _closed = xen.events.close(&xen.hal, link.port);",
    ),
    mutant(
        "a backend that is late to close is taken for closed",
        CLOSE,
        "done = closed.is_ok();",
        "done = true;",
    ),
    mutant(
        "the store's reader may go backwards",
        BYTES,
        "if unread > self.prod.wrapping_sub(self.cons) {",
        "if unread > u32::MAX - 1 {",
    ),
    mutant(
        "a payload of any size is taken",
        MESSAGE,
        "if header.len as usize > PAYLOAD_MAX {",
        "if header.len as usize > usize::MAX - 1 {",
    ),
    mutant(
        "a freeze does not wait for what is in flight",
        STEPS,
        "let empty = |path: &mut P| path.in_flight() == 0;",
        "let empty = |path: &mut P| path.in_flight() < usize::MAX;",
    ),
    mutant(
        "a ring with unanswered requests passes for idle",
        FRONT,
        "let unanswered = ring.map_or(0, FrontRing::unfinished);",
        "let unanswered = ring.map_or(0, FrontRing::unfinished) * 0;",
    ),
    mutant(
        "a freeze without a flush counts as durable",
        STEPS,
        "Some(Err(IoError::NotSupported)) => Err(WhyNot::NoFlush),",
        "Some(Err(IoError::NotSupported)) => Ok(()),",
    ),
    mutant(
        "a page that the backend keeps mapped passes for frozen",
        BUFFERS,
        "stuck.get_or_insert(grant);",
        "let _ = stuck.get_or_insert(grant); stuck = None;",
    ),
    mutant(
        "a backend that never closes passes for disconnected",
        CLOSE,
        "self.check_host(other)?;\n                Err(WhyNot::Connect(error))",
        "self.check_host(other)?;\n                let _ = error; Ok(())",
    ),
    mutant(
        "a request that nobody waits for keeps a disk connected",
        FREEZE,
        "self.forget_private(until).await?;",
        "if self.removed.get() { self.forget_private(until).await?; }",
    ),
    mutant(
        "a connection on other terms passes for the one that was asked for",
        FREEZE,
        "self.agreed.get() == terms",
        "self.agreed.get() == terms || true",
    ),
    mutant(
        "a handshake that failed takes back a later wish",
        LIFE,
        "if self.wish.get() == wish {",
        "if self.wish.get() == wish || true {",
    ),
    mutant(
        "a device that goes while it disconnects leaves its grants in force",
        LIFE,
        "self.cut(IoError::Gone);\n        self.backend_lets_go().await;\n        self.buffers_came_back().await;",
        "self.backend_lets_go().await;\n        self.buffers_came_back().await;",
    ),
    mutant(
        "a gate that was shut opens by itself when the device connects",
        CONNECT,
        "Wish::Shut(_) | Wish::Frozen => Lifecycle::Freezing,",
        "Wish::Shut(_) | Wish::Frozen => Lifecycle::Live,",
    ),
    mutant(
        "a late word of the old connection ends a thaw",
        CONNECT,
        "XenbusState::CLOSED if returns => Ok(false),",
        "XenbusState::CLOSED if returns && false => Ok(false),",
    ),
    mutant(
        "what was answered before a suspend is issued again",
        REISSUE,
        "self.take_responses(usize::MAX);",
        "self.take_responses(0);",
    ),
    mutant(
        "a move while the guest runs loses what was read",
        REISSUE,
        "buffers::note_changed(&self.buffers, &self.xen);",
        "",
    ),
    mutant(
        "a suspend called off takes back the one before",
        REISSUE,
        "self.suspended_from = None;",
        "",
    ),
    mutant(
        "half of a request is not issued again",
        ACCEPTED,
        "(parent.sent, parent.outstanding) = (0, 0);",
        "parent.outstanding = 0;",
    ),
    mutant(
        "a request that the new disk cannot do is sent",
        REISSUE,
        "Err(why) => Some(IoError::DiskChanged(why)),",
        "Err(_) => None,",
    ),
    mutant(
        "a flush that the new disk cannot do succeeds",
        REISSUE,
        "Some(error) => self.end_parent(index, error),",
        "Some(_) => { if let Some(p) = self.accepted.get_mut(index) { p.all_sent = true; } self.finish_parent(index); }",
    ),
    mutant(
        "old requests are issued in any order",
        ACCEPTED,
        "sort_few(&mut kept, |parent| parent.token);",
        "sort_few(&mut kept, |parent| u64::MAX - parent.token.0);",
    ),
    mutant(
        "grants of the old host count on the new one",
        BUFFERS,
        "buffer.kept.grants.clear();",
        "buffer.kept.grants.len();",
    ),
    mutant(
        "watches are forgotten on the new host",
        STORE,
        "state.post_watch(&path, token);",
        "let _ = (&path, token);",
    ),
    mutant(
        "the toolstack is not told that its command was heard",
        "drivers/xen/src/control.rs",
        "transaction.write(SHUTDOWN, \"\").await?;",
        "let _ = transaction;",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn every_guard_stands_where_the_table_says() {
        for mutant in all() {
            let text = std::fs::read_to_string(workspace::root().join(mutant.file)).unwrap();
            let count = text.matches(mutant.guard).count();
            assert_eq!(count, 1, "{}: {}", mutant.file, mutant.guard);
        }
    }
}
