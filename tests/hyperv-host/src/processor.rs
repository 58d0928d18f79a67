//! What the guest's processor says of itself.

use std::ops::Range;

use anyhow::Result;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

use crate::partition::Partition;

/// Hypervisor leaves of CPUID, KVM's own among them.
const HYPERVISOR_LEAVES: Range<u32> = 0x4000_0000..0x4001_0000;
/// In `ecx` of leaf 1: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;

/// What a compatible processor keeps of `ecx` of leaf 1: SSE3, CMPXCHG16B, x2APIC,
/// the TSC deadline, the hypervisor.
const COMPATIBLE_C1: u32 = 1 | 1 << 13 | 1 << 21 | 1 << 24 | HYPERVISOR;
/// Of `ecx` of leaf 0x8000_0001: LAHF in long mode.
const COMPATIBLE_CE: u32 = 1;
/// Of `edx` of leaf 0x8000_0001: what repeats leaf 1, SYSCALL, NX, long mode.
const COMPATIBLE_DE: u32 = 0x0183_f3ff | 1 << 11 | 1 << 20 | 1 << 29;

/// What KVM can do, with our hypervisor's leaves instead of its own; what every
/// 64-bit processor can do if it is to be `compatible`.
///
/// # Errors
/// KVM does not tell.
pub fn cpuid(kvm: &Kvm, partition: &Partition, compatible: bool) -> Result<CpuId> {
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let others = supported.as_slice().iter().copied();
    let mut all: Vec<_> = others
        .filter(|entry| !HYPERVISOR_LEAVES.contains(&entry.function))
        .collect();
    for entry in &mut all {
        if entry.function == 1 {
            entry.ecx |= HYPERVISOR;
            // One processor, number 0.
            entry.ebx = entry.ebx & 0xff00 | 1 << 16;
        }
        if compatible {
            level(entry);
        }
    }
    all.extend(partition.leaves().map(|(function, leaf)| kvm_cpuid_entry2 {
        function,
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
        ..kvm_cpuid_entry2::default()
    }));
    Ok(CpuId::from_entries(&all)?)
}

/// Hides instructions that some 64-bit processor does not have.
fn level(entry: &mut kvm_cpuid_entry2) {
    match entry.function {
        1 => entry.ecx &= COMPATIBLE_C1,
        // New instructions, and the state that some of them need.
        7 | 0xd => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        0x8000_0001 => {
            entry.ecx &= COMPATIBLE_CE;
            entry.edx &= COMPATIBLE_DE;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leveled(function: u32) -> [u32; 3] {
        let mut entry = kvm_cpuid_entry2 {
            function,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..kvm_cpuid_entry2::default()
        };
        level(&mut entry);
        [entry.ebx, entry.ecx, entry.edx]
    }

    #[test]
    fn a_compatible_processor_has_what_all_have() {
        let [_, ecx, edx] = leveled(1);
        let (sse3, cx16, ssse3, xsave, avx) = (1, 1 << 13, 1 << 9, 1 << 26, 1 << 28);
        assert_eq!(ecx & (sse3 | cx16 | HYPERVISOR), sse3 | cx16 | HYPERVISOR);
        assert_eq!((ecx & (ssse3 | xsave | avx), edx), (0, u32::MAX));
        assert_eq!((leveled(7), leveled(0xd)), ([0; 3], [0; 3]));
        let [_, ecx, edx] = leveled(0x8000_0001);
        let (syscall, nx, large, rdtscp, long) = (1 << 11, 1 << 20, 1 << 26, 1 << 27, 1 << 29);
        assert_eq!(edx & (syscall | nx | long), syscall | nx | long);
        assert_eq!((edx & (large | rdtscp), ecx), (0, 1));
        assert_eq!(leveled(0)[0], u32::MAX);
    }
}
