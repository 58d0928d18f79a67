//! Guards of the Hyper-V drivers and of SCSI.

use super::{Mutant, mutant};

const SYNIC: &str = "drivers/hyperv/src/synic.rs";
const POST: &str = "drivers/hyperv/src/post.rs";
const MESSAGE: &str = "drivers/hyperv/src/vmbus/message.rs";
const WAIT: &str = "drivers/hyperv/src/vmbus/wait.rs";
const OFFERS: &str = "drivers/hyperv/src/vmbus/offers.rs";
const CONTACT: &str = "drivers/hyperv/src/vmbus/contact.rs";
const CHANNEL: &str = "drivers/hyperv/src/vmbus/channel.rs";
const SEND: &str = "drivers/hyperv/src/ring/send.rs";
const RECEIVE: &str = "drivers/hyperv/src/ring/receive.rs";
const PACKET: &str = "drivers/hyperv/src/storvsc/packet.rs";
const LINK: &str = "drivers/hyperv/src/storvsc/link.rs";
const TAKE: &str = "drivers/hyperv/src/storvsc/receive.rs";
const PORT: &str = "drivers/hyperv/src/storvsc/port.rs";
const CONTROLLER: &str = "drivers/hyperv/src/storvsc/controller.rs";
const SUBCHANNELS: &str = "drivers/hyperv/src/storvsc/subchannels.rs";
const WIRE: &str = "drivers/hyperv/src/storvsc/wire.rs";
const COMPLETE: &str = "drivers/hyperv/src/storvsc/complete.rs";
const DISKS: &str = "drivers/hyperv/src/storvsc/disks.rs";
const FOLLOW: &str = "drivers/hyperv/src/storvsc/follow.rs";
const STEPS: &str = "drivers/hyperv/src/storvsc/steps.rs";
const SERVICE: &str = "drivers/hyperv/src/ic/message.rs";
const SERVE: &str = "drivers/hyperv/src/ic/serve.rs";
const SCAN: &str = "drivers/hyperv/src/storvsc/scan.rs";
const SENSE: &str = "drivers/scsi/src/sense.rs";
const LUNS: &str = "drivers/scsi/src/luns.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "the hypervisor is not told that a message slot is empty",
        SYNIC,
        "hal.write_msr(Msr::EOM, 0);",
        "let _ = hal.read_msr(Msr::EOM);",
    ),
    mutant(
        "a message that the host has no room for is lost",
        POST,
        "Status::INSUFFICIENT_BUFFERS | Status::INSUFFICIENT_MEMORY => {}\n                refusal => return Err(PostError::Refused(refusal)),",
        "refusal => return Err(PostError::Refused(refusal)),",
    ),
    mutant(
        "a message is believed to be as long as it says",
        MESSAGE,
        "let bytes = bytes.ok_or(Offence::MessageTooLong(message.size))?;",
        "let bytes = bytes.unwrap_or(&message.payload);",
    ),
    mutant(
        "a reply that nobody waits for is borne",
        WAIT,
        "Some(Wait::Answered(_)) | None => return Err(Offence::Unsolicited(key.kind())),",
        "Some(Wait::Answered(_)) | None => {}",
    ),
    mutant(
        "a channel's number is used for two",
        OFFERS,
        "return Err(Offence::OfferedTwice(relid));",
        "let _ = relid;",
    ),
    mutant(
        "a number beyond the flags is a channel's",
        OFFERS,
        "if relid == 0 || relid >= FLAGS {",
        "if relid == 0 {",
    ),
    mutant(
        "a monitor bit that pages do not have is taken",
        OFFERS,
        "if allocated && wire.monitor >= vmbus::MONITORS {",
        "if allocated && wire.monitor == u8::MAX {",
    ),
    mutant(
        "a monitor is told of channels that it does not watch",
        CHANNEL,
        "let monitored = bus.config.monitored && config.interrupts;",
        "let monitored = bus.config.monitored;",
    ),
    mutant(
        "messages go where contact was made",
        CONTACT,
        "Some(connection) if connection != 0 => self.connection.set(connection),",
        "Some(connection) if connection != 0 => {}",
    ),
    mutant(
        "a host without the new connection is given up",
        CONTACT,
        "if version >= Version::V5_0 => {}",
        "if version > Version::V6_0 => {}",
    ),
    mutant(
        "memory that the host keeps is used again",
        CHANNEL,
        "if torn_down.is_ok() {",
        "if torn_down.is_ok() || true {",
    ),
    mutant(
        "a read index beyond what was written is believed",
        SEND,
        "if self.data.distance(self.read, read) > shown {",
        "if self.data.distance(self.read, read) > u32::MAX - 1 {",
    ),
    mutant(
        "the host is signalled for every packet",
        SEND,
        "Ok(self.read == before)",
        "Ok(self.read < u32::MAX)",
    ),
    mutant(
        "the host is never signalled",
        SEND,
        "Ok(self.read == before)",
        "Ok(self.read > u32::MAX - 1)",
    ),
    mutant(
        "a write index outside the ring is believed",
        RECEIVE,
        "if write >= self.data.size {",
        "if write > u32::MAX - 1 {",
    ),
    mutant(
        "a packet is believed to be as long as it says",
        RECEIVE,
        "if bytes > written {",
        "if bytes > u32::MAX - 1 {",
    ),
    mutant(
        "a packet that came while unmasking is slept over",
        RECEIVE,
        "fence(SeqCst);\n        self.has_packets()",
        "fence(SeqCst);\n        self.has_packets().map(|_| false)",
    ),
    mutant(
        "a host that waits for room is not told of any",
        RECEIVE,
        "free > wanted && free.saturating_sub(freed) <= wanted",
        "free > wanted && free < wanted",
    ),
    mutant(
        "more bytes are said to be moved than were asked for",
        PACKET,
        "if moved > asked {",
        "if moved > u32::MAX - 1 {",
    ),
    mutant(
        "sense data are read beyond their room",
        PACKET,
        "if length > version.sense_bytes().min(SENSE) {",
        "if length > usize::MAX - 1 {",
    ),
    mutant(
        "a completion of the wrong kind counts",
        PACKET,
        "other => Err(Offence::WrongOperation(other)),",
        "_ => Ok(packet),",
    ),
    mutant(
        "news of the host are not looked for on an idle ring",
        TAKE,
        "Ok(self.interrupts && self.pieces == 0 && self.ports[0].arm()?)",
        "Ok(false && self.ports[0].arm()?)",
    ),
    mutant(
        "an answer for the control path is waited for on a masked ring",
        TAKE,
        "Ok(self.interrupts && self.pieces == 0 && self.ports[0].arm()?)",
        "Ok(self.interrupts && self.outstanding() == 0 && self.ports[0].arm()?)",
    ),
    mutant(
        "an answer that a disk's poll takes wakes nobody",
        WIRE,
        "if link_now.news() > known {",
        "if link_now.look_again && known == 0 {",
    ),
    mutant(
        "a bus that was not told to unload is taken for disconnected",
        CONTACT,
        "BusError::Post(..) => self.state.set(BusState::Connected(version)),",
        "BusError::Post(..) => self.state.set(BusState::Disconnected),",
    ),
    mutant(
        "a channel is opened that the host takes for open",
        CHANNEL,
        "open: Cell::new(offers.take_left_open(relid)),",
        "open: Cell::new(false && offers.take_left_open(relid)),",
    ),
    mutant(
        "a channel whose closing is dropped stays in use",
        CHANNEL,
        "offers.put_back(relid);\n        drop(offers);",
        "drop(offers);",
    ),
    mutant(
        "disks stay shut whose disconnect is dropped",
        STEPS,
        "let _ = unit.front.borrow_mut().step(self.to);",
        "let _ = (unit, self.to == Lifecycle::Closed || unit.front.borrow_mut().step(self.to).is_ok());",
    ),
    mutant(
        "a disk that nobody found is put on a channel",
        STEPS,
        "} else if state == Lifecycle::Frozen && unit.found.get() {",
        "} else if state == Lifecycle::Frozen {",
    ),
    mutant(
        "polling takes interrupts",
        PORT,
        "self.channel.ring.receive.mask();\n        }",
        "}",
    ),
    mutant(
        "all requests go by the first channel",
        PORT,
        "if busy(last) >= busy(least).saturating_add(RUN) {",
        "if busy(last) == usize::MAX {",
    ),
    mutant(
        "a queue of a few requests goes by several channels",
        PORT,
        "if busy(last) >= busy(least).saturating_add(RUN) {\n        least\n    } else {\n        last\n    }",
        "let _ = last; least",
    ),
    mutant(
        "a completion counts by whichever channel it comes",
        TAKE,
        "if waits.port != number {",
        "if waits.port == u16::MAX {",
    ),
    mutant(
        "only the first channel is looked at",
        TAKE,
        "for step in 0..self.ports.len() {",
        "for step in 0..1 {",
    ),
    mutant(
        "no event is asked for of further channels",
        TAKE,
        "if self.interrupts && (at == 0 || port.in_flight > 0) {",
        "if self.interrupts && at == 0 {",
    ),
    mutant(
        "signals of further channels wake nobody",
        LINK,
        "channel.share_events(self.events());",
        "",
    ),
    mutant(
        "what was in flight on a channel that went is forgotten",
        LINK,
        "inbox.push_back((piece, Ended::Bad(Condition::Aborted)));",
        "let _ = (piece, inbox);",
    ),
    mutant(
        "a channel that was taken back is used on",
        FOLLOW,
        "self.drop_lost_channels().await;",
        "",
    ),
    mutant(
        "the first channel closes before the others",
        CONTROLLER,
        "for channel in channels.into_iter().rev() {",
        "for channel in channels {",
    ),
    mutant(
        "a channel that was given up half-way outlives the first one",
        CONTROLLER,
        "self.close_left_open().await;",
        "",
    ),
    mutant(
        "as many channels are asked for as the host says",
        SUBCHANNELS,
        "let asked = most.min(self.config.subchannels).min(MOST_SUBCHANNELS);",
        "let asked = most.min(self.config.subchannels.max(4)).min(MOST_SUBCHANNELS.max(9));",
    ),
    mutant(
        "an old version is asked for further channels",
        SUBCHANNELS,
        "if asked == 0 || !self.version().is_some_and(Version::has_subchannels) {",
        "if asked == 0 {",
    ),
    mutant(
        "a refusal of further channels is taken for a yes",
        SUBCHANNELS,
        "Ok(answer) if answer.status == Status::SUCCESS => {}",
        "Ok(answer) if answer.status != Status::REVISION_MISMATCH => {}",
    ),
    mutant(
        "a late answer to the wish for channels is somebody's",
        LINK,
        "*waiter = Waiter::Nobody;",
        "let _ = waiter;",
    ),
    mutant(
        "a request that was cut short succeeds",
        COMPLETE,
        "let short = op.has_data() && !whole;",
        "let short = op.has_data() && !whole && false;",
    ),
    mutant(
        "a command that met a unit attention is not sent again",
        COMPLETE,
        "condition if condition.is_passing() => return Verdict::Again,",
        "condition if condition.is_passing() && false => return Verdict::Again,",
    ),
    mutant(
        "a buffer that the host can still reach is handed out",
        COMPLETE,
        "parent.withhold |= reach;",
        "parent.withhold |= reach && false;",
    ),
    mutant(
        "a disk is another's because it has its number",
        DISKS,
        "unit.number() == found.number && !unit.name.borrow().is_other(&found.name)",
        "unit.number() == found.number",
    ),
    mutant(
        "a disk that comes back is open at once",
        DISKS,
        "let live = front.state() == Lifecycle::Connecting && !shut;",
        "let live = true;",
    ),
    mutant(
        "requests without an answer are waited for for ever",
        FOLLOW,
        "if late >= self.config.give_up_after {",
        "if late >= self.config.give_up_after * 1000 {",
    ),
    mutant(
        "a channel closes under a busy disk",
        STEPS,
        "for unit in &units {\n            unit.check_idle()?;",
        "for unit in &units {\n            let _ = unit.check_idle();",
    ),
    mutant(
        "a busy disk leaves the channel",
        STEPS,
        "unit.check_idle()?;\n        unit.wanted",
        "let _ = unit.check_idle();\n        unit.wanted",
    ),
    mutant(
        "a disk that left comes back with another",
        DISKS,
        "front.state() == Lifecycle::Frozen && !unit.wanted.get()",
        "false",
    ),
    mutant(
        "a service's packet is believed to be as long as it says",
        SERVICE,
        "if piped < size_of::<Head>() || piped > has - size_of::<Pipe>() {",
        "if piped < size_of::<Head>() {",
    ),
    mutant(
        "a hibernation is promised that cannot be",
        SERVICE,
        "4 if hibernates => Some(Command::Hibernate),",
        "4 => Some(Command::Hibernate),",
    ),
    mutant(
        "a message before a version is heeded",
        SERVICE,
        "(kind, None) => return Err(Offence::NoVersion(kind)),",
        "(_, None) => News::Command(Command::PowerOff),",
    ),
    mutant(
        "an old version of a service is chosen",
        SERVICE,
        "ours.iter().find(listed).copied()",
        "ours.iter().rev().find(listed).copied()",
    ),
    mutant(
        "the host is left without an answer",
        SERVE,
        "self.send(service, channel, transaction, &reply).await?;",
        "let _ = (transaction, &reply);",
    ),
    mutant(
        "a service is served on while the bus is to be unloaded",
        SERVE,
        "if self.held.get() || channel.is_rescinded() {",
        "if channel.is_rescinded() {",
    ),
    mutant(
        "a write-protected disk is said to be writable",
        SCAN,
        "found.info.read_only = read_only;",
        "found.info.read_only = read_only && false;",
    ),
    mutant(
        "sense data beyond their length count",
        SENSE,
        "let valid = &bytes[..bytes.len().min(length)];",
        "let valid = &bytes[..bytes.len().max(length).min(bytes.len())];",
    ),
    mutant(
        "a list of units of any length is read",
        LUNS,
        "if !length.is_multiple_of(8) {",
        "if length == u32::MAX {",
    ),
];
