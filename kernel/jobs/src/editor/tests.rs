use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// Types `keys`; returns the finished lines and what the terminal got.
fn typed(keys: &[u8]) -> (Vec<String>, String) {
    let mut editor = Editor::new("> ");
    let mut out = String::new();
    let mut lines = Vec::new();
    for key in keys {
        if let Action::Line(line) = editor.feed(*key, &mut out) {
            lines.push(line);
        }
    }
    (lines, out)
}

fn line(keys: &[u8]) -> String {
    let (lines, _) = typed(&[keys, b"\r"].concat());
    lines.last().expect("it was finished").clone()
}

#[test]
fn what_is_typed_is_echoed_as_it_is() {
    let (lines, out) = typed(b"disks\r");
    assert_eq!(lines, ["disks"]);
    assert_eq!(out, "disks\n");
}

#[test]
fn every_kind_of_line_end_ends_one_line() {
    assert_eq!(typed(b"a\rb\nc\r\nd\r").0, ["a", "b", "c", "d"]);
    assert_eq!(typed(b"\r\r\n\n").0, ["", "", ""]);
}

#[test]
fn editing_keys() {
    let cases: [(&[u8], &str); 20] = [
        (b"abc\x7f", "ab"),
        (b"abc\x08\x08", "a"),
        (b"\x7fa", "a"),
        (b"abc\x1b[D\x1b[DX", "aXbc"),
        (b"abc\x1b[D\x1b[D\x1b[CX", "abXc"),
        (b"abc\x01X\x05Y", "XabcY"),
        (b"abc\x1b[HX\x1b[FY", "XabcY"),
        (b"abc\x1bOHX\x1bOFY", "XabcY"),
        (b"abc\x1b[1~X\x1b[4~Y", "XabcY"),
        (b"abc\x02\x02\x04", "ac"),
        (b"abc\x01\x1b[3~", "bc"),
        (b"one two\x02\x02\x0b", "one t"),
        (b"one two\x02\x15", "o"),
        (b"one two  \x17", "one "),
        (b"one\x17\x17X", "X"),
        (b"abc\x1b[1;5DX", "abXc"),
        (b"abc\x1b[999~\x1b[15~\x1bq", "abc"),
        (b"a\xc3\xa9\x00\x1cb", "ab"),
        (b"abc\x01\x06X", "aXbc"),
        (b"abc\x0c", "abc"),
    ];
    for (keys, expected) in cases {
        assert_eq!(line(keys), expected, "{keys:?}");
    }
}

#[test]
fn history_goes_back_and_forth_and_keeps_the_draft() {
    let up: &[u8] = b"\x1b[A";
    let down: &[u8] = b"\x1b[B";
    let before: &[u8] = b"one\rtwo\rtwo\r   \r";
    let keys = |rest: &[&[u8]]| line(&[before, &rest.concat()].concat());
    assert_eq!(keys(&[up]), "two");
    assert_eq!(keys(&[up, up]), "one");
    assert_eq!(keys(&[up, up, up, up]), "one");
    assert_eq!(keys(&[b"dra", up, up, down, down, b"ft"]), "draft");
    assert_eq!(keys(&[up, b"!", up, down]), "two");
    assert_eq!(keys(&[down, b"x"]), "x");
    assert_eq!(keys(&[b"\x10\x10\x0e"]), "two");
}

#[test]
fn an_interrupt_gives_the_line_up() {
    let mut editor = Editor::new("> ");
    let mut out = String::new();
    for key in b"abc" {
        editor.feed(*key, &mut out);
    }
    assert_eq!(editor.feed(3, &mut out), Action::Interrupted);
    assert_eq!(editor.feed(b'\r', &mut out), Action::Line(String::new()));
}

#[test]
fn lines_and_history_are_bounded() {
    let long = [b'x'; MAX_LINE + 100];
    assert_eq!(line(&long).len(), MAX_LINE);
    let mut editor = Editor::new("> ");
    let mut out = String::new();
    for number in 0..MAX_HISTORY + 10 {
        for key in std::format!("line {number}\r").bytes() {
            editor.feed(key, &mut out);
        }
    }
    assert_eq!(editor.history.len(), MAX_HISTORY);
}

/// What a terminal shows in its last row, and where its cursor is; for the
/// sequences that the editor uses.
fn shown(out: &str) -> (String, usize) {
    let (mut row, mut column) = (Vec::new(), 0usize);
    let mut rest = out;
    while let Some(char) = rest.chars().next() {
        rest = &rest[1..];
        match char {
            '\r' => column = 0,
            '\n' => (row, column) = (Vec::new(), 0),
            '\x07' => {}
            '\x1b' => {
                let sequence = rest.strip_prefix('[').expect("only ESC [");
                let digits = sequence.bytes().take_while(u8::is_ascii_digit).count();
                let (number, last) = sequence[..=digits].split_at(digits);
                match last {
                    "K" => row.truncate(column),
                    "D" => column -= number.parse::<usize>().expect("a number"),
                    "J" | "H" => (row, column) = (Vec::new(), 0),
                    other => panic!("unknown sequence {other}"),
                }
                rest = &sequence[digits + 1..];
            }
            char => {
                row.resize(row.len().max(column + 1), ' ');
                row[column] = char;
                column += 1;
            }
        }
    }
    (row.into_iter().collect(), column)
}

#[test]
fn a_long_line_is_edited_within_one_row() {
    let mut editor = Editor::new("> ");
    let mut out = String::new();
    for key in [b'x'; 300] {
        editor.feed(key, &mut out);
    }
    for key in b"\x01abc" {
        out.clear();
        editor.feed(*key, &mut out);
        assert!(shown(&out).0.len() <= WINDOW + 2);
    }
    assert_eq!(shown(&out).1, "> abc".len());
}

/// What the editor should do, the plain way.
#[derive(Clone, Copy, Debug)]
enum Key {
    Char(char),
    Left,
    Right,
    Home,
    End,
    Rub,
    Delete,
    KillRest,
    KillStart,
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![
        6 => (b' '..=b'~').prop_map(|byte| Key::Char(byte.into())),
        2 => Just(Key::Left),
        1 => Just(Key::Right),
        1 => Just(Key::Home),
        1 => Just(Key::End),
        1 => Just(Key::Rub),
        1 => Just(Key::Delete),
        1 => Just(Key::KillRest),
        1 => Just(Key::KillStart),
    ]
}

proptest! {
    /// The line, the cursor and the picture on the terminal agree with a model.
    #[test]
    fn the_editor_agrees_with_a_model(keys in prop::collection::vec(keys(), 0..60)) {
        let mut editor = Editor::new("> ");
        let mut out = String::from("> ");
        let mut model: Vec<char> = Vec::new();
        let mut cursor = 0;
        for key in keys {
            let bytes: &[u8] = match key {
                Key::Char(char) => {
                    model.insert(cursor, char);
                    cursor += 1;
                    &[char as u8]
                }
                Key::Left => {
                    cursor = cursor.saturating_sub(1);
                    b"\x1b[D"
                }
                Key::Right => {
                    cursor = (cursor + 1).min(model.len());
                    b"\x1b[C"
                }
                Key::Home => {
                    cursor = 0;
                    b"\x01"
                }
                Key::End => {
                    cursor = model.len();
                    b"\x05"
                }
                Key::Rub => {
                    if cursor > 0 {
                        cursor -= 1;
                        model.remove(cursor);
                    }
                    b"\x7f"
                }
                Key::Delete => {
                    if cursor < model.len() {
                        model.remove(cursor);
                    }
                    b"\x1b[3~"
                }
                Key::KillRest => {
                    model.truncate(cursor);
                    b"\x0b"
                }
                Key::KillStart => {
                    model.drain(..cursor);
                    cursor = 0;
                    b"\x15"
                }
            };
            for byte in bytes {
                prop_assert_eq!(editor.feed(*byte, &mut out), Action::More);
            }
            let line: String = model.iter().collect();
            prop_assert_eq!(&editor.line, &line);
            prop_assert_eq!(editor.cursor, cursor);
            let (row, column) = shown(&out);
            prop_assert_eq!(row, std::format!("> {line}"));
            prop_assert_eq!(column, cursor + 2);
        }
    }

    /// Any bytes at all: no panic, and nothing grows without bounds.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut editor = Editor::new("> ");
        for byte in bytes {
            let mut out = String::new();
            editor.feed(byte, &mut out);
            prop_assert!(out.len() < WINDOW + 40);
            prop_assert!(editor.line.len() <= MAX_LINE);
            prop_assert!(editor.cursor <= editor.line.len());
        }
    }
}
