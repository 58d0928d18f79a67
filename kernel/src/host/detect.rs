//! Which hypervisor this is, by its CPUID leaves from 0x4000_0000 on.
//!
//! Hypervisors that imitate another one show both: Xen with Hyper-V
//! enlightenments moves its own leaves up by 0x100 (Xen,
//! `public/arch-x86/cpuid.h`), KVM does the same. So all bases are looked at,
//! and Xen is preferred.

use core::fmt;

const FIRST: u32 = 0x4000_0000;
const STEP: u32 = 0x100;
const BASES: u32 = 256;
const HYPERVISOR_BIT: u32 = 1 << 31;
/// In leaf 4 of Xen's, EAX.
const DOMID_PRESENT: u32 = 1 << 4;

/// What CPUID says of the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// Xen, with the version of its CPUID leaf and the leaves' base.
    Xen {
        /// Base of Xen's leaves.
        base: u32,
        /// Major and minor version.
        version: (u16, u16),
        /// It does not tell the guest its domain id, as Xen does since 4.10
        /// (`XEN_HVM_CPUID_DOMID_PRESENT`): another hypervisor imitates Xen.
        imitated: bool,
    },
    /// Microsoft's Hyper-V interface.
    HyperV,
    /// KVM, without the Xen or Hyper-V interface.
    Kvm,
    /// A hypervisor with another signature.
    Unknown([u8; 12]),
    /// The processor says it is not virtual.
    None,
}

/// Finds out, given a function that executes CPUID (subleaf 0) and returns
/// `[eax, ebx, ecx, edx]`.
pub fn detect(cpuid: impl Fn(u32) -> [u32; 4]) -> Hypervisor {
    let virtual_machine = cpuid(1)[2] & HYPERVISOR_BIT != 0;
    if !virtual_machine {
        return Hypervisor::None;
    }
    for base in (0..BASES).map(|i| FIRST + i * STEP) {
        if signature(cpuid(base)) == *b"XenVMMXenVMM" {
            let version = cpuid(base + 1)[0];
            let version = ((version >> 16) as u16, version as u16);
            return Hypervisor::Xen {
                base,
                version,
                imitated: cpuid(base + 4)[0] & DOMID_PRESENT == 0,
            };
        }
    }
    match signature(cpuid(FIRST)) {
        s if s == *b"Microsoft Hv" => Hypervisor::HyperV,
        s if s == *b"KVMKVMKVM\0\0\0" => Hypervisor::Kvm,
        s => Hypervisor::Unknown(s),
    }
}

fn signature([_, b, c, d]: [u32; 4]) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes.copy_from_slice([b, c, d].map(u32::to_le_bytes).as_flattened());
    bytes
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen {
                version: (major, minor),
                ..
            } => write!(f, "Xen {major}.{minor}"),
            Self::HyperV => write!(f, "Hyper-V"),
            Self::Kvm => write!(f, "KVM"),
            Self::Unknown(signature) => {
                write!(f, "an unknown hypervisor '{}'", signature.escape_ascii())
            }
            Self::None => write!(f, "no hypervisor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    /// A CPU that shows `signatures` (base, text) and, one leaf on, version 4.20.
    fn cpu(virtual_machine: bool, signatures: &[(u32, &[u8; 12])]) -> Hypervisor {
        detect(|leaf| match leaf {
            1 => [0, 0, if virtual_machine { HYPERVISOR_BIT } else { 0 }, 0],
            _ => {
                for &(base, text) in signatures {
                    let word = |i: usize| u32::from_le_bytes(text[i..i + 4].try_into().unwrap());
                    if leaf == base {
                        return [base + 5, word(0), word(4), word(8)];
                    }
                    if leaf == base + 1 {
                        return [4 << 16 | 20, 0, 0, 0];
                    }
                    if leaf == base + 4 {
                        return [DOMID_PRESENT, 0, 7, 0];
                    }
                }
                [0; 4]
            }
        })
    }

    #[test]
    fn xen_is_found_at_its_usual_base() {
        let xen = Hypervisor::Xen {
            base: FIRST,
            version: (4, 20),
            imitated: false,
        };
        assert_eq!(cpu(true, &[(FIRST, b"XenVMMXenVMM")]), xen);
        assert_eq!(xen.to_string(), "Xen 4.20");
    }

    #[test]
    fn xen_is_found_behind_hyper_v_leaves() {
        let both: [(u32, &[u8; 12]); 2] =
            [(FIRST, b"Microsoft Hv"), (FIRST + STEP, b"XenVMMXenVMM")];
        assert_eq!(
            cpu(true, &both),
            Hypervisor::Xen {
                base: FIRST + STEP,
                version: (4, 20),
                imitated: false,
            }
        );
    }

    #[test]
    fn an_imitation_of_xen_is_told_from_xen() {
        // As QEMU 10.0 does it over KVM.
        let found = detect(|leaf| match leaf {
            1 => [0, 0, HYPERVISOR_BIT, 0],
            FIRST => [FIRST + 4, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e],
            0x4000_0001 => [0x4_0011, 0, 0, 0],
            0x4000_0004 => [0x4f, 0, 0, 0],
            _ => [0; 4],
        });
        let imitation = Hypervisor::Xen {
            base: FIRST,
            version: (4, 17),
            imitated: true,
        };
        assert_eq!(found, imitation);
    }

    #[test]
    fn others_are_named() {
        assert_eq!(cpu(true, &[(FIRST, b"Microsoft Hv")]), Hypervisor::HyperV);
        assert_eq!(cpu(true, &[(FIRST, b"KVMKVMKVM\0\0\0")]), Hypervisor::Kvm);
        let tcg = cpu(true, &[(FIRST, b"TCGTCGTCGTCG")]);
        assert_eq!(tcg.to_string(), "an unknown hypervisor 'TCGTCGTCGTCG'");
        assert_eq!(
            cpu(true, &[]).to_string(),
            "an unknown hypervisor '\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'"
        );
    }

    #[test]
    fn leaves_without_the_hypervisor_bit_do_not_count() {
        assert_eq!(cpu(false, &[(FIRST, b"XenVMMXenVMM")]), Hypervisor::None);
    }
}
