//! Memory that the host may reach: a list of frames, told in as many messages as
//! it takes.

use super::wait::Key;
use super::{BusError, Vmbus, succeeded};
use crate::hal::Hal;
use crate::wire::hypercall::PAYLOAD;
use crate::wire::vmbus::{
    BODY_FRAMES, GpadlBody, GpadlHeader, GpadlTeardown, HEADER_FRAMES, Header, Kind,
};
use core::ops::Range;
use firn_block::shm::Region;
use firn_task::Instant;
use zerocopy::IntoBytes;

/// Most pages of one GPADL: the length of its list has 16 bits.
const MOST_PAGES: usize = (u16::MAX as usize - 8) / 8;

impl<H: Hal> Vmbus<H> {
    /// Describes a region to the host, for a channel.
    ///
    /// # Errors
    /// [`BusError`]. After [`BusError::Deadline`] the host may have it all the
    /// same, or get it yet.
    pub(super) async fn create_gpadl(
        &self,
        relid: u32,
        region: &Region,
        until: Instant,
    ) -> Result<u32, BusError> {
        let pages = region.page_count();
        if pages == 0 || pages > MOST_PAGES {
            return Err(BusError::NoMemory);
        }
        let gpadl = self.next_gpadl.get();
        self.next_gpadl.set(gpadl.wrapping_add(1).max(1));
        let header = GpadlHeader {
            header: Header::new(Kind::GPADL_HEADER),
            relid,
            gpadl,
            range_bytes: (8 + 8 * pages) as u16,
            range_count: 1,
            bytes: region.len() as u32,
            offset: 0,
        };
        self.gpadls.set(self.gpadls.get() + 1);
        let key = Key::Created(gpadl);
        let expected = self.waiting.expect(key);
        let first = 0..pages.min(HEADER_FRAMES);
        let mut next = first.end;
        self.send_frames(Kind::GPADL_HEADER, header.as_bytes(), region, first, until)
            .await?;
        let mut number = 0;
        while next < pages {
            let body = GpadlBody {
                header: Header::new(Kind::GPADL_BODY),
                number,
                gpadl,
            };
            let frames = next..pages.min(next + BODY_FRAMES);
            next = frames.end;
            self.send_frames(Kind::GPADL_BODY, body.as_bytes(), region, frames, until)
                .await?;
            number += 1;
        }
        let reply = self.reply(&expected, key, Some(relid), until).await;
        let created = reply.and_then(|reply| succeeded(key, reply));
        if matches!(created, Err(BusError::Refused(..) | BusError::Rescinded)) {
            self.forget_gpadl();
        }
        created.map(|()| gpadl)
    }

    /// Sends a head and the frames of some pages after it.
    async fn send_frames(
        &self,
        kind: Kind,
        head: &[u8],
        region: &Region,
        pages: Range<usize>,
        until: Instant,
    ) -> Result<(), BusError> {
        let mut message = [0; PAYLOAD];
        message[..head.len()].copy_from_slice(head);
        let mut end = head.len();
        for page in pages {
            let frame = self.hv.hal.gfn(region, page).0.to_le_bytes();
            message[end..end + 8].copy_from_slice(&frame);
            end += 8;
        }
        self.send(kind, &message[..end], until).await
    }

    fn forget_gpadl(&self) {
        self.gpadls.set(self.gpadls.get().saturating_sub(1));
    }

    /// Takes a region back: afterwards the host cannot reach it. A host that
    /// takes the channel back lets go by itself.
    ///
    /// # Errors
    /// [`BusError`]: the host may still reach it.
    pub(super) async fn tear_down_gpadl(
        &self,
        relid: u32,
        gpadl: u32,
        until: Instant,
    ) -> Result<(), BusError> {
        let kind = Kind::GPADL_TEARDOWN;
        let message = GpadlTeardown {
            header: Header::new(kind),
            relid,
            gpadl,
        };
        let torn_down = async {
            if self.is_rescinded(relid) {
                return self.check();
            }
            let key = Key::Torndown(gpadl);
            let reply = self.ask(kind, message.as_bytes(), key, Some(relid), until);
            match reply.await {
                Ok(reply) => succeeded(key, reply),
                Err(BusError::Rescinded) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let torn_down = torn_down.await;
        if torn_down.is_ok() {
            self.forget_gpadl();
        }
        torn_down
    }
}
