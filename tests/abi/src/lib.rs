//! Asks a C compiler what Xen's public headers say.
//!
//! The tests beside this library put [`Question`]s about every structure and
//! number of `firn_xen::wire` and compare the answers.
#![forbid(unsafe_code)]

mod headers;

pub use headers::Headers;

use anyhow::{Context, Result, ensure};
use duct::cmd;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A constant expression of C, and the header that it needs.
#[derive(Clone, Debug)]
pub struct Question {
    /// Header below `xen/`.
    pub header: String,
    /// An expression that a compiler turns into a number.
    pub expression: String,
}

impl Question {
    /// The value of `expression`, given a header.
    #[must_use]
    pub fn new(header: &str, expression: impl Into<String>) -> Self {
        Self {
            header: header.to_owned(),
            expression: expression.into(),
        }
    }

    /// The size of a type in bytes.
    #[must_use]
    pub fn size_of(header: &str, c_type: &str) -> Self {
        Self::new(header, format!("sizeof({c_type})"))
    }

    /// The offset of a field in bytes.
    #[must_use]
    pub fn offset_of(header: &str, c_type: &str, field: &str) -> Self {
        Self::new(header, format!("offsetof({c_type}, {field})"))
    }
}

/// Compiles one program that prints the value of every question, runs it, and
/// returns the values in the same order.
///
/// # Errors
/// The headers or the compiler are missing, or some expression does not compile:
/// the compiler's own words are part of the error.
pub fn ask(headers: &Headers, questions: &[Question]) -> Result<Vec<i128>> {
    let folder = tempfile::tempdir()?;
    let (source, program) = (folder.path().join("ask.c"), folder.path().join("ask"));
    std::fs::write(&source, program_text(questions))?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = cmd!(
        &compiler,
        "-std=gnu11",
        // The names and values of today, not those kept for old guests.
        "-D__XEN_INTERFACE_VERSION__=__XEN_LATEST_INTERFACE_VERSION__",
        "-I",
        headers.include_folder(),
        "-o",
        &program,
        &source
    )
    .stderr_to_stdout()
    .stdout_capture()
    .unchecked()
    .run()
    .with_context(|| format!("cannot start the C compiler {compiler:?}; set CC, or install gcc"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{compiler} failed:\n{said}");
    let answers = cmd!(&program).read().context("running the C program")?;
    let answers: Vec<i128> = answers
        .lines()
        .map(|line| {
            line.parse()
                .with_context(|| format!("not a number: {line:?}"))
        })
        .collect::<Result<_>>()?;
    ensure!(
        answers.len() == questions.len(),
        "{} answers to {} questions",
        answers.len(),
        questions.len()
    );
    Ok(answers)
}

fn program_text(questions: &[Question]) -> String {
    let mut text = String::from("#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n");
    // The base types first: some headers rely on their includer for them.
    text += "#include <xen/xen.h>\n";
    let headers: BTreeSet<_> = questions.iter().map(|question| &question.header).collect();
    for header in headers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "#include <xen/{header}>");
    }
    text += "int main(void) {\n";
    for Question { expression, .. } in questions {
        let _ = writeln!(text, "    printf(\"%lld\\n\", (long long)({expression}));");
    }
    text += "    return 0;\n}\n";
    text
}
