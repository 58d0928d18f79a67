//! Where physical memory appears: three windows of virtual addresses.

use core::ops::Range;

use super::PAGE;

/// The image (code, statics, stacks): physical address plus this. Where
/// `boot/linker.ld` links it.
pub const IMAGE_WINDOW: u64 = 0xffff_ffff_8000_0000;
/// Boot memory (heap, frames, shared pages): physical address plus this. Maps
/// the first 4 GiB. `boot/src/entry.s` puts it into slot 288 of the top table.
pub const BOOT_WINDOW: u64 = 0xffff_9000_0000_0000;
/// Job memory begins here in every boot, wherever its frames lie, so that the
/// pointers inside a frozen heap still fit after a restore.
pub const JOB_WINDOW: u64 = 0x0000_1000_0000_0000;

const BOOT_WINDOW_BYTES: u64 = 4 << 30;
const IMAGE_WINDOW_BYTES: u64 = 4 << 20;

/// The windows of this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    job: Range<u64>,
}

impl Windows {
    /// Windows with job memory in the physical range `job`.
    pub const fn new(job: Range<u64>) -> Self {
        Self { job }
    }

    /// The physical address behind virtual address `addr`, or `None` if it is
    /// in no window.
    pub fn physical(&self, addr: u64) -> Option<u64> {
        let inside = |base: u64, bytes: u64| addr.checked_sub(base).filter(|&o| o < bytes);
        inside(JOB_WINDOW, self.job.end - self.job.start)
            .map(|offset| self.job.start + offset)
            .or_else(|| inside(BOOT_WINDOW, BOOT_WINDOW_BYTES))
            .or_else(|| inside(IMAGE_WINDOW, IMAGE_WINDOW_BYTES))
    }

    /// The guest frame number behind `addr`: what grants and hypercalls want.
    pub fn frame(&self, addr: u64) -> Option<u64> {
        self.physical(addr).map(|p| p / PAGE)
    }

    /// Job memory as virtual addresses.
    pub fn job_memory(&self) -> Range<u64> {
        JOB_WINDOW..JOB_WINDOW + (self.job.end - self.job.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_translates_and_nothing_else_does() {
        let windows = Windows::new(0x80_0000..0x180_0000);
        assert_eq!(windows.physical(JOB_WINDOW), Some(0x80_0000));
        assert_eq!(windows.physical(JOB_WINDOW + 0xff_ffff), Some(0x17f_ffff));
        assert_eq!(windows.physical(JOB_WINDOW + 0x100_0000), None);
        assert_eq!(
            windows.physical(BOOT_WINDOW + 0xf000_0123),
            Some(0xf000_0123)
        );
        assert_eq!(windows.physical(BOOT_WINDOW + (4 << 30)), None);
        assert_eq!(windows.physical(IMAGE_WINDOW + 0x10_0000), Some(0x10_0000));
        assert_eq!(windows.physical(IMAGE_WINDOW + (4 << 20)), None);
        assert_eq!(windows.frame(BOOT_WINDOW + 0x5fff), Some(5));
        for stray in [
            0,
            0x1000,
            0x10_0000,
            JOB_WINDOW - 1,
            BOOT_WINDOW - 1,
            u64::MAX,
        ] {
            assert_eq!(windows.physical(stray), None, "{stray:#x}");
        }
    }
}
