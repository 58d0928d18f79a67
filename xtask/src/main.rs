//! `cargo xtask`: builds, boots and checks firn.
#![forbid(unsafe_code)]

mod bench;
mod cmd;
mod demo;
mod elf;
mod imagefile;
mod mutants;
mod progress;
mod rules;
mod terminal;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(cmd::build::Args),
    Run(cmd::run::Args),
    Test(cmd::test::Args),
    Soak(cmd::soak::Args),
    Bench(cmd::bench::Args),
    Check(cmd::check::Args),
    Lab(cmd::lab::Args),
    Image(cmd::image::Args),
    Mutants(cmd::mutants::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Build(args) => cmd::build::run(&args),
        Command::Run(args) => cmd::run::run(&args),
        Command::Soak(args) => cmd::soak::run(&args),
        Command::Test(args) => cmd::test::run(&args),
        Command::Bench(args) => cmd::bench::run(&args),
        Command::Check(args) => cmd::check::run(&args),
        Command::Lab(args) => cmd::lab::run(&args),
        Command::Image(args) => cmd::image::run(&args),
        Command::Mutants(args) => cmd::mutants::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
