//! Every fault point of the table.

use super::{BusPoint, BusStep, Takes};
use firn_hyperv::wire::{vmbus, vstor};
use firn_peers::hyperv::HvOffence as O;
use std::time::Duration;

/// The table: at which step, what, how the sequence ends, what that takes.
macro_rules! rows {
    ($($step:ident, $fault:literal: $bench:ident => $act:expr, $ends:literal, $takes:ident;)*) => {
        pub(super) const ROWS: &[BusPoint] = &[$(BusPoint {
            step: BusStep::$step,
            fault: $fault,
            make: |$bench| $act,
            ends: $ends,
            takes: Takes::$takes,
        }),*];
    };
}

rows! {
    Shut, "it is shut already": b => b.shut_one(), "shut the gate: the disk is shut", Nothing;
    Shut, "the controller is taken back": b => b.take_back(), "shut the gate: the disk is closed", Controller;
    Shut, "the LUN is taken out": b => b.take_out(), "flush: the disk is gone", Disk;
    Drain, "the host does not answer": b => b.first().allow(Some(0)), "6 requests in flight at the deadline", Nothing;
    Drain, "the disk fails": b => b.disks[0].fail_after(Some(2)), "hardware error", Nothing;
    Drain, "the controller is taken back": b => b.world.host.rescind(0), "the disk is closed", Controller;
    Drain, "taken back and offered again": b => b.offer_again(), "the disk is", Nothing;
    Drain, "the LUN is taken out": b => b.first().unplug(0), "flush: the disk is gone", Disk;
    Drain, "a subchannel is taken back": b => b.take_subchannel(), "", Nothing;
    Drain, "an answer by another channel": b => b.offend(O::CompletesElsewhere), "the disk is failed", Controller;
    Drain, "an answer to nothing": b => b.offend(O::UnknownTransaction), "the disk is failed", Controller;
    Drain, "an answer twice": b => b.offend(O::DoubledCompletion), "the disk is failed", Controller;
    Drain, "the disk is busy": b => b.first().busy(0, 9), "", Nothing;
    Drain, "the host is gone": b => b.world.host.hang(true), "6 requests in flight at the deadline", Nothing;
    Flush, "the disk fails": b => b.disks[0].fail_after(Some(0)), "hardware error", Nothing;
    Flush, "the host does not answer": b => b.first().allow(Some(0)), "1 requests in flight at the deadline", Nothing;
    Flush, "unit attention": b => b.first().attention(0, 0x29, 0), "", Nothing;
    Flush, "the controller is taken back": b => b.world.host.rescind(0), "flush: the disk is", Controller;
    Flush, "an answer to nothing": b => b.offend(O::UnknownTransaction), "flush: the disk is failed", Controller;
    Flush, "the host is gone": b => b.world.host.hang(true), "1 requests in flight at the deadline", Nothing;
    Flush, "the LUN is taken out": b => b.take_out(), "flush: the disk is closed", Disk;
    Idle, "something is in flight": b => b.leave_one_unanswered(), "requests", Nothing;
    Idle, "the controller is taken back": b => b.take_back(), "the disk is closed", Controller;
    Disconnect, "the host keeps the memory": b => b.offend(O::NeverTearsDown), "no GPADL_TORNDOWN until the deadline", Pages;
    Disconnect, "the controller is taken back": b => b.world.host.rescind(0), "the host offers no controller", Controller;
    Disconnect, "a subchannel is taken back": b => b.take_subchannel(), "", Nothing;
    Disconnect, "subchannels stay offered": b => b.offend(O::KeepsSubchannels), "", Nothing;
    Disconnect, "the host is gone": b => b.world.host.hang(true), "no GPADL_TORNDOWN until the deadline", Pages;
    Disconnect, "other memory is let go of": b => b.offend(O::TorndownForeign), "broke the protocol", Bus;
    Disconnect, "no room for messages": b => b.world.machine.refuse_posts(u32::MAX), "the host took no message until the deadline", Pages;
    Disconnect, "something is in flight": b => b.leave_one_unanswered(), "requests", Nothing;
    Unload, "it takes 50 seconds": b => b.world.host.unload_takes(Duration::from_secs(50)), "", Nothing;
    Unload, "it takes 130 seconds": b => b.world.host.unload_takes(Duration::from_secs(130)), "no UNLOAD_RESPONSE until the deadline", Nothing;
    Unload, "no answer": b => b.offend(O::NeverUnloads), "no UNLOAD_RESPONSE until the deadline", Bus;
    Unload, "the host is gone": b => b.world.host.hang(true), "no UNLOAD_RESPONSE until the deadline", Nothing;
    Unload, "no room for messages": b => b.world.machine.refuse_posts(u32::MAX), "the host took no message until the deadline", Nothing;
    TurnOn, "no hypercall page": b => b.world.machine.withhold_hypercalls(true), "hypercall page", Nothing;
    Contact, "other relids and connections": b => b.world.settle(), "", Nothing;
    Contact, "an older host": b => b.world.host.speaks_only(vmbus::Version::V3_0), "", Nothing;
    Contact, "no room for messages for a while": b => b.world.machine.refuse_posts(30), "", Nothing;
    Contact, "no room for messages": b => b.world.machine.refuse_posts(u32::MAX), "the host took no message until the deadline", Nothing;
    Contact, "no version in common": b => b.offend(O::SpeaksNothing), "no version from 2.4 on", Nothing;
    Contact, "no answer": b => b.offend(O::NeverAnswersContact), "no VERSION_RESPONSE until the deadline", Nothing;
    Contact, "no end of the offers": b => b.offend(O::NeverDeliversOffers), "no ALL_OFFERS_DELIVERED until the deadline", Nothing;
    Contact, "the host is gone": b => b.world.host.hang(true), "no VERSION_RESPONSE until the deadline", Bus;
    Contact, "the oldest host": b => b.world.host.speaks_only(vmbus::Version::V2_4), "", Nothing;
    Contact, "a version and no connection": b => b.offend(O::NotConnectable), "refuses to connect", Nothing;
    Contact, "a version and no word of its connection": b => b.offend(O::NoConnectionId), "broke the protocol", Bus;
    Contact, "a message that nobody knows": b => b.offend(O::UnknownMessage), "broke the protocol", Bus;
    Contact, "a channel offered twice": b => b.offend(O::OffersTwice), "broke the protocol", Bus;
    Connect, "an older controller": b => b.first().speaks_only(vstor::Version::V4_2), "", Nothing;
    Connect, "fewer subchannels than before": b => b.make_subchannels(1, 1), "", Nothing;
    Connect, "fewer subchannels than it says": b => b.make_subchannels(2, 1), "", Nothing;
    Connect, "more subchannels than before": b => b.make_subchannels(3, 3), "", Nothing;
    Connect, "no subchannels where there were some": b => b.make_subchannels(0, 0), "", Nothing;
    Connect, "subchannels are refused": b => b.offend(O::RefusesSubchannels), "", Nothing;
    Connect, "the wish for subchannels is not answered": b => b.offend(O::NeverAnswersSubchannels), "", Nothing;
    Connect, "subchannels that nobody asked for": b => b.offend(O::SubchannelsEarly), "", Nothing;
    Connect, "a subchannel offered twice": b => b.offend(O::SubchannelTwice), "broke the protocol", Bus;
    Connect, "a subchannel is refused": b => b.offend(O::RefusesSubchannelOpen), "", Nothing;
    Connect, "a subchannel never opens": b => b.offend(O::NeverOpensSubchannel), "", Nothing;
    Connect, "a subchannel is taken back while it opens": b => b.offend(O::RescindsSubchannelAtOpen), "", Nothing;
    Connect, "unit attention": b => b.first().attention(0, 0x29, 0), "", Nothing;
    Connect, "another size": b => b.first().attention(0, 0x2a, 0x09), "", Nothing;
    Connect, "no memory": b => b.world.machine.limit_memory(0), "no memory that could be shared", Nothing;
    Connect, "the memory is refused": b => b.offend(O::RefusesGpadl), "GPADL_CREATED says", Nothing;
    Connect, "no answer to the memory": b => b.offend(O::NeverCreatesGpadl), "no GPADL_CREATED until the deadline", Pages;
    Connect, "the channel is refused": b => b.offend(O::RefusesOpen), "OPEN_RESULT says", Nothing;
    Connect, "the channel never opens": b => b.offend(O::NeverOpens), "no OPEN_RESULT until the deadline", Nothing;
    Connect, "taken back while it opens": b => b.offend(O::RescindsAtOpen), "took the offer back", Controller;
    Connect, "taken back at its memory": b => b.offend(O::RescindsAtGpadl), "took the offer back", Controller;
    Connect, "taken back before": b => b.take_back(), "the host offers no controller", Controller;
    Connect, "its instance is another": b => b.rename(), "the host offers no controller", Controller;
    Connect, "the handshake is refused": b => b.offend(O::RefusesBegin), "the host refuses BEGIN_INITIALIZATION", Nothing;
    Connect, "the handshake is not answered": b => b.offend(O::NeverBegins), "no answer to a packet of the handshake", Nothing;
    Connect, "no version in common": b => b.offend(O::RefusesVersions), "the host speaks no version of storvsc", Nothing;
    Connect, "the limits are refused": b => b.offend(O::RefusesProperties), "the host refuses QUERY_PROPERTIES", Nothing;
    Connect, "the handshake's end is refused": b => b.offend(O::RefusesEnd), "the host refuses END_INITIALIZATION", Nothing;
    Connect, "an odd list of units": b => b.offend(O::OddLuns), "list of units has an impossible length", Nothing;
    Connect, "the LUN is gone": b => b.first().unplug(0), "", Disk;
    Connect, "another LUN in its place": b => b.exchange(), "", Disk;
    Connect, "another number": b => b.renumber(), "", Nothing;
    Connect, "the host is gone": b => b.world.host.hang(true), "no GPADL_CREATED until the deadline", Pages;
    Connect, "no room for messages": b => b.world.machine.refuse_posts(u32::MAX), "the host took no message until the deadline", Pages;
    Connect, "answers an open twice": b => b.offend(O::OpenResultTwice), "broke the protocol", Bus;
    Connect, "the disk does not answer": b => b.first().allow(Some(0)), "until the deadline", Nothing;
    Open, "the controller is taken back": b => b.take_back(), "open the gate: the disk is closed", Controller;
    Open, "the LUN is taken out": b => b.take_out(), "open the gate: the disk is closed", Disk;
    Open, "a subchannel is taken back": b => b.take_subchannel(), "", Nothing;
    Open, "unit attention": b => b.first().attention(0, 0x29, 0), "", Nothing;
}
