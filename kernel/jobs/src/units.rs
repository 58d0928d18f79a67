//! Sizes and times as people write them.

use core::fmt;
use core::time::Duration;

/// A byte count in the largest binary unit that reads well: `64 MiB`,
/// `1.50 GiB`, `512 bytes`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let fits = UNITS.iter().find(|(_, shift)| self.0 >> shift != 0);
        let Some((unit, shift)) = fits else {
            return write!(f, "{} bytes", self.0);
        };
        let whole = self.0 >> shift;
        let hundredths = ((u128::from(self.0) * 100) >> shift) % 100;
        match (hundredths, self.0.trailing_zeros() >= *shift) {
            (_, true) => write!(f, "{whole} {unit}"),
            (hundredths, false) => write!(f, "{whole}.{hundredths:02} {unit}"),
        }
    }
}

/// A duration with three significant places: `1.23 s`, `456 us`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, name) = match nanos {
            0..1_000 => return write!(f, "{nanos} ns"),
            1_000..1_000_000 => (1_000, "us"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let (whole, thousandths) = (nanos / unit, nanos % unit * 1000 / unit);
        match whole {
            0..10 => write!(f, "{whole}.{:02} {name}", thousandths / 10),
            10..100 => write!(f, "{whole}.{} {name}", thousandths / 100),
            _ => write!(f, "{whole} {name}"),
        }
    }
}

/// A share with three places, rounded: `0.125`. Printing it as a float would take
/// 20 KiB of code.
#[derive(Clone, Copy)]
pub(crate) struct Thousandths(u64);

impl Thousandths {
    /// `count` divided by `by`.
    pub(crate) fn of(count: u64, by: u64) -> Self {
        let by = u128::from(by.max(1));
        let thousandths = (u128::from(count) * 1000 + by / 2) / by;
        Self(u64::try_from(thousandths).unwrap_or(u64::MAX))
    }

    /// To the next whole number.
    pub(crate) const fn rounded(self) -> u64 {
        self.0 / 1000 + (self.0 % 1000 >= 500) as u64
    }

    /// As a number for programs.
    pub(crate) fn number(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Seconds with microseconds, as a number for programs.
pub(crate) fn seconds(duration: Duration) -> f64 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    micros as f64 / 1e6
}

/// `amount` per second over `duration`; zero for no time at all.
pub(crate) fn per_second(amount: u64, duration: Duration) -> f64 {
    let seconds = duration.as_nanos() as f64 / 1e9;
    if seconds > 0.0 {
        amount as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn sizes_and_times_read_well() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (512, "512 bytes"),
            (4096, "4 KiB"),
            (64 << 20, "64 MiB"),
            ((3 << 30) / 2, "1.50 GiB"),
            (u64::MAX, "16777215.99 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.50 us"),
            (45_678, "45.6 us"),
            (456_789_000, "456 ms"),
            (1_234_000_000, "1.23 s"),
            (75_000_000_000, "75.0 s"),
        ] {
            assert_eq!(Span(Duration::from_nanos(nanos)).to_string(), text);
        }
        for (count, by, text, rounded) in [
            (0, 5, "0.000", 0),
            (1, 8, "0.125", 0),
            (2, 3, "0.667", 1),
            (10_499, 1000, "10.499", 10),
            (7, 0, "7.000", 7),
        ] {
            let share = Thousandths::of(count, by);
            assert_eq!(
                (share.to_string().as_str(), share.rounded()),
                (text, rounded)
            );
        }
        assert_eq!(Thousandths::of(1, 8).number(), 0.125);
        assert_eq!(seconds(Duration::from_nanos(1_234_567_890)), 1.234_567);
        assert_eq!(per_second(10, Duration::ZERO), 0.0);
        assert_eq!(per_second(10, Duration::from_millis(500)), 20.0);
    }
}
