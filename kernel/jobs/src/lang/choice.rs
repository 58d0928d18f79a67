//! Arguments that are one word of a few.

use super::value::Value;
use crate::power::{FreezeLevel, FreezeThen};

/// Makes a [`Value`] of a type by a table of its words.
macro_rules! choices {
    ($( $choice:ty = $name:literal, $want:literal { $( $variant:ident = $word:literal ),* $(,)? } )*) => { $(
        impl Value for $choice {
            const NAME: &'static str = $name;
            const WANT: &'static str = $want;

            fn parse(text: &str) -> Option<Self> {
                match text {
                    $( $word => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }
    )* };
}

/// How chunks of an image are made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Not at all.
    None,
    /// By LZ4, where it wins.
    Lz4,
}

/// What memory is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing makes it smaller.
    Random,
    /// LZ4 makes it smaller.
    Text,
}

choices! {
    FreezeLevel = "LEVEL", "gate, drain, disconnect, write, verify or full" {
        Gate = "gate",
        Drain = "drain",
        Disconnect = "disconnect",
        Write = "write",
        Verify = "verify",
        Full = "full",
    }
    FreezeThen = "THEN", "poweroff, reboot or thaw" {
        PowerOff = "poweroff",
        Reboot = "reboot",
        Thaw = "thaw",
    }
    Content = "random|text", "random or text" {
        Random = "random",
        Text = "text",
    }
    Compress = "none|lz4", "none or lz4" {
        None = "none",
        Lz4 = "lz4",
    }
}
