//! Which lines of dom0's kernel log are complaints.
//!
//! # A destroy in the middle of a connect
//!
//! `xl destroy` pauses the domain, removes the frontend's directory from
//! xenstore in one transaction, and then asks the backend to close. blkback may
//! just have been told that the frontend is `Initialised` and be reading the
//! very keys that are gone. In Linux's `drivers/block/xen-blkback/xenbus.c`,
//! `connect_ring` first makes the rings and sets their number of pages, and
//! takes defaults for the keys that may be missing (`protocol`,
//! `feature-persistent`, `multi-queue-num-queues`, `ring-page-order`); then
//! `read_per_ring_refs` reads two that must be there, `event-channel` and
//! `ring-ref` (`ring-ref0`, ...), and only with all of them allocates the ring's
//! requests. One that is missing gives `22 reading …` at the level of errors,
//! and the `xen_blkif_disconnect` that cleans up counts no requests where the
//! pages say that there should be some: `WARN_ON`, with a whole trace. Nothing
//! is leaked, and no frontend can prevent it: it is paused by then.
//!
//! These are the only lines that such a destroy can cause. Everything else that
//! blkback reads or writes while it connects is in its own directory, which the
//! tool stack removes only when the backend is `Closed`; the domain itself, with
//! its grants and ports, is killed after that, so mapping the ring cannot fail
//! for it; and a frontend without a state is the device's end, not an error. A
//! domain that is destroyed before its backend is even probed would be
//! `unable to read other end`, but `xl create` and `xl block-attach` return only
//! after that. So all other errors, of destroyed domains too, are complaints.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What dom0's kernel says without anybody being to blame: the emulated
/// machine's clocks drift, and the block backend cleans up persistent grants
/// later than it wished when a guest keeps more than 1056 pages granted.
const NOBODYS_FAULT: [&str; 3] = [
    "clocksource",
    "hrtimer: interrupt took",
    "cannot purge list",
];

/// Linux gives warnings and worse these levels.
const WARNING: u32 = 4;

/// No trace has more lines.
const LONGEST_TRACE: usize = 120;

/// The domains that a lab itself has destroyed. Ids are not given twice while
/// a lab runs, and all scenes that share it share this.
#[derive(Clone, Default)]
pub(crate) struct Destroyed(Arc<Mutex<BTreeSet<u32>>>);

impl Destroyed {
    /// Notes a domain, before it is destroyed: dom0 may complain, and somebody
    /// else read that, meanwhile. Whether it was not noted yet.
    pub(crate) fn note(&self, domain: u32) -> bool {
        self.domains().insert(domain)
    }

    /// It had ended by itself.
    pub(crate) fn strike(&self, domain: u32) {
        self.domains().remove(&domain);
    }

    /// All of them so far.
    pub(crate) fn so_far(&self) -> BTreeSet<u32> {
        self.domains().clone()
    }

    fn domains(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Linux wrote as a warning or worse behind the line `mark`, less what is
/// nobody's fault; `None` when the mark is not in the log. `log` is all of it,
/// as from `dmesg -r`: what explains a trace may stand before the mark.
pub(crate) fn of_linux(log: &str, mark: &str, destroyed: &BTreeSet<u32>) -> Option<Vec<String>> {
    let lines: Vec<&str> = log.lines().collect();
    let begin = lines.iter().position(|line| line.contains(mark))?;
    let known = caught_connecting(&lines, destroyed);
    let fault = |line: &&str| !NOBODYS_FAULT.iter().any(|word| line.contains(word));
    let since = lines.iter().zip(known).skip(begin + 1);
    let unknown = since.filter(|(_, known)| !known).map(|(line, _)| *line);
    let complaints = unknown.filter(|line| is_warning(line)).filter(fault);
    Some(complaints.map(str::to_owned).collect())
}

/// Whether each line belongs to a destroy in the middle of a connect: the
/// error, and the next trace behind it if that is the one that must follow.
fn caught_connecting(lines: &[&str], destroyed: &BTreeSet<u32>) -> Vec<bool> {
    let mut known = vec![false; lines.len()];
    let mut to_follow = false;
    for (at, line) in lines.iter().enumerate() {
        let said = text(line);
        if half_read(said).is_some_and(|domain| destroyed.contains(&domain)) {
            known[at] = true;
            to_follow = true;
        } else if said.starts_with("WARNING: ") {
            // blkback connects in one thread, so this is it, or something else.
            if std::mem::take(&mut to_follow) && is_of_disconnect(said) {
                for part in trace(lines, at).into_iter().flatten() {
                    known[part] = true;
                }
            }
        }
    }
    known
}

/// The domain whose keys blkback could not read when it connected, by its error.
fn half_read(said: &str) -> Option<u32> {
    let (name, error) = said.strip_prefix("vbd vbd-")?.split_once(": ")?;
    let (domain, device) = name.split_once('-')?;
    let folder = format!("22 reading /local/domain/{domain}/device/vbd/{device}/");
    let key = error.strip_prefix(&folder)?;
    let ring_ref = key.strip_prefix("ring-ref");
    let ring_ref = ring_ref.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    if key != "event-channel" && !ring_ref {
        return None;
    }
    domain.parse().ok()
}

/// Whether a trace begins so that follows an error of [`half_read`].
fn is_of_disconnect(said: &str) -> bool {
    said.contains(" at drivers/block/xen-blkback/xenbus.c:")
        && said.contains(" xen_blkif_disconnect+0x")
        && said.ends_with(" [xen_blkback]")
}

/// The lines of the trace whose `WARNING` is at `at`, from the line before
/// (`cut here`) to its end; not those that something else wrote in between.
/// `None` when it has no end.
fn trace(lines: &[&str], at: usize) -> Option<Vec<usize>> {
    let before = at.checked_sub(1);
    let cut = before.filter(|&line| text(lines[line]).ends_with("[ cut here ]------------"));
    let mut parts: Vec<usize> = cut.into_iter().chain([at]).collect();
    for (next, line) in lines.iter().enumerate().skip(at + 1).take(LONGEST_TRACE) {
        let said = text(line);
        if said.starts_with("---[ end trace ") {
            parts.push(next);
            return Some(parts);
        }
        if level(line) == Some(WARNING) && is_of_a_trace(said) {
            parts.push(next);
        }
    }
    None
}

/// Whether a line looks like one from within a trace.
fn is_of_a_trace(said: &str) -> bool {
    let words = ["Modules linked in:", "Hardware name:", "Call Trace:"];
    let words = words.into_iter().chain(["Tainted:", "Workqueue:", "Code:"]);
    let mut words = words.filter(|word| said.starts_with(word));
    // `RIP: 0010:...`, `R13: ...`, `CPU: 0 PID: ...`
    let register = said.split_once(':').is_some_and(|(name, _)| {
        let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        (2..=4).contains(&name.len()) && name.bytes().all(upper)
    });
    // ` ? __warn+0x7d/0x100`, ` <TASK>`
    let frame = said.starts_with(' ') && (said.contains("+0x") || said.contains("TASK>"));
    words.next().is_some() || register || frame
}

/// What a raw line says, without its level and its time.
fn text(line: &str) -> &str {
    let said = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((_, said)) => said,
        None => line,
    };
    match said
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((_, said)) => said,
        None => said,
    }
}

fn level(line: &str) -> Option<u32> {
    let (level, _) = line.strip_prefix('<')?.split_once('>')?;
    // The upper bits are the facility.
    Some(level.parse::<u32>().ok()? & 7)
}

/// Whether a raw line of the kernel's log is a warning or worse.
fn is_warning(line: &str) -> bool {
    level(line).is_some_and(|level| level <= WARNING)
}

#[cfg(test)]
mod tests;
