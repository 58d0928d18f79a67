//! The reports that the kernel writes: memory here, the others by the host.

use core::fmt;

use firn_jobs::Report;

use super::MainLoop;
use crate::mm::{self, Memory};

type Line<'a> = &'a mut dyn FnMut(fmt::Arguments<'_>);

/// Hands the lines of `report` to `line`, which runs in the caller's memory.
pub(super) fn write(main_loop: &MainLoop, report: Report, line: Line<'_>) {
    match report {
        Report::Memory => memory(line),
        report => main_loop.platform.report(report, line),
    }
}

fn memory(line: Line<'_>) {
    if let Some(report) = mm::report() {
        line(format_args!("{report}"));
    }
    for (name, which) in [("boot heap", Memory::Boot), ("job memory", Memory::Job)] {
        let counts = mm::counts(which);
        line(format_args!(
            "{name}: {} of {} KiB used, {} allocations, {} frees, {} failures",
            counts.used >> 10,
            counts.size >> 10,
            counts.allocations,
            counts.frees,
            counts.failures
        ));
    }
}
