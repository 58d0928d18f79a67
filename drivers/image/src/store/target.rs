//! The memory that an image is read into.

use super::Table;
use crate::Error;
use core::cell::Cell;
use firn_block::PAGE;
use firn_block::shm::Region;

/// Memory to read one image into, once. The pages that the image does not hold
/// become zero: whoever waits for something else can do that meanwhile, and
/// [`super::Store::load`] does what is left.
pub struct Target<'a> {
    pub(super) table: &'a Table,
    pub(super) memory: Region,
    /// The next chunk of which pages become zero.
    next: Cell<usize>,
}

impl<'a> Target<'a> {
    /// Everything in `memory` is to be overwritten; it is as long as the saved one.
    ///
    /// # Errors
    /// [`Error::Order`] where it is not.
    pub fn new(table: &'a Table, memory: &Region) -> Result<Self, Error> {
        if memory.len() as u64 != table.header().heap.bytes {
            return Err(Error::Order("the memory is not as long as the saved one"));
        }
        Ok(Self {
            table,
            memory: memory.alias(),
            next: Cell::new(0),
        })
    }

    /// Makes the pages of one chunk zero that the image does not hold; false
    /// where all are.
    pub fn zero_some(&self) -> bool {
        let index = self.next.get();
        let Some(absent) = self.table.absent(index) else {
            return false;
        };
        absent.for_each(|page| self.memory.zero(page * PAGE, PAGE));
        self.next.set(index + 1);
        true
    }
}
