//! The program that runs a guest on a KVM host: QEMU, or our own.

use crate::machine::Host;
use crate::programs::MONITOR;

/// How a KVM host starts guests.
pub(crate) struct Monitor {
    /// The start of its command line.
    pub(crate) program: Vec<String>,
    /// Where guests' port 0xE9 goes, or what openvmm says.
    pub(crate) early: String,
    /// Disks that are not found where guests' specs say, and where they are.
    pub(crate) disks: Vec<(String, String)>,
}

impl Monitor {
    /// That of the lab's KVM host.
    pub(crate) fn in_lab(host: Host) -> Self {
        let program = match host {
            Host::HyperV => MONITOR,
            _ => "qemu-system-x86_64",
        };
        Self {
            program: vec![program.into()],
            early: "/dev/console".into(),
            disks: Vec::new(),
        }
    }

    /// Where a guest's disk is.
    pub(crate) fn file<'a>(&'a self, source: &'a str) -> &'a str {
        let found = self.disks.iter().find(|(name, _)| name == source);
        found.map_or(source, |(_, file)| file)
    }
}
