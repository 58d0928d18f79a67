//! The reports that are Xen's: grants and trace.

use core::fmt;

use firn_xen::Xen;
use firn_xen::grant::LiveGrant;
use firn_xen::wire::Gfn;
use firn_xen::wire::grant_table::GrantRef;

use super::XenHal;

type Line<'a> = &'a mut dyn FnMut(fmt::Arguments<'_>);

/// Every live grant; neighbours that differ in nothing else share a line.
pub(super) fn grants(xen: &Xen<XenHal>, line: Line<'_>) {
    let grants = &xen.grants;
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
        "{} live, {} free, {} deferred, {} set aside",
        live.len(),
        grants.free(),
        grants.deferred(),
        grants.set_aside()
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

/// The last events of the drivers.
pub(super) fn trace(xen: &Xen<XenHal>, line: Line<'_>) {
    for event in xen.trace.events() {
        line(format_args!("{event}"));
    }
}
