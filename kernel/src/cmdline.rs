//! The kernel command line: options, then `--`, then jobs.
//!
//! `log=debug -- verify disk=xvda size=64M; poweroff`: options are words
//! `name=value`; everything after a word `--` is the jobs' own language and
//! is handed on as it is. A word that we do not know is reported and skipped,
//! because a boot with a mistyped option is better than none.

use core::fmt;
use core::time::Duration;

use firn_hyperv::wire::{vmbus, vstor};
use firn_power::{Choice, OnRefusal};
use firn_xen::blkfront::{MAX_RING_ORDER, VbdConfig};
use firn_xen::wire::blkif::MAX_SEGMENTS;

use heapless::String;

use crate::console::{Level, parse_level};

/// The options, each with its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `log=`: the lowest level shown.
    pub log: Level,
    /// What block devices may use: `blk.ring-order=`, `blk.segments=`,
    /// `blk.persistent=`; and how long a wait on the host may take: `deadline=`.
    pub blk: VbdConfig,
    /// `provoke=`: a fault to go down with, for tests of what is then shown.
    pub provoke: Option<Fault>,
    /// `image=`: which image to restore.
    pub image: Choice,
    /// `on-refusal=`: what if it cannot be restored.
    pub on_refusal: OnRefusal,
    /// `image-key=`: the key of sealed images.
    pub key: Option<ImageKey>,
    /// `freeze.deadline=`: how long a freeze waits for requests in flight.
    pub freeze_deadline: Duration,
    /// `vmbus.version=`: the newest version of VMBus that is tried.
    pub vmbus: vmbus::Version,
    /// `vmbus.monitor=`: whether a host that looks at monitor pages is signalled there.
    pub monitored: bool,
    /// `vstor.version=`: the newest version of storvsc that is tried.
    pub vstor: vstor::Version,
}

/// A key that is not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ImageKey(pub [u8; 32]);

impl fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImageKey")
    }
}

impl ImageKey {
    /// Reads 64 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let (digits, []) = text.as_bytes().as_chunks::<2>() else {
            return None;
        };
        let mut key = [0; 32];
        if digits.len() != key.len() {
            return None;
        }
        for (byte, [high, low]) in key.iter_mut().zip(digits) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        Some(Self(key))
    }
}

/// A way to go down on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A Rust panic.
    Panic,
    /// A null pointer is followed.
    Null,
    /// An invalid opcode.
    Opcode,
    /// The stack overflows.
    Stack,
    /// Job memory runs full.
    Heap,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: Level::Info,
            blk: VbdConfig::default(),
            provoke: None,
            image: Choice::Auto,
            on_refusal: OnRefusal::Shell,
            key: None,
            freeze_deadline: Duration::from_secs(5),
            vmbus: vmbus::Version::V6_0,
            monitored: false,
            vstor: vstor::Version::V6_2,
        }
    }
}

/// A word before `--` that means nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOption<'a> {
    /// The word.
    pub word: &'a str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No option of that name.
    Unknown,
    /// The option exists; its value should be the text given here.
    BadValue(&'static str),
}

impl fmt::Display for BadOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word;
        match self.problem {
            Problem::Unknown => write!(
                f,
                "option '{word}' is unknown and ignored (there are: log=LEVEL deadline=SECONDS \
                 blk.ring-order=ORDER blk.segments=COUNT blk.persistent=yes|no image=DISK \
                 on-refusal=shell|cold image-key=HEX freeze.deadline=SECONDS vmbus.version=X.Y \
                 vstor.version=X.Y vmbus.monitor=yes|no provoke=FAULT; \
                 jobs go after --)"
            ),
            Problem::BadValue(wanted) => write!(f, "option '{word}' is ignored: it wants {wanted}"),
        }
    }
}

/// Splits `line` and reads the options; `bad` hears of every word that is not
/// one. Returns the options and the text of the jobs (empty if there is none).
pub fn parse<'a>(line: &'a str, mut bad: impl FnMut(BadOption<'a>)) -> (Options, &'a str) {
    let (words, jobs) = split(line);
    let mut options = Options::default();
    for word in words.split_ascii_whitespace() {
        if let Err(problem) = apply(&mut options, word) {
            bad(BadOption { word, problem });
        }
    }
    (options, jobs)
}

/// Splits at the first word that is `--`.
fn split(line: &str) -> (&str, &str) {
    let mut from = 0;
    while let Some(at) = line[from..].find("--").map(|at| from + at) {
        let (before, after) = (&line[..at], &line[at + 2..]);
        let starts = before.is_empty() || before.ends_with(|c: char| c.is_ascii_whitespace());
        let ends = after.is_empty() || after.starts_with(|c: char| c.is_ascii_whitespace());
        if starts && ends {
            return (before, after.trim());
        }
        from = at + 2;
    }
    (line, "")
}

fn apply(options: &mut Options, word: &str) -> Result<(), Problem> {
    match word.split_once('=') {
        Some(("log", value)) => {
            let wanted = Problem::BadValue("off, error, warn, info, debug or trace");
            options.log = parse_level(value).ok_or(wanted)?;
        }
        Some(("deadline", value)) => {
            let wanted = Problem::BadValue("whole seconds from 1 to 3600, such as 5s");
            options.blk.deadline = seconds(value).ok_or(wanted)?;
        }
        Some(("blk.ring-order", value)) => {
            let wanted = Problem::BadValue("a power of two of pages, from 0 to 4");
            let order = value.parse().ok().filter(|o| *o <= MAX_RING_ORDER);
            options.blk.max_ring_order = order.ok_or(wanted)?;
        }
        Some(("blk.segments", value)) => {
            let wanted = Problem::BadValue("a number from 11, without indirect requests, up");
            let count = value.parse().ok().filter(|s| *s >= MAX_SEGMENTS);
            options.blk.max_segments = count.ok_or(wanted)?;
        }
        Some(("blk.persistent", value)) => {
            options.blk.persistent = yes_or_no(value)?;
        }
        Some(("image", value)) => {
            options.image = match value {
                "auto" => Choice::Auto,
                "none" => Choice::None,
                name => match name.parse() {
                    Ok(disk) => Choice::On(disk),
                    Err(_) => return Err(Problem::BadValue("auto, none or a disk such as xvdb")),
                },
            };
        }
        Some(("on-refusal", value)) => {
            options.on_refusal = match value {
                "shell" => OnRefusal::Shell,
                "cold" => OnRefusal::Cold,
                _ => return Err(Problem::BadValue("shell or cold")),
            };
        }
        Some(("image-key", value)) => {
            let wanted = Problem::BadValue("64 hexadecimal digits");
            options.key = Some(ImageKey::parse(value).ok_or(wanted)?);
        }
        Some(("freeze.deadline", value)) => {
            let wanted = Problem::BadValue("whole seconds from 1 to 3600, such as 5s");
            options.freeze_deadline = seconds(value).ok_or(wanted)?;
        }
        Some(("vmbus.version", value)) => {
            let wanted = Problem::BadValue("a version from 2.4 to 6.0");
            let known = vmbus::Version::ALL.into_iter();
            let mut named = known.filter(|version| is_named(version, value));
            options.vmbus = named.next().ok_or(wanted)?;
        }
        Some(("vmbus.monitor", value)) => {
            options.monitored = yes_or_no(value)?;
        }
        Some(("vstor.version", value)) => {
            let wanted = Problem::BadValue("a version from 2.0 to 6.2");
            let known = vstor::Version::ALL.into_iter();
            let mut named = known.filter(|version| is_named(version, value));
            options.vstor = named.next().ok_or(wanted)?;
        }
        Some(("provoke", value)) => {
            options.provoke = Some(match value {
                "panic" => Fault::Panic,
                "null" => Fault::Null,
                "opcode" => Fault::Opcode,
                "stack" => Fault::Stack,
                "heap" => Fault::Heap,
                _ => return Err(Problem::BadValue("panic, null, opcode, stack or heap")),
            });
        }
        _ => return Err(Problem::Unknown),
    }
    Ok(())
}

/// Whether a version is written like this. There is no heap yet.
fn is_named(version: &impl fmt::Display, text: &str) -> bool {
    let mut name = String::<8>::new();
    fmt::write(&mut name, format_args!("{version}")).is_ok() && name == text
}

fn yes_or_no(value: &str) -> Result<bool, Problem> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Problem::BadValue("yes or no")),
    }
}

/// Whole seconds, with or without the unit.
fn seconds(value: &str) -> Option<Duration> {
    let number = value.strip_suffix('s').unwrap_or(value);
    let seconds = number.parse().ok().filter(|s| (1..=3600).contains(s));
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn parsed(line: &str) -> (Options, &str, Vec<BadOption<'_>>) {
        let mut bad = Vec::new();
        let (options, jobs) = parse(line, |b| bad.push(b));
        (options, jobs, bad)
    }

    #[test]
    fn options_and_jobs_are_told_apart() {
        let (options, jobs, bad) =
            parsed("log=debug deadline=9 provoke=null -- verify disk=xvda; poweroff ");
        assert_eq!(
            options,
            Options {
                log: Level::Debug,
                blk: VbdConfig {
                    deadline: Duration::from_secs(9),
                    ..VbdConfig::default()
                },
                provoke: Some(Fault::Null),
                ..Options::default()
            }
        );
        assert_eq!(jobs, "verify disk=xvda; poweroff");
        assert!(bad.is_empty());
    }

    #[test]
    fn the_block_driver_can_be_limited() {
        let (options, _, bad) = parsed("blk.ring-order=0 blk.segments=11 blk.persistent=no");
        let limited = VbdConfig {
            max_ring_order: 0,
            max_segments: 11,
            persistent: false,
            ..VbdConfig::default()
        };
        assert_eq!(options.blk, limited);
        assert!(bad.is_empty());
    }

    #[test]
    fn the_image_can_be_chosen() {
        let key = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
        let line = std::format!("image=xvdb on-refusal=cold freeze.deadline=7s image-key={key}");
        let (options, _, bad) = parsed(&line);
        assert!(bad.is_empty());
        assert_eq!(options.image, Choice::On(firn_block::DiskId(1)));
        assert_eq!(options.on_refusal, OnRefusal::Cold);
        assert_eq!(options.freeze_deadline, Duration::from_secs(7));
        let key = options.key.expect("given").0;
        assert_eq!((key[1], key[31]), (0x11, 0xff));
        assert_eq!(parsed("image=none").0.image, Choice::None);
        assert_eq!(parsed("image=auto").0.image, Choice::Auto);
    }

    #[test]
    fn versions_can_be_lowered() {
        let (options, _, bad) = parsed("vmbus.version=4.0 vstor.version=5.1 vmbus.monitor=yes");
        assert!(options.monitored);
        assert!(bad.is_empty());
        assert_eq!(options.vmbus, vmbus::Version::V4_0);
        assert_eq!(options.vstor, vstor::Version::V5_1);
    }

    #[test]
    fn no_options_or_no_jobs_is_fine() {
        assert_eq!(parsed(""), (Options::default(), "", Vec::new()));
        assert_eq!(parsed("--").1, "");
        assert_eq!(parsed("-- a -- b").1, "a -- b");
        assert_eq!(parsed("log=info").1, "");
    }

    #[test]
    fn dashes_inside_a_word_do_not_split() {
        let (_, jobs, bad) = parsed("x--y --z -- disks");
        assert_eq!(jobs, "disks");
        assert_eq!(bad.len(), 2);
        assert_eq!(
            bad[0],
            BadOption {
                word: "x--y",
                problem: Problem::Unknown
            }
        );
    }

    #[test]
    fn bad_values_keep_the_default_and_are_named() {
        for word in [
            "log=loud",
            "log=",
            "deadline=0",
            "deadline=5m",
            "freeze.deadline=",
            "image=hda",
            "vmbus.version=9",
            "vstor.version=6",
            "on-refusal=reboot",
            "image-key=12",
            "image-key=xx112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            "deadline=3601",
            "blk.ring-order=5",
            "blk.segments=10",
            "blk.persistent=1",
            "vmbus.monitor=1",
        ] {
            let (options, _, bad) = parsed(word);
            assert_eq!(options, Options::default(), "{word}");
            assert!(
                matches!(
                    bad[..],
                    [BadOption {
                        problem: Problem::BadValue(_),
                        ..
                    }]
                ),
                "{word}"
            );
        }
    }
}
