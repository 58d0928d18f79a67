//! The paravirtual clock of Xen and KVM: a TSC reading, the system time at
//! that reading, and a factor (Xen, `public/xen.h`, `vcpu_time_info`).

/// One copy of the hypervisor's time record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Odd while the hypervisor is writing.
    pub version: u32,
    /// TSC at the last update, in cycles.
    pub tsc_timestamp: u64,
    /// System time at the last update, in nanoseconds.
    pub system_time: u64,
    /// Nanoseconds per (shifted) cycle, as a fraction of 2^32.
    pub multiplier: u32,
    /// Left shift of the cycles before multiplying; negative: right.
    pub shift: i8,
}

impl Sample {
    /// System time in nanoseconds when the TSC reads `tsc`, before or after the
    /// update; saturating whatever the factors are.
    ///
    /// Both TSC values wrap around: a guest's TSC starts near zero, and the
    /// update may lie before that.
    pub fn ns_at(&self, tsc: u64) -> u64 {
        let elapsed = tsc.wrapping_sub(self.tsc_timestamp).cast_signed();
        let ns = self.cycles_to_ns(elapsed.unsigned_abs());
        match elapsed < 0 {
            true => self.system_time.saturating_sub(ns),
            false => self.system_time.saturating_add(ns),
        }
    }

    fn cycles_to_ns(&self, cycles: u64) -> u64 {
        let by = u32::from(self.shift.unsigned_abs()).min(64);
        let cycles = u128::from(cycles);
        let shifted = match self.shift < 0 {
            true => cycles >> by,
            false => cycles << by,
        };
        let ns = shifted.saturating_mul(self.multiplier.into()) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// The record kept changing: the hypervisor never left it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

/// Tries before giving up: an update takes nanoseconds, on a CPU that is
/// ours while it happens.
const TRIES: u32 = 1000;

/// Reads until a copy is consistent: `version` before and after `copy` is the
/// same even number.
///
/// # Errors
/// [`Torn`] after a bounded number of tries.
pub fn read_stable(
    version: impl Fn() -> u32,
    mut copy: impl FnMut() -> Sample,
) -> Result<Sample, Torn> {
    for _ in 0..TRIES {
        let before = version();
        let sample = copy();
        if before.is_multiple_of(2) && version() == before {
            return Ok(Sample {
                version: before,
                ..sample
            });
        }
        core::hint::spin_loop();
    }
    Err(Torn)
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const GHZ_2: Sample = Sample {
        version: 2,
        tsc_timestamp: 1_000_000,
        system_time: 5_000,
        multiplier: 1 << 31,
        shift: 0,
    };

    #[test]
    fn scales_cycles_to_nanoseconds() {
        assert_eq!(GHZ_2.ns_at(1_000_000), 5_000);
        assert_eq!(GHZ_2.ns_at(1_002_000), 6_000);
        assert_eq!(Sample { shift: 2, ..GHZ_2 }.ns_at(1_002_000), 9_000);
        assert_eq!(Sample { shift: -1, ..GHZ_2 }.ns_at(1_002_000), 5_500);
    }

    #[test]
    fn a_tsc_before_the_update_is_earlier() {
        assert_eq!(GHZ_2.ns_at(998_000), 4_000);
        assert_eq!(GHZ_2.ns_at(3), 0);
    }

    #[test]
    fn an_update_before_the_guests_tsc_started_counts_through_zero() {
        let early = Sample {
            tsc_timestamp: u64::MAX - 999,
            ..GHZ_2
        };
        assert_eq!(early.ns_at(1000), 6_000);
    }

    #[test]
    fn an_update_under_way_is_waited_for() {
        let version = Cell::new(1);
        let read = || version.replace(version.get() + 1).min(4);
        let sample = read_stable(read, || GHZ_2).expect("even and stable after some reads");
        assert_eq!(sample.version, 4);
    }

    #[test]
    fn an_endless_update_ends_in_an_error() {
        assert_eq!(read_stable(|| 7, || GHZ_2), Err(Torn));
        let version = Cell::new(0);
        let moving = || version.replace(version.get() + 2);
        assert_eq!(read_stable(moving, || GHZ_2), Err(Torn));
    }

    proptest! {
        /// No factors that a host can write make it panic, or go back while
        /// the TSC goes on.
        #[test]
        fn any_factors_are_safe(
            timestamp: u64, system_time: u64, multiplier: u32, shift: i8,
            from in any::<i64>(), step in 0u64..1 << 62,
        ) {
            let sample = Sample {
                version: 0, tsc_timestamp: timestamp, system_time, multiplier, shift,
            };
            let from = from / 2;
            let early = timestamp.wrapping_add_signed(from);
            let late = timestamp.wrapping_add_signed(from.saturating_add_unsigned(step));
            prop_assert!(sample.ns_at(early) <= sample.ns_at(late));
        }

        /// With sane factors it agrees with floating point.
        #[test]
        fn agrees_with_floating_point(mhz in 500u32..6000, cycles in 0u64..1 << 50) {
            let per_cycle = 1000.0 / f64::from(mhz);
            let shift = if per_cycle >= 1.0 { 1 } else { 0 };
            let scaled = per_cycle / f64::from(1u32 << shift) * 4_294_967_296.0;
            let sample = Sample {
                version: 0, tsc_timestamp: 0, system_time: 0, multiplier: scaled as u32, shift,
            };
            let want = cycles as f64 * per_cycle;
            let got = sample.ns_at(cycles) as f64;
            prop_assert!((got - want).abs() <= want * 1e-6 + 2.0, "{got} is not {want}");
        }
    }
}
