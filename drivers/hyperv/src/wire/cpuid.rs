//! CPUID leaves by which the hypervisor says what it is (TLFS, chapter 2).

/// What one leaf answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// The register of that name.
    pub eax: u32,
    /// The register of that name.
    pub ebx: u32,
    /// The register of that name.
    pub ecx: u32,
    /// The register of that name.
    pub edx: u32,
}

/// The highest hypervisor leaf in `eax`; the vendor in `ebx`, `ecx`, `edx`.
pub const VENDOR: u32 = 0x4000_0000;
/// The interface's signature in `eax`.
pub const INTERFACE: u32 = 0x4000_0001;
/// What the partition may use; [`privilege`] in `eax`.
pub const FEATURES: u32 = 0x4000_0003;
/// What the hypervisor advises; [`advice`] in `eax`.
pub const RECOMMENDATIONS: u32 = 0x4000_0004;

/// "Microsoft Hv" in `ebx`, `ecx`, `edx` of [`VENDOR`].
pub const MICROSOFT_HV: [u32; 3] = [0x7263_694d, 0x666f_736f, 0x7648_2074];
/// "Hv#1" in `eax` of [`INTERFACE`].
pub const HV_1: u32 = 0x3123_7648;

/// Bit of `edx` in [`FEATURES`]: a crash can be told of.
pub const CRASH_MSRS: u32 = 1 << 10;

/// Bit of `edx` in [`FEATURES`]: clocks' frequencies can be read.
pub const FREQUENCY_MSRS: u32 = 1 << 8;

/// Bits of `eax` in [`FEATURES`].
pub mod privilege {
    /// The reference counter.
    pub const REFERENCE_COUNTER: u32 = 1 << 1;
    /// The SynIC's MSRs.
    pub const SYNIC: u32 = 1 << 2;
    /// Synthetic timers.
    pub const TIMERS: u32 = 1 << 3;
    /// The hypercall MSRs.
    pub const HYPERCALL: u32 = 1 << 5;
    /// The number of the virtual processor.
    pub const VP_INDEX: u32 = 1 << 6;
    /// The reference TSC page.
    pub const REFERENCE_TSC: u32 = 1 << 9;
    /// The frequencies of clocks.
    pub const FREQUENCIES: u32 = 1 << 11;
}

/// Bits of `eax` in [`RECOMMENDATIONS`].
pub mod advice {
    /// Not to use auto-EOI.
    pub const NO_AUTO_EOI: u32 = 1 << 9;
}
