//! Images on a disk in memory: friendly, full, failing, stuck, or cut off from
//! power at any request.

mod by_the_book;
mod commit;
mod damage;
mod disk;
mod faults;
mod guest;
mod partition;
mod round_trip;
mod seed;
