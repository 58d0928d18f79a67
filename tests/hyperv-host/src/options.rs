//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use firn_hyperv::wire::{vmbus, vstor};

/// A small monitor on KVM that is a Hyper-V host to its one guest.
///
/// COM1 is standard input and output. Exit codes: 0 power-off, 10 reboot, 11 crash
/// (told by the crash MSRs), 12 triple fault, 13 goes on after the deadline, 14 KVM
/// failed, 15 the emulator below KVM lost the processor, 1 the monitor failed, 2 a mistake on the command line.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "firn-hyperv-host")]
pub struct Options {
    /// An ELF file with a Linux 64-bit entry, or a bzImage.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["probe", "media"])]
    pub kernel: Option<PathBuf>,
    /// A boot medium of `cargo xtask image build` (raw, VHD or VHDX) instead: its
    /// kernel is entered as GRUB does, with the medium's command line. The guest
    /// sees it as a disk of controller 0, to be read only.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    pub media: Option<PathBuf>,
    /// The boot medium's unit.
    #[arg(long, value_name = "LUN", default_value_t = 0, requires = "media")]
    pub media_lun: u8,
    /// Only find out whether this machine's KVM does.
    #[arg(long)]
    pub probe: bool,
    /// The first file system of a Linux kernel.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The guest's command line.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cmdline: String,
    /// The guest's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub memory: u32,
    /// A disk: file or block device, then `ro`, `sector=4096`, `lun=2`,
    /// `controller=1`, `naa=HEX` (its name) as needed, after commas. Repeatable.
    #[arg(long, value_name = "PATH[,OPTION]...")]
    pub disk: Vec<DiskArg>,
    /// The newest version of VMBus that this host speaks.
    #[arg(long, value_name = "VERSION", default_value = "6.0", value_parser = vmbus_version)]
    pub vmbus_max_version: vmbus::Version,
    /// The oldest version of VMBus that this host speaks.
    #[arg(long, value_name = "VERSION", default_value = "2.4", value_parser = vmbus_version)]
    pub vmbus_min_version: vmbus::Version,
    /// The newest version of storvsp that this host speaks.
    #[arg(long, value_name = "VERSION", default_value = "6.2", value_parser = vstor_version)]
    pub vstor_max_version: vstor::Version,
    /// Most further channels that a controller may have.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub subchannels: u16,
    /// The first channel's number.
    #[arg(long, value_name = "RELID", default_value_t = 11)]
    pub first_relid: u32,
    /// A byte of all controllers' instance GUIDs: another one makes others of them.
    #[arg(long, value_name = "BYTE", default_value_t = 7)]
    pub instance: u8,
    /// How long an unload takes.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub unload_takes: Duration,
    /// Offer auto-EOI as old hosts do, instead of advising against it.
    #[arg(long)]
    pub auto_eoi: bool,
    /// Offer only instructions that every 64-bit processor has, so that an image of
    /// this guest's memory can go to any host.
    #[arg(long)]
    pub compatible: bool,
    /// Offer no reference TSC page.
    #[arg(long)]
    pub no_reference_tsc: bool,
    /// Where bytes go that the guest writes to port 0xE9.
    #[arg(long, value_name = "FILE")]
    pub early: Option<PathBuf>,
    /// How long the guest may go on.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub deadline: Option<Duration>,
}

/// A disk of the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArg {
    /// File or block device.
    pub path: PathBuf,
    /// The guest may only read.
    pub read_only: bool,
    /// Bytes of a sector; otherwise what the device says, or 512.
    pub sector: Option<u32>,
    /// Its unit; otherwise the next one of its controller.
    pub lun: Option<u8>,
    /// Its controller, from 0 on.
    pub controller: u8,
    /// Its name; otherwise one by its place on the command line.
    pub naa: Option<u64>,
}

impl FromStr for DiskArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(',');
        let path = words.next().filter(|path| !path.is_empty());
        let mut disk = Self {
            path: path.context("a disk without a file")?.into(),
            read_only: false,
            sector: None,
            lun: None,
            controller: 0,
            naa: None,
        };
        for word in words {
            match word.split_once('=') {
                None if word == "ro" => disk.read_only = true,
                Some(("sector", bytes)) => disk.sector = Some(bytes.parse()?),
                Some(("lun", number)) => disk.lun = Some(number.parse()?),
                Some(("controller", number)) => disk.controller = number.parse()?,
                Some(("naa", digits)) => disk.naa = Some(u64::from_str_radix(digits, 16)?),
                _ => bail!("`{word}` is not an option of a disk"),
            }
        }
        Ok(disk)
    }
}

/// Two numbers with a dot.
fn version(text: &str) -> Result<(u8, u8)> {
    let (major, minor) = text.split_once('.').context("a version is like 5.2")?;
    Ok((major.parse()?, minor.parse()?))
}

fn vmbus_version(text: &str) -> Result<vmbus::Version> {
    let (major, minor) = version(text)?;
    Ok(vmbus::Version(u32::from(major) << 16 | u32::from(minor)))
}

fn vstor_version(text: &str) -> Result<vstor::Version> {
    let (major, minor) = version(text)?;
    Ok(vstor::Version(u16::from(major) << 8 | u16::from(minor)))
}

fn seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let words = "x --kernel k --disk /d,ro,sector=4096,lun=3,naa=ff --vmbus-max-version 5.2 \
            --vstor-max-version 4.2 --deadline 0.5";
        let options = Options::try_parse_from(words.split_whitespace()).unwrap();
        assert_eq!(options.vmbus_max_version, vmbus::Version::V5_2);
        assert_eq!(options.vstor_max_version, vstor::Version::V4_2);
        assert_eq!(options.deadline, Some(Duration::from_millis(500)));
        let [disk] = &options.disk[..] else {
            panic!("{:?}", options.disk);
        };
        assert!(disk.read_only);
        assert_eq!(
            (disk.sector, disk.lun, disk.naa),
            (Some(4096), Some(3), Some(255))
        );
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (text, word) in [
            ("/d,rw", "`rw`"),
            (",ro", "without a file"),
            ("/d,lun=x", "digit"),
        ] {
            let why = text.parse::<DiskArg>().unwrap_err().to_string();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
