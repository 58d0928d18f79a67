use super::*;
use crate::machine::Mode;
use core::time::Duration;
use firn_block::DiskId;
use proptest::prelude::*;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

fn one(line: &str) -> Result<Job, LangError> {
    let mut jobs = parse(line);
    assert_eq!(jobs.len(), 1, "{line}");
    jobs.remove(0)
}

fn wrong(line: &str) -> LangError {
    one(line).expect_err(line)
}

#[test]
fn a_line_of_jobs() {
    let jobs = parse(" disks;; verify disk=xvdb size=1G bs=4k qd=8 seed=0x10 hold ; poweroff;");
    let names: Vec<&str> = jobs
        .iter()
        .map(|job| job.as_ref().expect("all are right").name())
        .collect();
    assert_eq!(names, ["disks", "verify", "poweroff"]);
    let Ok(Job::Verify(verify)) = &jobs[1] else {
        panic!("the second is verify");
    };
    let expected = Verify {
        disk: DiskId(1),
        at: Size(0),
        size: Extent::Bytes(1 << 30),
        bs: Size(4096),
        qd: 8,
        seed: 16,
        generation: 1,
        hold: true,
        timeout: Duration::from_secs(60),
        write: true,
    };
    assert_eq!(*verify, expected);
}

#[test]
fn a_mistake_stays_in_its_job() {
    let jobs = parse("disks; verfy; poweroff");
    assert!(jobs[0].is_ok() && jobs[1].is_err() && jobs[2].is_ok());
}

#[test]
fn words_without_keys_find_their_place() {
    let mode = SetMode {
        disk: DiskId(0),
        mode: Mode::Poll,
    };
    assert_eq!(one("mode xvda poll"), Ok(Job::SetMode(mode.clone())));
    assert_eq!(one("mode mode=poll disk=xvda"), Ok(Job::SetMode(mode)));
    let store = Store {
        verb: Name("ls".into()),
        path: Name("/local/domain".into()),
    };
    assert_eq!(one("store ls /local/domain"), Ok(Job::Store(store)));
    // A bare number could be anything, so it is nothing.
    assert_eq!(wrong("read xvda 512").name(), "unexpected-word");
}

#[test]
fn quotes_keep_blanks_and_semicolons() {
    let text = |line| match one(line) {
        Ok(Job::Write(write)) => write.text.expect("given").0,
        other => panic!("{other:?}"),
    };
    assert_eq!(text("write xvda at=0 text='a; b'"), "a; b");
    assert_eq!(
        text(r#"write xvda at=0 text="a \"b\"\n\\\x""#),
        "a \"b\"\n\\\\x"
    );
    assert_eq!(text("write xvda at=0 text="), "");
    // A quoted `=` is text, too.
    assert_eq!(
        wrong("write xvda at=0 'text=x y'").name(),
        "unexpected-word"
    );
}

#[test]
fn every_error_says_what_where_and_what_to_do() {
    let cases = [
        ("verfy", "unknown-job", "`verfy`", "did you mean `verify`?"),
        ("quux", "unknown-job", "`quux`", "`help` lists all jobs"),
        (
            "bench xvda dept=4",
            "unknown-argument",
            "bench: dept=",
            "`help bench`",
        ),
        (
            "bench xvda siz=4",
            "unknown-argument",
            "bench: siz=",
            "did you mean size=?",
        ),
        (
            "bench xvda 32",
            "unexpected-word",
            "bench: `32`",
            "key=value",
        ),
        ("bench xvda qd=many", "bad-value", "bench: qd=", "a number"),
        ("bench hda", "bad-value", "bench: disk=", "such as xvda"),
        ("bench", "missing-argument", "bench: disk=", "such as xvda"),
        (
            "bench xvda qd=1 qd=2",
            "doubled-argument",
            "bench: qd=",
            "once",
        ),
        (
            "write text='a",
            "unclosed-quote",
            "character 12",
            "close it with '",
        ),
        (
            "write text=\"a\\",
            "unclosed-quote",
            "character 12",
            "close it with \"",
        ),
    ];
    for (line, name, place, hint) in cases {
        let error = wrong(line);
        assert_eq!(error.name(), name, "{line}: {error}");
        assert_eq!(error.place(), place, "{line}");
        assert!(error.hint().contains(hint), "{line}: {}", error.hint());
    }
    let long = "x".repeat(MAX_LINE + 1);
    assert_eq!(wrong(&long), LangError::TooLong { limit: MAX_LINE });
}

#[test]
fn sizes_times_and_numbers() {
    for (text, value) in [
        ("0", 0),
        ("512", 512),
        ("0x200", 512),
        ("4k", 4096),
        ("64M", 64 << 20),
        ("1g", 1 << 30),
        ("2T", 2 << 40),
    ] {
        assert_eq!(Size::parse(text), Some(Size(value)), "{text}");
    }
    for text in [
        "",
        "k",
        "-1",
        "+1",
        "1.5M",
        "4kk",
        "0x",
        "20000000T",
        "1e3",
        "é",
    ] {
        assert_eq!(Size::parse(text), None, "{text}");
    }
    for (text, millis) in [("5s", 5000), ("200ms", 200), ("2m", 120_000), ("3", 3000)] {
        assert_eq!(
            <Duration as Value>::parse(text),
            Some(Duration::from_millis(millis)),
            "{text}"
        );
    }
    assert_eq!(<Duration as Value>::parse("ms"), None);
    assert_eq!(<Duration as Value>::parse("18446744073709551615m"), None);
    assert_eq!(Extent::parse("all"), Some(Extent::All));
    assert_eq!(<u8 as Value>::parse("256"), None);
    for word in ["read", "write", "rw", "randread", "randwrite", "randrw"] {
        assert_eq!(Rw::parse(word).map(Rw::word), Some(word));
    }
}

/// What is in the table works: defaults are values of their kind, and a job
/// that may be given without arguments can be.
#[test]
fn the_table_is_sound() {
    for spec in SPECS {
        let needed = |arg: &&Arg| arg.is_needed();
        let values = |arg: &Arg| match arg.name {
            "DISK" => "xvda",
            "TIME" => "1s",
            "poll|event" => "poll",
            _ => "1",
        };
        let words: Vec<String> = spec
            .args
            .iter()
            .filter(needed)
            .map(|arg| format!("{}={}", arg.key, values(arg)))
            .collect();
        let line = format!("{} {}", spec.name, words.join(" "));
        assert_eq!(one(&line).expect("all defaults parse").name(), spec.name);
        for arg in spec.args.iter().filter(needed) {
            let without = line.replace(&format!("{}=", arg.key), "");
            assert!(one(&without).is_err() || arg.bare, "{without}");
        }
    }
}

#[test]
fn help_is_written_from_the_table() {
    let mut text = String::new();
    help(None, &mut text)
        .expect("a list")
        .expect("strings take all");
    for spec in SPECS {
        assert!(text.contains(spec.name), "{}", spec.name);
    }
    text.clear();
    help(Some("verify"), &mut text)
        .expect("known")
        .expect("strings take all");
    assert!(text.starts_with("verify disk=DISK [at=SIZE]"), "{text}");
    assert!(text.contains("Bytes per request. [64k]"), "{text}");
    let unknown = help(Some("nothing"), &mut text).expect_err("unknown");
    assert_eq!(unknown.name(), "unknown-job");
}

proptest! {
    /// No line does anything but parse or fail with an error that can be shown.
    #[test]
    fn any_line_gets_an_answer(line in r#"([a-z=0-9;"' \\]|verify|bench|disk=xvda|\PC){0,40}"#) {
        for job in parse(&line) {
            if let Err(error) = job {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(!error.hint().is_empty());
                prop_assert!(!error.place().is_empty());
            }
        }
    }

    /// Whatever is quoted arrives as it was.
    #[test]
    fn any_text_can_be_quoted(text: String) {
        let quoted = text.replace('\\', r"\\").replace('"', r#"\""#);
        let job = one(&format!("write xvda at=0 text=\"{quoted}\""));
        let Ok(Job::Write(write)) = job else {
            return Err(TestCaseError::fail("not a write"));
        };
        prop_assert_eq!(write.text, Some(Text(text)));
    }
}
