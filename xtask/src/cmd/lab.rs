//! `cargo xtask lab`: prepares the lab, boots it, gives a prompt in it.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use duct::cmd;
use firn_lab::{Cache, DiskSpec, Host, Images, Lab, LabConfig};

use crate::progress::Progress;
use crate::terminal;

/// The lab: real Xen and a KVM host under software emulation, without root.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Download the packages and build the images, unless that is done.
    Prepare,
    /// Boot it, show what came up, power it off.
    Boot(Machine),
    /// Boot it and give a root prompt in it.
    Shell(Machine),
    /// Show where the lab is kept and what is in it.
    Status,
}

#[derive(clap::Args)]
struct Machine {
    /// What runs in the emulated machine.
    #[arg(long, value_enum, default_value = "xen")]
    host: HostArg,
    /// Give it this disk file as /dev/firn/d0, d1... (repeatable).
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum HostArg {
    Xen,
    Kvm,
    Hyperv,
}

impl Machine {
    fn config(&self) -> LabConfig {
        let mut config = LabConfig::new(match self.host {
            HostArg::Xen => Host::Xen,
            HostArg::Kvm => Host::Kvm,
            HostArg::Hyperv => Host::HyperV,
        });
        for (number, file) in self.disk.iter().enumerate() {
            config = config.with_disk(DiskSpec::new(&format!("d{number}"), file));
        }
        config
    }

    fn boot(&self) -> Result<Lab> {
        let progress = Progress::new();
        let images = prepare(&progress)?;
        Lab::boot(&images, &self.config(), &|step| progress.step(step))
    }
}

/// Gets the lab's images ready.
pub(crate) fn prepare(progress: &Progress) -> Result<Images> {
    Images::prepare(&Cache::open()?, &|step| progress.step(step))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Prepare => {
            prepare(&Progress::new())?;
            println!("the lab is ready in {}", Cache::open()?.folder().display());
            Ok(())
        }
        Action::Boot(machine) => boot(machine),
        Action::Shell(machine) => shell(machine),
        Action::Status => status(),
    }
}

fn boot(machine: &Machine) -> Result<()> {
    let lab = machine.boot()?;
    println!("{}", lab.describe()?);
    print!("{}", lab.run("free -m; ls -l /dev/firn")?);
    Ok(())
}

fn shell(machine: &Machine) -> Result<()> {
    let lab = machine.boot()?;
    println!("{}; Ctrl-] ends the session (and the lab)", lab.describe()?);
    let mut out = lab.shell()?;
    let mut input = lab.shell()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = input.read(&mut buffer) {
            terminal::show(&buffer[..count]);
        }
    });
    // The prompt was printed before anyone listened.
    out.write_all(b"\r")?;
    terminal::pass_keys(|keys| Ok(out.write_all(keys)?))
}

fn status() -> Result<()> {
    let cache = Cache::open()?;
    println!("{}", cache.folder().display());
    let sizes = cmd!("du", "-sh", "--", ".").dir(cache.folder()).read()?;
    println!(
        "  {} in all",
        sizes.split_whitespace().next().unwrap_or("?")
    );
    for entry in std::fs::read_dir(cache.folder())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            println!("  {}", entry.file_name().to_string_lossy());
        }
    }
    Ok(())
}
