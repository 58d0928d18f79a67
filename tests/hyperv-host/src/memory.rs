//! The guest's memory: the one place of this program with unsafe code.
//!
//! It is mapped once and never unmapped, so that the peers' [`Region`]s and KVM's
//! slot stay valid for as long as the program runs.
#![expect(
    unsafe_code,
    reason = "guest memory is given to KVM and to the peers by address"
)]

use std::ptr::NonNull;

use anyhow::{Context, Result};
use firn_block::shm::Region;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Everything below the local APIC, and more than any job needs.
const MOST_MIB: u32 = 3072;

/// The guest's memory, from address 0 on without a hole.
pub struct Memory {
    map: &'static GuestMemoryMmap,
    region: Region,
}

impl Memory {
    /// Maps so many MiB of zeros.
    ///
    /// # Errors
    /// There is not that much memory, or it is too much or too little for a guest.
    pub fn new(mib: u32) -> Result<Self> {
        anyhow::ensure!(
            (2..=MOST_MIB).contains(&mib),
            "{mib} MiB of memory: a guest can have 2 to {MOST_MIB}"
        );
        let bytes = (mib as usize) << 20;
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)])
            .with_context(|| format!("{mib} MiB for the guest"))?;
        let map: &'static GuestMemoryMmap = Box::leak(Box::new(map));
        let base = map.get_host_address(GuestAddress(0))?;
        let base = NonNull::new(base).context("memory at address 0")?;
        // SAFETY: `map` is leaked, so the memory stays valid for ever. Whoever loads
        // a kernel writes through `map` before the guest and the peers look at it;
        // after that it is reached through regions (and by the guest) only.
        let region = unsafe { Region::new(base, bytes) };
        Ok(Self { map, region })
    }

    /// For whoever fills it before the guest starts.
    #[must_use]
    pub fn map(&self) -> &GuestMemoryMmap {
        self.map
    }

    /// For whoever shares it with the guest.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.region.len() as u64
    }

    /// Makes it the guest's.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn give_to(&self, vm: &VmFd) -> Result<()> {
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.bytes(),
            userspace_addr: self.region.addr() as u64,
        };
        // SAFETY: the range is the leaked map's, so it is mapped for as long as the
        // guest can exist, and the only slot, so none overlaps.
        unsafe { vm.set_user_memory_region(slot) }.context("giving KVM the guest's memory")
    }
}
