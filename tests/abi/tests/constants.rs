//! Every number of the ABI, by its name in C.

use firn_abi_tests::{Headers, Question, ask};
use firn_xen::wire::blkif::{self, Operation, Status};
use firn_xen::wire::errno::Errno;
use firn_xen::wire::misc::{self, ShutdownReason};
use firn_xen::wire::xenbus::XenbusState;
use firn_xen::wire::xs::{self, MessageType};
use firn_xen::wire::{DomId, console, event_channel, grant_table, hvm, memory, ring, shared_info};

struct Row {
    /// The constant's path as written here: its last part is its name in `wire`.
    name: &'static str,
    value: i128,
    header: &'static str,
    c: &'static str,
}

/// One row per constant: header, then pairs of ours and the C expression.
macro_rules! rows {
    ($($header:literal { $($ours:path => $c:literal,)* })*) => {
        &[$($(Row {
            name: stringify!($ours),
            value: $ours as i128,
            header: $header,
            c: $c,
        },)*)*]
    };
}

/// The same for open enums, whose number is inside.
macro_rules! open_rows {
    ($($header:literal { $($ours:path => $c:literal,)* })*) => {
        &[$($(Row {
            name: stringify!($ours),
            value: $ours.0 as i128,
            header: $header,
            c: $c,
        },)*)*]
    };
}

const NUMBERS: &[Row] = rows! {
    "xen.h" {
        misc::HYPERCALL_MEMORY_OP => "__HYPERVISOR_memory_op",
        misc::HYPERCALL_XEN_VERSION => "__HYPERVISOR_xen_version",
        misc::HYPERCALL_CONSOLE_IO => "__HYPERVISOR_console_io",
        misc::HYPERCALL_GRANT_TABLE_OP => "__HYPERVISOR_grant_table_op",
        misc::HYPERCALL_VCPU_OP => "__HYPERVISOR_vcpu_op",
        misc::HYPERCALL_SCHED_OP => "__HYPERVISOR_sched_op",
        misc::HYPERCALL_EVENT_CHANNEL_OP => "__HYPERVISOR_event_channel_op",
        misc::HYPERCALL_HVM_OP => "__HYPERVISOR_hvm_op",
        misc::CONSOLEIO_WRITE => "CONSOLEIO_write",
        event_channel::VIRQ_TIMER => "VIRQ_TIMER",
        event_channel::PORTS_2L => "EVTCHN_2L_NR_CHANNELS",
        shared_info::MAX_VCPUS => "XEN_LEGACY_MAX_VCPUS",
    }
    "sched.h" {
        misc::SCHED_YIELD => "SCHEDOP_yield",
        misc::SCHED_SHUTDOWN_OP => "SCHEDOP_shutdown",
        misc::SCHED_POLL_OP => "SCHEDOP_poll",
    }
    "vcpu.h" {
        misc::VCPU_STOP_PERIODIC_TIMER => "VCPUOP_stop_periodic_timer",
        misc::VCPU_SET_SINGLESHOT_TIMER => "VCPUOP_set_singleshot_timer",
        misc::VCPU_STOP_SINGLESHOT_TIMER => "VCPUOP_stop_singleshot_timer",
    }
    "version.h" {
        misc::VERSION => "XENVER_version",
        misc::EXTRAVERSION => "XENVER_extraversion",
        misc::GET_FEATURES => "XENVER_get_features",
    }
    "event_channel.h" {
        event_channel::OP_BIND_VIRQ => "EVTCHNOP_bind_virq",
        event_channel::OP_CLOSE => "EVTCHNOP_close",
        event_channel::OP_SEND => "EVTCHNOP_send",
        event_channel::OP_ALLOC_UNBOUND => "EVTCHNOP_alloc_unbound",
    }
    "memory.h" {
        memory::OP_ADD_TO_PHYSMAP => "XENMEM_add_to_physmap",
        memory::SPACE_SHARED_INFO => "XENMAPSPACE_shared_info",
        memory::SPACE_GRANT_TABLE => "XENMAPSPACE_grant_table",
    }
    "grant_table.h" {
        grant_table::ENTRY_SIZE => "sizeof(grant_entry_v1_t)",
        grant_table::ENTRIES_PER_FRAME => "4096 / sizeof(grant_entry_v1_t)",
        grant_table::RESERVED_ENTRIES => "GNTTAB_NR_RESERVED_ENTRIES",
        grant_table::GTF_PERMIT_ACCESS => "GTF_permit_access",
        grant_table::GTF_READONLY => "GTF_readonly",
        grant_table::GTF_READING => "GTF_reading",
        grant_table::GTF_WRITING => "GTF_writing",
        grant_table::OP_QUERY_SIZE => "GNTTABOP_query_size",
    }
    "hvm/hvm_op.h" {
        hvm::OP_SET_PARAM => "HVMOP_set_param",
        hvm::OP_GET_PARAM => "HVMOP_get_param",
    }
    "hvm/params.h" {
        hvm::PARAM_CALLBACK_IRQ => "HVM_PARAM_CALLBACK_IRQ",
        hvm::PARAM_STORE_PFN => "HVM_PARAM_STORE_PFN",
        hvm::PARAM_STORE_EVTCHN => "HVM_PARAM_STORE_EVTCHN",
        hvm::PARAM_CONSOLE_PFN => "HVM_PARAM_CONSOLE_PFN",
        hvm::PARAM_CONSOLE_EVTCHN => "HVM_PARAM_CONSOLE_EVTCHN",
        hvm::CALLBACK_TYPE_VECTOR => "(uint64_t)HVM_PARAM_CALLBACK_TYPE_VECTOR << 56",
    }
    "io/console.h" {
        console::IN_SIZE => "sizeof(((struct xencons_interface *)0)->in)",
        console::OUT_SIZE => "sizeof(((struct xencons_interface *)0)->out)",
    }
    "io/xs_wire.h" {
        xs::PAYLOAD_MAX => "XENSTORE_PAYLOAD_MAX",
        xs::ABS_PATH_MAX => "XENSTORE_ABS_PATH_MAX",
        xs::REL_PATH_MAX => "XENSTORE_REL_PATH_MAX",
        xs::RING_SIZE => "XENSTORE_RING_SIZE",
        xs::FEATURE_RECONNECTION => "XENSTORE_SERVER_FEATURE_RECONNECTION",
        xs::FEATURE_ERROR => "XENSTORE_SERVER_FEATURE_ERROR",
        xs::CONNECTED => "XENSTORE_CONNECTED",
        xs::RECONNECT => "XENSTORE_RECONNECT",
    }
    "io/blkif.h" {
        blkif::MAX_SEGMENTS => "BLKIF_MAX_SEGMENTS_PER_REQUEST",
        blkif::MAX_INDIRECT_PAGES => "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST",
        blkif::SEGMENTS_PER_INDIRECT_PAGE => "4096 / sizeof(struct blkif_request_segment)",
        blkif::DISCARD_SECURE => "BLKIF_DISCARD_SECURE",
        blkif::VDISK_CDROM => "VDISK_CDROM",
        blkif::VDISK_READONLY => "VDISK_READONLY",
        blkif::ENTRY_SIZE => "sizeof(union blkif_sring_entry)",
        ring::ENTRIES => "offsetof(struct blkif_sring, ring)",
    }
};

const OPEN: &[Row] = open_rows! {
    "xen.h" {
        DomId::SELF => "DOMID_SELF",
    }
    "sched.h" {
        ShutdownReason::POWEROFF => "SHUTDOWN_poweroff",
        ShutdownReason::REBOOT => "SHUTDOWN_reboot",
        ShutdownReason::SUSPEND => "SHUTDOWN_suspend",
        ShutdownReason::CRASH => "SHUTDOWN_crash",
    }
    "io/blkif.h" {
        Operation::READ => "BLKIF_OP_READ",
        Operation::WRITE => "BLKIF_OP_WRITE",
        Operation::WRITE_BARRIER => "BLKIF_OP_WRITE_BARRIER",
        Operation::FLUSH_DISKCACHE => "BLKIF_OP_FLUSH_DISKCACHE",
        Operation::DISCARD => "BLKIF_OP_DISCARD",
        Operation::INDIRECT => "BLKIF_OP_INDIRECT",
        Status::OKAY => "BLKIF_RSP_OKAY",
        Status::ERROR => "BLKIF_RSP_ERROR",
        Status::EOPNOTSUPP => "BLKIF_RSP_EOPNOTSUPP",
    }
    "io/xenbus.h" {
        XenbusState::UNKNOWN => "XenbusStateUnknown",
        XenbusState::INITIALISING => "XenbusStateInitialising",
        XenbusState::INIT_WAIT => "XenbusStateInitWait",
        XenbusState::INITIALISED => "XenbusStateInitialised",
        XenbusState::CONNECTED => "XenbusStateConnected",
        XenbusState::CLOSING => "XenbusStateClosing",
        XenbusState::CLOSED => "XenbusStateClosed",
        XenbusState::RECONFIGURING => "XenbusStateReconfiguring",
        XenbusState::RECONFIGURED => "XenbusStateReconfigured",
    }
    "io/xs_wire.h" {
        MessageType::DIRECTORY => "XS_DIRECTORY",
        MessageType::READ => "XS_READ",
        MessageType::GET_PERMS => "XS_GET_PERMS",
        MessageType::WATCH => "XS_WATCH",
        MessageType::UNWATCH => "XS_UNWATCH",
        MessageType::TRANSACTION_START => "XS_TRANSACTION_START",
        MessageType::TRANSACTION_END => "XS_TRANSACTION_END",
        MessageType::GET_DOMAIN_PATH => "XS_GET_DOMAIN_PATH",
        MessageType::WRITE => "XS_WRITE",
        MessageType::MKDIR => "XS_MKDIR",
        MessageType::RM => "XS_RM",
        MessageType::SET_PERMS => "XS_SET_PERMS",
        MessageType::WATCH_EVENT => "XS_WATCH_EVENT",
        MessageType::ERROR => "XS_ERROR",
        MessageType::RESET_WATCHES => "XS_RESET_WATCHES",
        MessageType::DIRECTORY_PART => "XS_DIRECTORY_PART",
    }
    "errno.h" {
        Errno::EPERM => "XEN_EPERM",
        Errno::ENOENT => "XEN_ENOENT",
        Errno::ESRCH => "XEN_ESRCH",
        Errno::EIO => "XEN_EIO",
        Errno::E2BIG => "XEN_E2BIG",
        Errno::EAGAIN => "XEN_EAGAIN",
        Errno::ENOMEM => "XEN_ENOMEM",
        Errno::EACCES => "XEN_EACCES",
        Errno::EFAULT => "XEN_EFAULT",
        Errno::EBUSY => "XEN_EBUSY",
        Errno::EEXIST => "XEN_EEXIST",
        Errno::EISDIR => "XEN_EISDIR",
        Errno::EINVAL => "XEN_EINVAL",
        Errno::ENOSPC => "XEN_ENOSPC",
        Errno::EROFS => "XEN_EROFS",
        Errno::ENOSYS => "XEN_ENOSYS",
        Errno::ENOTEMPTY => "XEN_ENOTEMPTY",
        Errno::EISCONN => "XEN_EISCONN",
        Errno::ETIME => "XEN_ETIME",
        Errno::EOPNOTSUPP => "XEN_EOPNOTSUPP",
    }
};

/// Constants of `wire` that no C expression gives a number for.
const WITHOUT_NUMBER: &[&str] = &["LAYOUTS", "PROTOCOL", "MAX_PORTS"];

#[test]
fn numbers_are_those_of_c() {
    let rows: Vec<&Row> = NUMBERS.iter().chain(OPEN).collect();
    let questions: Vec<_> = rows
        .iter()
        .map(|row| Question::new(row.header, row.c))
        .collect();
    let headers = Headers::find().unwrap_or_else(|error| panic!("{error}"));
    let theirs = ask(&headers, &questions).unwrap_or_else(|error| panic!("{error:#}"));
    let wrong: Vec<String> = rows
        .iter()
        .zip(theirs)
        .filter(|(row, theirs)| row.value != *theirs)
        .map(|(row, theirs)| {
            let Row { name, value, c, .. } = row;
            format!("{name} is {value}, but {c} is {theirs}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} numbers agree", rows.len());
}

/// A constant that is added to `wire` needs a row above.
#[test]
fn no_number_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../drivers/xen/src/wire");
    let mut missing = Vec::new();
    let mut found = 0;
    for entry in std::fs::read_dir(folder).expect("the wire folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a source file");
        for name in text.lines().filter_map(constant_in) {
            found += 1;
            let ours = |row: &&Row| row.name.rsplit("::").next().map(str::trim) == Some(name);
            let known = NUMBERS.iter().chain(OPEN).find(ours).is_some();
            if !known && !WITHOUT_NUMBER.contains(&name) {
                missing.push(format!("{name} in {}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no row for:\n{}", missing.join("\n"));
    assert!(found > 100, "only {found} constants were found");
}

/// The name in `pub const NAME: …` or, inside an open enum, `NAME = … => "…",`.
/// Layouts are compared elsewhere.
fn constant_in(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let name = match line.strip_prefix("pub const ") {
        Some(rest) => rest.split_once(':')?.0,
        None if line.contains(" => \"") => line.split_once(" = ")?.0,
        None => return None,
    };
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(upper)).then_some(name)
}

#[test]
fn the_source_is_searched_for_both_kinds_of_constants() {
    assert_eq!(constant_in("pub const OP_SEND: u32 = 4;"), Some("OP_SEND"));
    assert_eq!(constant_in("        READ = 0 => \"READ\","), Some("READ"));
    assert_eq!(constant_in("    pub const fn new() {"), None);
    assert_eq!(
        constant_in("        $(Self::$variant => f.write_str($text),)*"),
        None
    );
}

/// Errors that xenstore sends by name: those in the table of its own header.
#[test]
fn every_error_name_of_xenstore_is_known() {
    let headers = Headers::find().unwrap_or_else(|error| panic!("{error}"));
    let text = headers.text("io/xs_wire.h").expect("the header");
    let names = text.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("XSD_ERROR(")?.split_once(')')?.0;
        name.starts_with('E').then_some(name)
    });
    let mut known = 0;
    for name in names {
        assert!(Errno::from_name(name).is_some(), "{name} is not known");
        known += 1;
    }
    assert!(known >= 15, "only {known} names were found");
}
