//! The `xen-sys` crate, wherever it states what `firn_xen::wire` states, too.

use firn_xen::wire::misc::{self, ShutdownReason};
use firn_xen::wire::{LAYOUTS, event_channel, shared_info};
use std::mem::offset_of;

/// A layout of ours, by its name in C.
fn layout(c_type: &str) -> (usize, &'static [(&'static str, usize)]) {
    let found = LAYOUTS.iter().find(|layout| layout.c_type == c_type);
    let layout = found.unwrap_or_else(|| panic!("no layout of {c_type}"));
    (layout.size, layout.fields)
}

/// Compares size and every field that we name.
macro_rules! same {
    ($ty:ident { $($field:ident $(. $inner:ident)* as $name:literal),* $(,)? }) => {{
        let (size, fields) = layout(concat!("struct ", stringify!($ty)));
        assert_eq!(size_of::<xen_sys::$ty>(), size, stringify!($ty));
        let theirs = [$(($name, offset_of!(xen_sys::$ty, $field $(. $inner)*))),*];
        assert_eq!(theirs.as_slice(), fields, stringify!($ty));
    }};
}

#[test]
fn structures_agree() {
    same!(evtchn_alloc_unbound { dom as "dom", remote_dom as "remote_dom", port as "port" });
    same!(evtchn_bind_virq { virq as "virq", vcpu as "vcpu", port as "port" });
    same!(evtchn_close { port as "port" });
    same!(evtchn_send { port as "port" });
    same!(sched_shutdown { reason as "reason" });
    same!(vcpu_time_info {
        version as "version",
        tsc_timestamp as "tsc_timestamp",
        system_time as "system_time",
        tsc_to_system_mul as "tsc_to_system_mul",
        tsc_shift as "tsc_shift",
        // Its headers pretend to be of an early version, without flags.
        pad1 as "flags",
    });
    same!(vcpu_info {
        evtchn_upcall_pending as "evtchn_upcall_pending",
        evtchn_upcall_mask as "evtchn_upcall_mask",
        evtchn_pending_sel as "evtchn_pending_sel",
        arch as "arch",
        time as "time",
    });
}

/// Its shared info page comes from headers of another version: only the part
/// that we use is compared.
#[test]
fn the_shared_info_page_agrees_where_the_event_channels_are() {
    let (_, fields) = layout("struct shared_info");
    let theirs = [
        ("vcpu_info", offset_of!(xen_sys::shared_info, vcpu_info)),
        (
            "evtchn_pending",
            offset_of!(xen_sys::shared_info, evtchn_pending),
        ),
        ("evtchn_mask", offset_of!(xen_sys::shared_info, evtchn_mask)),
        ("wc_version", offset_of!(xen_sys::shared_info, wc_version)),
        ("wc_sec", offset_of!(xen_sys::shared_info, wc_sec)),
        ("wc_nsec", offset_of!(xen_sys::shared_info, wc_nsec)),
    ];
    assert_eq!(theirs, fields[..theirs.len()]);
}

/// `misc` takes these from the crate; here are the values of the headers, so a
/// change of the crate shows even without them.
#[test]
fn numbers_agree() {
    let numbers = [
        (misc::HYPERCALL_MEMORY_OP, 12),
        (misc::HYPERCALL_XEN_VERSION, 17),
        (misc::HYPERCALL_CONSOLE_IO, 18),
        (misc::HYPERCALL_GRANT_TABLE_OP, 20),
        (misc::HYPERCALL_VCPU_OP, 24),
        (misc::HYPERCALL_SCHED_OP, 29),
        (misc::HYPERCALL_EVENT_CHANNEL_OP, 32),
        (misc::HYPERCALL_HVM_OP, 34),
        (misc::SCHED_YIELD, 0),
        (misc::SCHED_SHUTDOWN_OP, 2),
        (misc::SCHED_POLL_OP, 3),
        (misc::CONSOLEIO_WRITE, 0),
        (ShutdownReason::POWEROFF.0, 0),
        (ShutdownReason::REBOOT.0, 1),
        (ShutdownReason::SUSPEND.0, 2),
        (ShutdownReason::CRASH.0, 3),
        (event_channel::OP_BIND_VIRQ, xen_sys::EVTCHNOP_bind_virq),
        (event_channel::OP_CLOSE, xen_sys::EVTCHNOP_close),
        (event_channel::OP_SEND, xen_sys::EVTCHNOP_send),
        (
            event_channel::OP_ALLOC_UNBOUND,
            xen_sys::EVTCHNOP_alloc_unbound,
        ),
        (event_channel::VIRQ_TIMER, xen_sys::VIRQ_TIMER),
        (shared_info::MAX_VCPUS, xen_sys::XEN_LEGACY_MAX_VCPUS),
    ];
    for (ours, theirs) in numbers {
        assert_eq!(ours, theirs);
    }
}
