//! From a packet of a service to what the host wants, and to the answer. Pure: no
//! channel, no time.

use super::offence::Offence;
use super::{Command, Service};
use crate::wire::ic::{
    self, BODY, FAILED, FORCE, Head, Heartbeat, MessageKind, Negotiate, OK, OldTime, Pipe,
    RESPONSE, Shutdown, TRANSACTION, Time, Version,
};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Versions of the head, the newest first; those of a heartbeat are the same.
const FRAMES: [Version; 2] = [V3, V1];
const V1: Version = Version::new(1, 0);
const V3: Version = Version::new(3, 0);
/// More versions than this in one list are no list.
const MOST_VERSIONS: u16 = 100;
/// The first version of shutdown that knows of hibernation.
const HIBERNATES: Version = Version::new(3, 2);
/// The first version of time synchronisation that tells the reference time.
const REFERENCED: Version = Version::new(4, 0);
const SHUTDOWNS: [Version; 4] = [HIBERNATES, Version::new(3, 1), V3, V1];
const TIMES: [Version; 3] = [REFERENCED, V3, V1];

impl Service {
    /// Versions of its messages, the newest first.
    const fn versions(self) -> &'static [Version] {
        match self {
            Self::Shutdown => &SHUTDOWNS,
            Self::TimeSync => &TIMES,
            Self::Heartbeat => &FRAMES,
        }
    }

    const fn kind(self) -> MessageKind {
        match self {
            Self::Shutdown => MessageKind::SHUTDOWN,
            Self::TimeSync => MessageKind::TIME_SYNC,
            Self::Heartbeat => MessageKind::HEARTBEAT,
        }
    }
}

/// What a message says to the guest, beside what is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// The version of the service's messages from now on; `None` if there is none
    /// that both ends speak.
    Version(Option<Version>),
    /// The guest shall stop.
    Command(Command),
    /// What time it is on the host: units of 100 ns since 1601.
    Time {
        /// The time.
        host: u64,
        /// The reference time when it was read, in the same units.
        reference: Option<u64>,
        /// The guest's clock stood still, and is to be set.
        set: bool,
    },
}

/// Reads the packet of a service whose messages have `version`, and makes the
/// answer out of it: as long as the packet was, as hosts expect.
///
/// A hibernation is refused unless the guest `hibernates`.
///
/// # Errors
/// [`Offence`].
pub fn answer(
    service: Service,
    version: Option<Version>,
    hibernates: bool,
    packet: &[u8],
) -> Result<(News, Vec<u8>), Offence> {
    let mut head = heads(packet)?;
    let body = &packet[BODY..][..usize::from(head.bytes)];
    let kind = MessageKind(head.kind);
    let mut reply = packet.to_vec();
    let mut status = OK;
    let news = match (kind, version) {
        (MessageKind::NEGOTIATE, _) => {
            let (agreed, answer) = negotiate(service, body)?;
            head.bytes = answer.len() as u16;
            reply.resize(reply.len().max(BODY + answer.len()), 0);
            reply[BODY..][..answer.len()].copy_from_slice(&answer);
            News::Version(agreed)
        }
        (kind, _) if kind != service.kind() => return Err(Offence::WrongKind(kind)),
        (kind, None) => return Err(Offence::NoVersion(kind)),
        (MessageKind::HEARTBEAT, Some(_)) => {
            let mut beat: Heartbeat = read(kind, body)?;
            beat.sequence = beat.sequence.wrapping_add(1);
            reply[BODY..][..size_of::<Heartbeat>()].copy_from_slice(beat.as_bytes());
            News::None
        }
        (MessageKind::SHUTDOWN, Some(version)) => {
            let hibernates = hibernates && version.rank() >= HIBERNATES.rank();
            let command = command(&read(kind, body)?, hibernates);
            status = if command.is_some() { OK } else { FAILED };
            command.map_or(News::None, News::Command)
        }
        (_, Some(version)) => time(version, kind, body)?,
    };
    let pipe = Pipe {
        kind: 1,
        bytes: (reply.len() - size_of::<Pipe>()) as u32,
    };
    (head.status, head.flags) = (status, TRANSACTION | RESPONSE);
    reply[..size_of::<Pipe>()].copy_from_slice(pipe.as_bytes());
    reply[size_of::<Pipe>()..BODY].copy_from_slice(head.as_bytes());
    Ok((news, reply))
}

/// Checks that both heads say what is there.
fn heads(packet: &[u8]) -> Result<Head, Offence> {
    let has = packet.len();
    let short = Offence::TooShort(has);
    let (pipe, rest) = Pipe::read_from_prefix(packet).map_err(|_| short)?;
    let (head, rest) = Head::read_from_prefix(rest).map_err(|_| short)?;
    let wrong = |says| Err(Offence::WrongLength { says, has });
    let piped = pipe.bytes as usize;
    if piped < size_of::<Head>() || piped > has - size_of::<Pipe>() {
        return wrong(pipe.bytes);
    }
    if usize::from(head.bytes) > rest.len().min(piped - size_of::<Head>()) {
        return wrong(head.bytes.into());
    }
    Ok(head)
}

fn read<T: FromBytes + Immutable>(kind: MessageKind, body: &[u8]) -> Result<T, Offence> {
    let read = T::read_from_prefix(body).map(|(message, _)| message);
    read.map_err(|_| Offence::MessageTooShort(kind, body.len()))
}

/// Chooses the newest versions that the host lists; the answer's body.
fn negotiate(service: Service, body: &[u8]) -> Result<(Option<Version>, Vec<u8>), Offence> {
    let kind = MessageKind::NEGOTIATE;
    let offered: Negotiate = read(kind, body)?;
    let Negotiate {
        frames, messages, ..
    } = offered;
    let possible = 1..=MOST_VERSIONS;
    if !possible.contains(&frames) || !possible.contains(&messages) {
        return Err(Offence::Versions { frames, messages });
    }
    let list = &body[size_of::<Negotiate>()..];
    let (frames, messages) = (usize::from(frames), usize::from(messages));
    let listed = list.get(..(frames + messages) * size_of::<Version>());
    let listed = listed.ok_or(Offence::MessageTooShort(kind, body.len()))?;
    let (frames, messages) = listed.split_at(frames * size_of::<Version>());
    let agreed = newest(&FRAMES, frames).zip(newest(service.versions(), messages));
    let count = u16::from(agreed.is_some());
    let head = Negotiate {
        frames: count,
        messages: count,
        reserved: 0,
    };
    let mut answer = head.as_bytes().to_vec();
    if let Some((frame, message)) = agreed {
        answer.extend(frame.as_bytes());
        answer.extend(message.as_bytes());
    }
    Ok((agreed.map(|(_, message)| message), answer))
}

/// The newest of ours that is in the host's list.
fn newest(ours: &[Version], list: &[u8]) -> Option<Version> {
    let listed = |version: &&Version| {
        let mut list = list.chunks_exact(size_of::<Version>());
        list.any(|other| other == version.as_bytes())
    };
    ours.iter().find(listed).copied()
}

/// What the flags ask for, if it is known and can be done.
const fn command(shutdown: &Shutdown, hibernates: bool) -> Option<Command> {
    match shutdown.flags & !FORCE {
        0 => Some(Command::PowerOff),
        2 => Some(Command::Reboot),
        4 if hibernates => Some(Command::Hibernate),
        _ => None,
    }
}

fn time(version: Version, kind: MessageKind, body: &[u8]) -> Result<News, Offence> {
    let (host, reference, flags) = if version.rank() >= REFERENCED.rank() {
        let time: Time = read(kind, body)?;
        (time.host, Some(time.reference), time.flags)
    } else {
        let time: OldTime = read(kind, body)?;
        (time.host, None, time.flags)
    };
    let (set, sample) = (flags & ic::SYNC != 0, flags & ic::SAMPLE != 0);
    Ok(match set || sample {
        true => News::Time {
            host,
            reference,
            set,
        },
        // A probe, which only measures how long messages take.
        false => News::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with a body.
    fn packet(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        packet.extend(1u32.to_le_bytes());
        packet.extend((20 + body.len() as u32).to_le_bytes());
        for half in [3, 0, kind, 3, 0, body.len() as u16] {
            packet.extend(u16::to_le_bytes(half));
        }
        packet.extend([0, 0, 0, 0, 9, TRANSACTION | ic::REQUEST, 0, 0]);
        packet.extend(body);
        packet
    }

    fn versions(frames: &[[u16; 2]], messages: &[[u16; 2]]) -> Vec<u8> {
        let mut body = Vec::new();
        for half in [frames.len() as u16, messages.len() as u16, 0, 0] {
            body.extend(half.to_le_bytes());
        }
        let all = frames.iter().chain(messages).flatten();
        body.extend(all.flat_map(|half| half.to_le_bytes()));
        body
    }

    #[test]
    fn the_newest_version_of_both_ends_is_chosen() {
        let body = versions(&[[1, 0], [3, 0]], &[[1, 0], [3, 2], [5, 0], [3, 1]]);
        let (news, reply) =
            answer(Service::Shutdown, None, true, &packet(0, &body)).expect("it is well made");
        assert_eq!(news, News::Version(Some(HIBERNATES)));
        assert_eq!(
            reply[BODY..][..16],
            [1, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 2, 0]
        );
        assert_eq!(reply[24..26], [9, TRANSACTION | RESPONSE]);
        assert_eq!((reply[18], reply.len()), (16, BODY + body.len()));
        let body = versions(&[[2, 0]], &[[3, 0]]);
        let (news, reply) =
            answer(Service::Heartbeat, None, true, &packet(0, &body)).expect("it is well made");
        assert_eq!(news, News::Version(None));
        assert_eq!(reply[BODY..][..8], [0; 8]);
    }

    #[test]
    fn lists_of_no_or_of_impossible_length_are_none() {
        for (frames, messages) in [(0, 1), (1, 0), (101, 1), (u16::MAX, u16::MAX)] {
            let mut body = versions(&[[3, 0]], &[[3, 0]]);
            body[..2].copy_from_slice(&u16::to_le_bytes(frames));
            body[2..4].copy_from_slice(&u16::to_le_bytes(messages));
            let refused = answer(Service::TimeSync, None, true, &packet(0, &body));
            assert_eq!(refused, Err(Offence::Versions { frames, messages }));
        }
        let mut body = versions(&[[3, 0]], &[[3, 0]]);
        body[2] = 2;
        let refused = answer(Service::TimeSync, None, true, &packet(0, &body));
        assert!(matches!(refused, Err(Offence::MessageTooShort(..))));
    }

    #[test]
    fn only_what_can_be_done_is_promised() {
        let ask = |flags: u32, version, hibernates| {
            let mut body = [0; 2060];
            body[8..12].copy_from_slice(&flags.to_le_bytes());
            let asked = packet(3, &body);
            let (news, reply) = answer(Service::Shutdown, Some(version), hibernates, &asked)
                .expect("it is well made");
            let status = u32::from_le_bytes([reply[20], reply[21], reply[22], reply[23]]);
            (news, status)
        };
        let (new, old) = (HIBERNATES, Version::new(3, 1));
        for (flags, command) in [
            (0, Command::PowerOff),
            (1, Command::PowerOff),
            (2, Command::Reboot),
            (3, Command::Reboot),
            (4, Command::Hibernate),
            (5, Command::Hibernate),
        ] {
            assert_eq!(ask(flags, new, true), (News::Command(command), OK));
        }
        let refused = (News::None, FAILED);
        assert_eq!(ask(4, old, true), refused, "before 3.2");
        assert_eq!(ask(4, new, false), refused, "no image disk");
        assert_eq!(ask(6, new, true), refused);
        assert_eq!(ask(u32::MAX, new, true), refused);
    }

    #[test]
    fn a_packet_is_not_read_beyond_what_is_there() {
        let beat = packet(1, &[0; 40]);
        let version = Some(Version::new(3, 0));
        for cut in 0..beat.len() {
            let cut = answer(Service::Heartbeat, version, false, &beat[..cut]);
            assert!(cut.is_err());
        }
        let mut long = beat.clone();
        long[18] = 41;
        let wrong = answer(Service::Heartbeat, version, false, &long);
        let has = beat.len();
        assert_eq!(wrong, Err(Offence::WrongLength { says: 41, has }));
        let foreign = answer(Service::Shutdown, version, false, &beat);
        assert_eq!(foreign, Err(Offence::WrongKind(MessageKind::HEARTBEAT)));
        let early = answer(Service::Heartbeat, None, false, &beat);
        assert_eq!(early, Err(Offence::NoVersion(MessageKind::HEARTBEAT)));
    }
}
