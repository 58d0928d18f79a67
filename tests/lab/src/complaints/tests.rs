use super::*;

const MARK: &str = "<6>[   60.000000] firn-lab: mark 1 of the log";
const END: &str = "<4>[   63.100030] ---[ end trace 0000000000000000 ]---";
const ERROR: &str = "<3>[   63.000000] vbd vbd-47-51728: 22 reading /local/domain/47/device/vbd/51728/event-channel";
const TRACE: &str = "\
<4>[   63.100000] ------------[ cut here ]------------
<4>[   63.100001] WARNING: CPU: 0 PID: 29 at drivers/block/xen-blkback/xenbus.c:327 xen_blkif_disconnect+0x25e/0x270 [xen_blkback]
<4>[   63.100002] Modules linked in: xen_blkback xen_gntdev xen_evtchn null_blk virtio_blk
<4>[   63.100003] CPU: 0 UID: 0 PID: 29 Comm: xenwatch Not tainted 6.12.0-amd64 #1  Debian 6.12.0-1
<4>[   63.100004] Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.3 04/01/2014
<4>[   63.100005] RIP: e030:xen_blkif_disconnect+0x25e/0x270 [xen_blkback]
<4>[   63.100006] Code: 0f 0b e9 5a ff ff ff 0f 0b <0f> 0b e9 2b ff ff ff 0f 0b
<4>[   63.100007] RSP: e02b:ffffc90040123d50 EFLAGS: 00010297
<4>[   63.100008] RAX: 0000000000000020 RBX: ffff88800a2b4000 RCX: 0000000000000000
<4>[   63.100009] R13: ffff88800a2b4010 R14: 0000000000000000 R15: 0000000000000000
<4>[   63.100010] FS:  0000000000000000(0000) GS:ffff88800f400000(0000) knlGS:0000000000000000
<4>[   63.100011] CS:  e030 DS: 0000 ES: 0000 CR0: 0000000080050033
<4>[   63.100012] CR2: 00007f0000000000 CR3: 0000000004a10000 CR4: 0000000000050660
<4>[   63.100013] Call Trace:
<4>[   63.100014]  <TASK>
<4>[   63.100015]  ? __warn.cold+0x93/0xf6
<4>[   63.100016]  frontend_changed+0x1b5/0x6a0 [xen_blkback]
<4>[   63.100017]  xenwatch_thread+0x9d/0x1c0
<4>[   63.100018]  ret_from_fork_asm+0x1a/0x30
<4>[   63.100019]  </TASK>
<4>[   63.100030] ---[ end trace 0000000000000000 ]---";

/// The complaints of a log with these parts, the lab having destroyed 47.
fn complaints(parts: &[&str]) -> Vec<String> {
    of_linux(&parts.join("\n"), MARK, &BTreeSet::from([47])).expect("the mark is there")
}

#[test]
fn warnings_are_told_by_their_level() {
    assert!(is_warning("<4>[    1.0] xen-blkback: odd"));
    assert!(is_warning("<12>[    1.0] from a program"));
    assert!(!is_warning("<6>[    1.0] WARNING as text"));
    assert!(!is_warning("4> no level"));
}

#[test]
fn only_what_follows_the_mark_counts() {
    let odd = "<4>[    1.0] odd";
    assert_eq!(complaints(&[odd, MARK]), [""; 0]);
    assert_eq!(
        complaints(&[MARK, odd, "<4>[    2.0] clocksource: slow"]),
        [odd]
    );
    assert_eq!(of_linux(odd, MARK, &BTreeSet::new()), None);
}

#[test]
fn a_destroy_in_the_middle_of_a_connect_is_nobodys_fault() {
    assert_eq!(complaints(&[MARK, ERROR, TRACE]), [""; 0]);
    for key in ["ring-ref", "ring-ref0", "ring-ref15"] {
        let error = ERROR.replace("event-channel", key);
        assert_eq!(complaints(&[MARK, &error, TRACE]), [""; 0]);
    }
    // Twice, for two disks of the domain.
    let other = ERROR.replace("51728", "51744");
    assert_eq!(complaints(&[MARK, ERROR, TRACE, &other, TRACE]), [""; 0]);
    // Of a kernel that does not print times.
    let timeless = |line| format!("<{}>{}", level(line).expect("a level"), text(line));
    let all = [ERROR, TRACE].join("\n");
    let all: Vec<_> = all.lines().map(timeless).collect();
    assert_eq!(all[2].split_once('W').expect("there").0, "<4>");
    assert_eq!(complaints(&[MARK, &all.join("\n")]), [""; 0]);
}

/// Two scenes share a log, and one of them begins between error and trace, or
/// looks at the log there.
#[test]
fn it_is_known_from_both_sides_of_a_mark() {
    assert_eq!(complaints(&[ERROR, MARK, TRACE]), [""; 0]);
    assert_eq!(complaints(&[MARK, ERROR]), [""; 0]);
    let (begun, rest) = TRACE.split_at(TRACE.find("<4>[   63.100009]").expect("there"));
    assert_eq!(complaints(&[ERROR, begun, MARK, rest]), [""; 0]);
}

#[test]
fn what_stands_between_its_lines_still_counts() {
    let odd = [
        "<4>[   63.05] xen-blkback: odd",
        "<3>[   63.05] RIP: of an error",
        "<3>[   63.05] vbd vbd-47-51728: 2 reading mode",
    ];
    let (begun, rest) = TRACE.split_at(TRACE.find("<4>[   63.100009]").expect("there"));
    for odd in odd {
        assert_eq!(complaints(&[MARK, ERROR, odd, TRACE]), [odd]);
        assert_eq!(complaints(&[MARK, ERROR, begun, odd, rest]), [odd]);
        assert_eq!(complaints(&[MARK, ERROR, TRACE, odd]), [odd]);
    }
}

#[test]
fn a_trace_alone_is_a_complaint() {
    let whole = TRACE.lines().count();
    assert_eq!(complaints(&[MARK, TRACE]).len(), whole);
    // One error explains one trace.
    assert_eq!(complaints(&[MARK, ERROR, TRACE, TRACE]).len(), whole);
    assert_eq!(complaints(&[MARK, TRACE, ERROR]).len(), whole);
    // One without an end is not it.
    let open = TRACE.trim_end_matches(END);
    assert_eq!(complaints(&[MARK, ERROR, open]).len(), whole - 1);
}

#[test]
fn of_a_domain_that_nobody_destroyed_it_is_a_complaint() {
    let other = ERROR.replace("47", "48");
    let all = 1 + TRACE.lines().count();
    assert_eq!(complaints(&[MARK, &other, TRACE]).len(), all);
    // Nor can a backend of one domain speak for another.
    for (from, to) in [
        ("vbd-47", "vbd-48"),
        ("domain/47", "domain/48"),
        ("vbd/51728", "vbd/51712"),
    ] {
        let mixed = ERROR.replacen(from, to, 1);
        assert_eq!(complaints(&[MARK, &mixed, TRACE]).len(), all, "{mixed}");
    }
}

#[test]
fn other_errors_of_a_destroyed_domain_are_complaints() {
    let all = 1 + TRACE.lines().count();
    let errors = [
        ("22 reading", "13 reading"),
        ("event-channel", "protocol"),
        ("event-channel", "ring-ref-x"),
        (
            "22 reading /local/domain/47/device/vbd/51728/event-channel",
            "1 mapping ring-ref port 5",
        ),
    ];
    for (from, to) in errors {
        let error = ERROR.replace(from, to);
        assert_eq!(complaints(&[MARK, &error, TRACE]).len(), all, "{error}");
    }
}

#[test]
fn another_trace_behind_it_is_a_complaint() {
    for (from, to) in [
        ("xen_blkif_disconnect", "xen_blkif_map"),
        ("block/xen-blkback", "net/xen-netback"),
    ] {
        let other = TRACE.replace(from, to);
        let lines = other.lines().count();
        assert_eq!(complaints(&[MARK, ERROR, &other]).len(), lines);
        // And takes the place of the one that was to follow.
        assert_eq!(complaints(&[MARK, ERROR, &other, TRACE]).len(), 2 * lines);
    }
}

#[test]
fn destroyed_domains_are_noted_once() {
    let lab = Destroyed::default();
    let guest = lab.clone();
    assert!(guest.note(47) && !guest.note(47));
    assert_eq!(lab.so_far(), BTreeSet::from([47]));
    guest.strike(47);
    assert!(lab.so_far().is_empty());
}
