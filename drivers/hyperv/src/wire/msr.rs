//! Synthetic MSRs (TLFS, appendix B).

firn_block::open_enum! {
    /// One MSR.
    pub enum Msr: u32 {
        /// Who the guest is; not zero before [`Msr::HYPERCALL`] is enabled.
        GUEST_OS_ID = 0x4000_0000 => "GUEST_OS_ID",
        /// Where the hypercall page is: [`ENABLE`] and a frame.
        HYPERCALL = 0x4000_0001 => "HYPERCALL",
        /// The number of this virtual processor.
        VP_INDEX = 0x4000_0002 => "VP_INDEX",
        /// Time in units of 100 ns.
        TIME_REF_COUNT = 0x4000_0020 => "TIME_REF_COUNT",
        /// The page by which the TSC tells the time: [`ENABLE`] and a frame.
        REFERENCE_TSC = 0x4000_0021 => "REFERENCE_TSC",
        /// Ticks of the TSC in a second.
        TSC_FREQUENCY = 0x4000_0022 => "TSC_FREQUENCY",
        /// Ticks of the local APIC's timer in a second.
        APIC_FREQUENCY = 0x4000_0023 => "APIC_FREQUENCY",
        /// Whether the SynIC is on: [`ENABLE`].
        SCONTROL = 0x4000_0080 => "SCONTROL",
        /// The page of event flags: [`ENABLE`] and a frame.
        SIEFP = 0x4000_0082 => "SIEFP",
        /// The page of messages: [`ENABLE`] and a frame.
        SIMP = 0x4000_0083 => "SIMP",
        /// Written when a message slot was emptied while more wait.
        EOM = 0x4000_0084 => "EOM",
        /// The interrupt source of VMBus.
        SINT2 = 0x4000_0092 => "SINT2",
        /// What a crash was, as the guest likes.
        CRASH_P0 = 0x4000_0100 => "CRASH_P0",
        /// More of it.
        CRASH_P1 = 0x4000_0101 => "CRASH_P1",
        /// More of it.
        CRASH_P2 = 0x4000_0102 => "CRASH_P2",
        /// Where its text is, with [`CRASH_MESSAGE`].
        CRASH_P3 = 0x4000_0103 => "CRASH_P3",
        /// How long its text is, with [`CRASH_MESSAGE`].
        CRASH_P4 = 0x4000_0104 => "CRASH_P4",
        /// Tells of it.
        CRASH_CTL = 0x4000_0105 => "CRASH_CTL",
    }
}

/// The bit that turns a page or the SynIC on.
pub const ENABLE: u64 = 1;
/// Where the frame's number begins.
pub const FRAME_SHIFT: u32 = 12;
/// The vector of an interrupt source.
pub const SINT_VECTOR: u64 = 0xff;
/// Messages and events without interrupts.
pub const SINT_POLLING: u64 = 1 << 18;
/// An interrupt source that is off.
pub const SINT_MASKED: u64 = 1 << 16;
/// The interrupt ends by itself.
pub const SINT_AUTO_EOI: u64 = 1 << 17;

/// In [`Msr::CRASH_CTL`]: the guest has crashed.
pub const CRASH_NOTIFY: u64 = 1 << 63;
/// In [`Msr::CRASH_CTL`]: there is a text.
pub const CRASH_MESSAGE: u64 = 1 << 62;

/// Open source (bit 63), of a type that no vendor has (bits 62 to 56), version
/// of the guest in bits 47 to 16.
pub const FIRN_OS_ID: u64 = 1 << 63 | 0x66 << 56 | 1 << 16;
