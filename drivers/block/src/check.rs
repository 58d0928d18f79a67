//! What every request has to pass before a driver touches its ring.

use crate::accepted::Owner;
use crate::gate::{Admission, Lifecycle};
use crate::{Buffer, DiskInfo, Durability, Op, Request, SECTOR, Why};

impl Lifecycle {
    /// Asks the gate, before anything else happens.
    ///
    /// # Errors
    /// [`Why::NotLive`].
    pub const fn admit(self, owner: Owner) -> Result<(), Why> {
        let admission = match owner {
            Owner::Job => self.admits(),
            Owner::Kernel => self.admits_kernel(),
        };
        match admission {
            Admission::Accept | Admission::Queue => Ok(()),
            Admission::Refuse => Err(Why::NotLive(self)),
        }
    }
}

impl DiskInfo {
    /// Checks a request against what the disk is; `owns` says whether a buffer is
    /// registered with its queue, and may carry data.
    ///
    /// # Errors
    /// Why it cannot be carried out.
    pub fn check(&self, request: &Request, owns: impl FnOnce(&Buffer) -> bool) -> Result<(), Why> {
        if request.op.modifies() && self.read_only {
            return Err(Why::ReadOnly);
        }
        match request.op {
            Op::Flush if self.durability == Durability::None => {
                return Err(Why::Unsupported(request.op));
            }
            Op::Flush => return Ok(()),
            Op::Discard { secure } => {
                let offered = self.discard.is_some_and(|d| d.secure || !secure);
                if !offered {
                    return Err(Why::Unsupported(request.op));
                }
            }
            Op::Read | Op::Write => {}
        }
        self.check_range(request)?;
        if request.op.has_data() {
            self.check_buffer(request, owns)?;
        }
        Ok(())
    }

    fn check_range(&self, request: &Request) -> Result<(), Why> {
        let capacity = self.capacity;
        let end = request.sector.checked_add(request.sectors);
        if request.sectors == 0 || end.is_none_or(|end| end > capacity) {
            return Err(Why::OutOfRange { capacity });
        }
        let unit = self.logical_block;
        let sectors = u64::from(unit) / SECTOR;
        if !request.sector.is_multiple_of(sectors) || !request.sectors.is_multiple_of(sectors) {
            return Err(Why::Misaligned { unit });
        }
        Ok(())
    }

    fn check_buffer(
        &self,
        request: &Request,
        owns: impl FnOnce(&Buffer) -> bool,
    ) -> Result<(), Why> {
        let buffer = request.buffer.as_ref().ok_or(Why::NoRoomInBuffer)?;
        if !owns(buffer) {
            return Err(Why::ForeignBuffer);
        }
        let unit = self.logical_block;
        if !request.offset.is_multiple_of(unit as usize) {
            return Err(Why::Misaligned { unit });
        }
        let room = buffer.region().len().checked_sub(request.offset);
        if room.is_none_or(|room| request.bytes() > room as u64) {
            return Err(Why::NoRoomInBuffer);
        }
        Ok(())
    }
}
