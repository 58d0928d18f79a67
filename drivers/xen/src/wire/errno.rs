//! Error numbers that hypercalls and xenstore return (`errno.h`).

use super::open_enum;

open_enum! {
    /// A Xen error number, positive.
    pub enum Errno: u32 {
        /// Operation not permitted.
        EPERM = 1 => "EPERM",
        /// No such entry.
        ENOENT = 2 => "ENOENT",
        /// No such domain.
        ESRCH = 3 => "ESRCH",
        /// I/O error.
        EIO = 5 => "EIO",
        /// Argument list too long.
        E2BIG = 7 => "E2BIG",
        /// Try again; a transaction lost a race.
        EAGAIN = 11 => "EAGAIN",
        /// Out of memory.
        ENOMEM = 12 => "ENOMEM",
        /// Permission denied.
        EACCES = 13 => "EACCES",
        /// Bad guest address.
        EFAULT = 14 => "EFAULT",
        /// Busy.
        EBUSY = 16 => "EBUSY",
        /// Exists already.
        EEXIST = 17 => "EEXIST",
        /// Is a directory.
        EISDIR = 21 => "EISDIR",
        /// Invalid argument.
        EINVAL = 22 => "EINVAL",
        /// No space or quota left.
        ENOSPC = 28 => "ENOSPC",
        /// Read-only.
        EROFS = 30 => "EROFS",
        /// Not implemented by this hypervisor.
        ENOSYS = 38 => "ENOSYS",
        /// Not empty.
        ENOTEMPTY = 39 => "ENOTEMPTY",
        /// Already connected.
        EISCONN = 106 => "EISCONN",
        /// Timer expired.
        ETIME = 62 => "ETIME",
        /// Operation not supported.
        EOPNOTSUPP = 95 => "EOPNOTSUPP",
    }
}

impl Errno {
    /// The number behind a name that xenstore sends as text.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMED: &[Errno] = &[
            Errno::EPERM,
            Errno::ENOENT,
            Errno::ESRCH,
            Errno::EIO,
            Errno::E2BIG,
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EACCES,
            Errno::EFAULT,
            Errno::EBUSY,
            Errno::EEXIST,
            Errno::EISDIR,
            Errno::EINVAL,
            Errno::ENOSPC,
            Errno::EROFS,
            Errno::ENOSYS,
            Errno::ENOTEMPTY,
            Errno::EISCONN,
            Errno::ETIME,
            Errno::EOPNOTSUPP,
        ];
        NAMED
            .iter()
            .copied()
            .find(|errno| alloc::format!("{errno}") == name)
    }

    /// A hypercall's return value as a result: negative values are errors.
    ///
    /// # Errors
    /// The number, when the value is negative.
    pub fn check(value: i64) -> Result<u64, Self> {
        u64::try_from(value)
            .map_err(|_| Self(u32::try_from(value.unsigned_abs()).unwrap_or(u32::MAX)))
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert_eq!(Errno::from_name("EAGAIN"), Some(Errno(11)));
        assert_eq!(Errno::from_name("EWHAT"), None);
        assert_eq!(Errno::check(7), Ok(7));
        assert_eq!(Errno::check(-22), Err(Errno::EINVAL));
        assert_eq!(Errno::check(i64::MIN), Err(Errno(u32::MAX)));
        assert_eq!(alloc::format!("{}", Errno(999)), "unknown (999)");
    }
}
