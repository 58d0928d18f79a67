//! Values that only the first CPU touches, in statics.

use core::ops::Deref;

/// A value in a static that need not be `Sync`, because one CPU runs Rust code.
///
/// Interrupt and exception stubs do not count: the former run no Rust, the
/// latter never return to what they interrupted. Whoever starts a second CPU
/// must make the uses of this type per-CPU first.
pub struct FirstCpu<T>(T);

// SAFETY: only the first CPU is ever started, so there is one thread of control
// and nothing is sent or shared between two.
unsafe impl<T> Sync for FirstCpu<T> {}
// SAFETY: as above.
unsafe impl<T> Send for FirstCpu<T> {}

impl<T> FirstCpu<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for FirstCpu<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
