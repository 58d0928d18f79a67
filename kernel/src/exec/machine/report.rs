//! The reports that the kernel writes: grants, trace, memory.

use core::fmt;

use firn_jobs::Report;
use firn_xen::grant::LiveGrant;
use firn_xen::wire::Gfn;
use firn_xen::wire::grant_table::GrantRef;

use super::MainLoop;
use crate::mm::{self, Memory};

type Line<'a> = &'a mut dyn FnMut(fmt::Arguments<'_>);

/// Hands the lines of `report` to `line`, which runs in the caller's memory.
pub(super) fn write(main_loop: &MainLoop, report: Report, line: Line<'_>) {
    match report {
        Report::Grants => grants(main_loop, line),
        Report::Trace => trace(main_loop, line),
        Report::Memory => memory(line),
    }
}

/// Every live grant; neighbours that differ in nothing else share a line.
fn grants(main_loop: &MainLoop, line: Line<'_>) {
    let grants = &main_loop.xen.grants;
    let live = grants.live();
    for run in live.chunk_by(continues) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let note = match (first.deferred, first.mapped) {
            (true, _) => ", deferred",
            (false, true) => ", mapped",
            (false, false) => "",
        };
        line(format_args!(
            "{}-{} frames {:#x}-{:#x} to {}: {}{note}",
            first.reference.0,
            last.reference.0,
            first.gfn.0,
            last.gfn.0,
            first.domain,
            first.purpose
        ));
    }
    line(format_args!(
        "{} live, {} free, {} deferred",
        live.len(),
        grants.free(),
        grants.deferred()
    ));
}

fn continues(one: &LiveGrant, next: &LiveGrant) -> bool {
    let expected = LiveGrant {
        reference: GrantRef(one.reference.0 + 1),
        gfn: Gfn(one.gfn.0 + 1),
        ..*one
    };
    *next == expected
}

fn trace(main_loop: &MainLoop, line: Line<'_>) {
    for event in main_loop.xen.trace.events() {
        line(format_args!("{event}"));
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
