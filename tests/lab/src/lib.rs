//! The lab: real Xen with a Linux dom0, and a Linux KVM host with QEMU's Xen
//! emulation or our own Hyper-V host, both under software emulation. No root, no KVM, nothing
//! installed: Debian packages are unpacked into a cache folder, images are
//! built from them, and one boot serves any number of guests.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use firn_lab::*;
//! # fn main() -> anyhow::Result<()> {
//! let images = Images::prepare(&Cache::open()?, &|step| println!("{step}"))?;
//! let config = LabConfig::new(Host::Xen).with_disk(DiskSpec::new("d0", "disk.img"));
//! let lab = Lab::boot(&images, &config, &|step| println!("{step}"))?;
//! let spec = GuestSpec::new("g", "target/firn.elf").with_disk(GuestDisk::new("d0", "xvda"));
//! let guest = lab.guest(&spec)?;
//! guest.wait_for("firn-result", Duration::from_secs(60))?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod broken;
mod cache;
mod client;
mod complaints;
mod dom0;
mod guest;
mod here;
mod hyperv;
mod images;
mod lab;
mod libs;
mod machine;
mod modules;
mod monitor;
mod moves;
mod openvmm;
mod packages;
mod programs;
mod qemu_xen;
mod stuck;
mod transcript;
mod tree;
mod xl;

pub use broken::{BrokenGuest, Image, broken_by_emulator};
pub use cache::{Cache, RunFolder, sha256, sha256_file};
pub use client::Output;
pub use dom0::{LogMark, Part};
pub use guest::{Exit, Guest, GuestDisk, GuestSpec};
pub use images::Images;
pub use lab::Lab;
pub use machine::{DiskSpec, Host, LabConfig};
pub use packages::{Packages, SUITE};
pub use transcript::{Sink, Transcript, by_line, tail};
pub use xl::xl_config;
