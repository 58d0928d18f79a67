//! Where the ACPI PM block lies, for the ports and for the table that tells of it.

/// PM1a event block: status and enable, 16 bits each.
pub const EVENT: u16 = 0x400;
/// PM1a control block, 16 bits.
pub const CONTROL: u16 = 0x404;
/// The PM timer, 32 bits.
pub const TIMER: u16 = 0x408;
/// Behind the last port of the block.
pub const END: u16 = 0x40c;
/// Ticks of the PM timer in a second.
pub const TIMER_HZ: u64 = 3_579_545;
/// In [`CONTROL`]: events come by SCI, so ACPI is on.
pub const SCI_ENABLE: u16 = 1;
/// In [`CONTROL`]: go to sleep now.
pub const SLEEP_ENABLE: u16 = 1 << 13;
/// In [`CONTROL`], shifted by [`SLEEP_TYPE_SHIFT`]: off (S5).
pub const SLEEP_OFF: u16 = 0;
/// Where the type of sleep is in [`CONTROL`]; three bits.
pub const SLEEP_TYPE_SHIFT: u32 = 10;

/// The reset register: [`RESET_NOW`] resets.
pub const RESET: u16 = 0xcf9;
/// What is written to [`RESET`].
pub const RESET_NOW: u8 = 6;
