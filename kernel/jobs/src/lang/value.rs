//! The kinds of values that arguments have, and how each is written.

use crate::machine::Mode;
use alloc::string::String;
use core::time::Duration;
use firn_block::DiskId;

/// A kind of value.
pub trait Value: Sized {
    /// Its placeholder in help texts.
    const NAME: &'static str;
    /// What it looks like, for errors: "must be …".
    const WANT: &'static str;
    /// Whether it may stand alone, without `key=`.
    const BARE: bool = false;
    /// Whether its key may stand alone, meaning yes.
    const FLAG: bool = false;
    /// Whether it may be left out although it has no default.
    const OPTIONAL: bool = false;

    /// Reads it; `None` when the text does not look like [`Value::WANT`].
    fn parse(text: &str) -> Option<Self>;

    /// What stands for a value that was left out, if that is allowed.
    fn absent() -> Option<Self> {
        None
    }
}

impl<V: Value> Value for Option<V> {
    const NAME: &'static str = V::NAME;
    const WANT: &'static str = V::WANT;
    const BARE: bool = V::BARE;
    const FLAG: bool = V::FLAG;
    const OPTIONAL: bool = true;

    fn parse(text: &str) -> Option<Self> {
        V::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Value for DiskId {
    const NAME: &'static str = "DISK";
    const WANT: &'static str = "the name of a disk, such as xvda or sda";
    const BARE: bool = true;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for bool {
    const NAME: &'static str = "yes|no";
    const WANT: &'static str = "yes or no";
    const FLAG: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }
}

impl Value for u64 {
    const NAME: &'static str = "NUMBER";
    const WANT: &'static str = "a number, such as 32 or 0x20";

    fn parse(text: &str) -> Option<Self> {
        let (digits, radix) = match text.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (text, 10),
        };
        // `from_str_radix` takes a sign, this language does not.
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(digits, radix).ok().filter(|_| plain)
    }
}

impl Value for u8 {
    const NAME: &'static str = "BYTE";
    const WANT: &'static str = "a byte, such as 85 or 0x55";

    fn parse(text: &str) -> Option<Self> {
        <u64 as Value>::parse(text)?.try_into().ok()
    }
}

/// A number of bytes: `512`, `4k`, `64M`, `1G`, `2T`, in powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Value for Size {
    const NAME: &'static str = "SIZE";
    const WANT: &'static str = "a size, such as 512, 4k, 64M or 1G";

    fn parse(text: &str) -> Option<Self> {
        let shift = match text.bytes().last()? {
            b'k' | b'K' => 10,
            b'm' | b'M' => 20,
            b'g' | b'G' => 30,
            b't' | b'T' => 40,
            _ => return <u64 as Value>::parse(text).map(Self),
        };
        let number = <u64 as Value>::parse(text.get(..text.len() - 1)?)?;
        number.checked_mul(1 << shift).map(Self)
    }
}

/// A size, or everything up to the end of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many bytes.
    Bytes(u64),
    /// Up to the end.
    All,
}

impl Value for Extent {
    const NAME: &'static str = "SIZE|all";
    const WANT: &'static str = "a size, such as 64M, or all";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            text => Size::parse(text).map(|size| Self::Bytes(size.0)),
        }
    }
}

impl Value for Duration {
    const NAME: &'static str = "TIME";
    const WANT: &'static str = "a time, such as 5s, 200ms or 2m";

    fn parse(text: &str) -> Option<Self> {
        let (digits, millis) = if let Some(digits) = text.strip_suffix("ms") {
            (digits, 1)
        } else if let Some(digits) = text.strip_suffix('s') {
            (digits, 1_000)
        } else if let Some(digits) = text.strip_suffix('m') {
            (digits, 60_000)
        } else {
            // As fio has it, a plain number means seconds.
            (text, 1_000)
        };
        let millis = <u64 as Value>::parse(digits)?.checked_mul(millis)?;
        Some(Self::from_millis(millis))
    }
}

impl Value for Mode {
    const NAME: &'static str = "poll|event";
    const WANT: &'static str = "poll or event";
    const BARE: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "poll" => Some(Self::Poll),
            "event" => Some(Self::Event),
            _ => None,
        }
    }
}

/// An access pattern, in fio's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rw {
    /// At random places instead of one after the other.
    pub random: bool,
    /// Reads happen.
    pub reads: bool,
    /// Writes happen.
    pub writes: bool,
}

impl Rw {
    const WORDS: [(&'static str, Self); 6] = [
        ("read", Self::new(false, true, false)),
        ("write", Self::new(false, false, true)),
        ("rw", Self::new(false, true, true)),
        ("randread", Self::new(true, true, false)),
        ("randwrite", Self::new(true, false, true)),
        ("randrw", Self::new(true, true, true)),
    ];

    const fn new(random: bool, reads: bool, writes: bool) -> Self {
        Self {
            random,
            reads,
            writes,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        let word = Self::WORDS.iter().find(|(_, rw)| *rw == self);
        word.map_or("none", |(word, _)| word)
    }
}

impl Value for Rw {
    const NAME: &'static str = "RW";
    const WANT: &'static str = "read, write, rw, randread, randwrite or randrw";

    fn parse(text: &str) -> Option<Self> {
        let word = Self::WORDS.iter().find(|(word, _)| *word == text);
        word.map(|(_, rw)| *rw)
    }
}

/// Any text; quotes keep blanks and `;`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Value for Text {
    const NAME: &'static str = "TEXT";
    const WANT: &'static str = "text, in quotes if it has blanks";

    fn parse(text: &str) -> Option<Self> {
        Some(Self(text.into()))
    }
}

/// A word that may stand alone: a path, the name of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl Value for Name {
    const NAME: &'static str = "NAME";
    const WANT: &'static str = "a name";
    const BARE: bool = true;

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }
}
