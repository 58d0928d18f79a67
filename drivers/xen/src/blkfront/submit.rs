//! From an accepted request to entries on the ring.

use super::buffers;
use super::front::{Front, Indirect, Link};
use super::shadow::Piece;
use crate::Xen;
use crate::grant::Access;
use crate::hal::Hal;
use crate::wire::blkif::{
    self, DISCARD_SECURE, MAX_INDIRECT_PAGES, MAX_SEGMENTS, Operation, RequestDiscard,
    RequestIndirect, SEGMENTS_PER_INDIRECT_PAGE, Segment,
};
use firn_block::{Buffer, Durability, IoError, Op, PAGE, Parent, SECTOR};
use zerocopy::IntoBytes;

const SECTORS_PER_PAGE: usize = PAGE / SECTOR as usize;

/// What happened to the head of the unsent queue.
enum Sent {
    /// A piece is on the ring; more of the request may be left.
    Piece,
    /// Nothing could be sent now; a completion will make room.
    Later,
    /// It cannot be sent at all.
    Never(IoError),
}

impl<H: Hal> Front<H> {
    /// Puts unsent pieces on the ring, oldest first, while there is room.
    pub(super) fn fill_ring(&mut self) {
        if !self.gate.state().uses_ring() {
            return;
        }
        while let Some(index) = self.accepted.next_unsent() {
            match self.send_piece(index) {
                Sent::Piece => {}
                Sent::Later => return,
                Sent::Never(error) => self.accepted.give_up(index, error),
            }
            let parent = self.accepted.get(index);
            if parent.is_none_or(|parent| parent.all_sent) {
                self.accepted.pop_unsent();
                self.finish_parent(index);
            }
        }
    }

    fn send_piece(&mut self, index: u16) -> Sent {
        let Some(link) = &mut self.link else {
            return Sent::Later;
        };
        let Some(parent) = self.accepted.get_mut(index) else {
            return Sent::Later;
        };
        if parent.error.is_some() {
            // An earlier piece failed: the rest is not worth sending.
            parent.all_sent = true;
            return Sent::Piece;
        }
        if link.ring.free() == 0 {
            return Sent::Later;
        }
        let Some(slot) = link.shadow.take() else {
            return Sent::Later;
        };
        let mut granted = 0;
        let sent = match parent.request.op {
            Op::Read | Op::Write => {
                let buffers = &self.buffers;
                let scratch = &mut self.scratch;
                let permanent = |buffer: &Buffer, page| buffers::permanent(buffers, buffer, page);
                let described = describe(&self.xen, link, slot, parent, scratch, permanent);
                granted = link.shadow.kept(slot).len() as u64;
                match described {
                    0 => nothing_described(link),
                    sectors => {
                        push_data(link, self.number, slot, index, parent, scratch);
                        parent.sent += sectors;
                        parent.all_sent = parent.sent == parent.request.sectors;
                        Sent::Piece
                    }
                }
            }
            Op::Flush => {
                push_flush(link, self.number, slot, index, self.info.durability);
                parent.all_sent = true;
                Sent::Piece
            }
            Op::Discard { secure } => {
                push_discard(link, self.number, slot, index, parent, secure);
                parent.all_sent = true;
                Sent::Piece
            }
        };
        if matches!(sent, Sent::Piece) {
            parent.outstanding += 1;
            self.accepted.stats.ring_requests += 1;
        } else {
            link.shadow.put_back(slot);
        }
        self.accepted.stats.grant_operations += granted;
        sent
    }
}

/// No page could be granted: completions give references back, unless nothing
/// is in flight.
fn nothing_described(link: &Link) -> Sent {
    if link.ring.size() > link.ring.free() {
        Sent::Later
    } else {
        Sent::Never(IoError::DeviceFailed("no grant references left"))
    }
}

/// Describes the next part of a request as segments, with a grant for each
/// page: permanent ones, or ones that end with the piece. Returns how many
/// sectors that covers; fewer than fit where references ran out.
fn describe<H: Hal>(
    xen: &Xen<H>,
    link: &mut Link,
    slot: u16,
    parent: &Parent,
    segments: &mut alloc::vec::Vec<Segment>,
    permanent: impl Fn(&Buffer, usize) -> Option<crate::wire::grant_table::GrantRef>,
) -> u64 {
    segments.clear();
    let Some(buffer) = &parent.request.buffer else {
        return 0;
    };
    let access = match parent.request.op {
        Op::Write => Access::Read,
        _ => Access::ReadWrite,
    };
    let start = parent.request.offset / SECTOR as usize;
    let mut sector = start + usize::try_from(parent.sent).unwrap_or(usize::MAX);
    let end = start + usize::try_from(parent.request.sectors).unwrap_or(0);
    let mut covered = 0;
    while sector < end && segments.len() < link.segments {
        let page = sector / SECTORS_PER_PAGE;
        let grant = permanent(buffer, page).or_else(|| {
            let region = buffer.region();
            let grant = xen.grant_page(link.backend, region, page, access, "blk data");
            let grant = grant.ok()?;
            link.shadow.kept(slot).push(grant);
            Some(grant)
        });
        let Some(grant) = grant else { break };
        let first = sector % SECTORS_PER_PAGE;
        let count = (SECTORS_PER_PAGE - first).min(end - sector);
        segments.push(Segment {
            gref: grant.0,
            first_sect: first as u8,
            last_sect: (first + count - 1) as u8,
            pad: 0,
        });
        sector += count;
        covered += count as u64;
    }
    covered
}

fn push_data(
    link: &mut Link,
    handle: u32,
    slot: u16,
    index: u16,
    parent: &Parent,
    segments: &[Segment],
) {
    let operation = match parent.request.op {
        Op::Write => Operation::WRITE,
        _ => Operation::READ,
    };
    let sector_number = parent.request.sector + parent.sent;
    let piece = Piece {
        parent: index,
        operation,
    };
    let id = link.shadow.start(slot, piece);
    if segments.len() <= MAX_SEGMENTS {
        let mut request = request(operation, handle, id);
        request.nr_segments = segments.len() as u8;
        request.sector_number = sector_number;
        request.seg[..segments.len()].copy_from_slice(segments);
        link.ring.push(request.as_bytes());
    } else if let Some(indirect) = &link.indirect {
        let request = RequestIndirect {
            operation: Operation::INDIRECT.0,
            indirect_op: operation.0,
            nr_segments: segments.len() as u16,
            pad: 0,
            id,
            sector_number,
            handle: handle as u16,
            pad2: 0,
            indirect_grefs: fill_indirect(indirect, slot, segments),
            pad3: 0,
        };
        link.ring.push(request.as_bytes());
    }
}

/// Writes segments to the slot's own indirect pages; the pages' grants.
fn fill_indirect(
    indirect: &Indirect,
    slot: u16,
    segments: &[Segment],
) -> [u32; MAX_INDIRECT_PAGES] {
    let first = usize::from(slot) * indirect.pages_per_slot;
    let mut grants = [0; MAX_INDIRECT_PAGES];
    for (page, chunk) in segments.chunks(SEGMENTS_PER_INDIRECT_PAGE).enumerate() {
        let at = (first + page) * PAGE;
        indirect.memory.copy_in(at, chunk.as_bytes());
        grants[page] = indirect.grants[first + page].0;
    }
    grants
}

fn push_flush(link: &mut Link, handle: u32, slot: u16, index: u16, durability: Durability) {
    let operation = match durability {
        // An empty barrier makes everything before it durable.
        Durability::Barrier => Operation::WRITE_BARRIER,
        Durability::Flush | Durability::None => Operation::FLUSH_DISKCACHE,
    };
    let piece = Piece {
        parent: index,
        operation,
    };
    let id = link.shadow.start(slot, piece);
    link.ring.push(request(operation, handle, id).as_bytes());
}

fn push_discard(
    link: &mut Link,
    handle: u32,
    slot: u16,
    index: u16,
    parent: &Parent,
    secure: bool,
) {
    let operation = Operation::DISCARD;
    let piece = Piece {
        parent: index,
        operation,
    };
    let request = RequestDiscard {
        operation: operation.0,
        flag: if secure { DISCARD_SECURE } else { 0 },
        handle: handle as u16,
        pad: 0,
        id: link.shadow.start(slot, piece),
        sector_number: parent.request.sector,
        nr_sectors: parent.request.sectors,
    };
    link.ring.push(request.as_bytes());
}

/// A request without segments. The handle is 16 bits of the device number, as
/// all frontends send it; backends go by the ring.
fn request(operation: Operation, handle: u32, id: u64) -> blkif::Request {
    blkif::Request {
        operation: operation.0,
        nr_segments: 0,
        handle: handle as u16,
        pad: 0,
        id,
        sector_number: 0,
        seg: [Segment::default(); MAX_SEGMENTS],
    }
}
