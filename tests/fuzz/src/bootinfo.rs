//! Boot protocols: the bytes are physical memory, from address 0 on.

use firn_kernel::bootinfo::{BootInfo, EntryKind, PhysMemory};

/// Physical memory that ends where the input ends.
struct Memory<'a>(&'a [u8]);

impl PhysMemory for Memory<'_> {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        let start = usize::try_from(addr).ok();
        let bytes = start.and_then(|start| self.0.get(start..)?.get(..into.len()));
        bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    for kind in [EntryKind::Pvh, EntryKind::Linux, EntryKind::Multiboot2] {
        if let Ok(info) = BootInfo::parse(kind, 0, &Memory(data)) {
            let sane = |entry: &firn_kernel::bootinfo::MemoryEntry| {
                entry.size > 0 && entry.start.checked_add(entry.size).is_some()
            };
            assert!(info.memory.iter().all(sane), "{:?}", info.memory);
            let ends =
                |module: &firn_kernel::bootinfo::Module| module.start.checked_add(module.size);
            assert!(
                info.modules.iter().all(|m| ends(m).is_some()),
                "{:?}",
                info.modules
            );
            let _ = firn_kernel::cmdline::parse(&info.command_line, |_| {});
        }
    }
}
