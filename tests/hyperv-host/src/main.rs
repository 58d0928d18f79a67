//! The monitor as a program; see the library's documentation, and `--help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use firn_hyperv_host::{Options, attention, machine};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.probe {
        return match machine::probe(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    match attention::run(options) {
        Ok(end) => {
            eprintln!("hyperv-host: {end}");
            end.code()
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("hyperv-host: cannot go on: {error:#}");
    ExitCode::FAILURE
}
