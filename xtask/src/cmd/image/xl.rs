//! `cargo xtask image xl`: the ELF packed for a Xen host of one's own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use firn_boot_tests::disks::vdev;
use firn_lab::{GuestDisk, GuestSpec, Host, xl_config};

use crate::cmd::build;
use crate::workspace;

/// Builds the ELF and writes a config file for `xl create` on a host of yours.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The ELF's path on that host, if it will be another.
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// A disk file or block device on that host (repeatable).
    #[arg(long, value_name = "PATH")]
    disk: Vec<String>,
    /// What to run; without it the guest gives a shell on its console.
    #[arg(long, value_name = "JOBS")]
    job: Option<String>,
    /// The guest's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    mem: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let elf = build::build()?;
    let kernel = args.kernel.clone().unwrap_or(elf.stripped);
    let mut cmdline = "log=info".to_owned();
    if let Some(job) = &args.job {
        firn_boot_tests::verify::parse(job)?;
        cmdline += &format!(" -- {job}");
    }
    let mut spec = GuestSpec::new("firn", &kernel)
        .with_cmdline(&cmdline)
        .with_memory(args.mem);
    for (number, path) in args.disk.iter().enumerate() {
        if !path.starts_with('/') {
            bail!("--disk {path}: give the full path on the Xen host");
        }
        spec = spec.with_disk(GuestDisk::new(path, &vdev(Host::Xen, number)));
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| workspace::target().join("firn.cfg"));
    let text = xl_config(&spec, &kernel.to_string_lossy());
    fs::write(&out, text).with_context(|| out.display().to_string())?;
    println!(
        "{}: start it with `xl create -c {}`",
        out.display(),
        out.display()
    );
    Ok(())
}
