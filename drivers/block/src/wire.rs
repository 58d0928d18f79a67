//! What every host's ABI needs: frames, and enums that stay open.

/// A guest frame number: a guest-physical address in pages of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gfn(pub u64);

/// Open enums: a named value, or whatever else the host sent.
#[macro_export]
macro_rules! open_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident: $ty:ty {
        $($(#[$vmeta:meta])* $variant:ident = $value:expr => $text:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name(pub $ty);

        impl $name {
            $($(#[$vmeta])* pub const $variant: Self = Self($value);)*
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$variant => f.write_str($text),)*
                    Self(other) => write!(f, "unknown ({other})"),
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    };
}
