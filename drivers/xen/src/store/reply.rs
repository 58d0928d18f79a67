//! What a payload says: every reply is taken apart here.

use super::error::StoreOffence;
use crate::wire::DomId;
use crate::wire::errno::Errno;
use crate::wire::xs::MessageType;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Longest name of an error; the longest known has nine characters.
const ERROR_NAME_MAX: usize = 16;

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Known(Errno),
    Named(String),
}

/// The error that an error reply names. A name that we do not know is no
/// offence (one server says `EQUOTA`): it fails only its request.
pub(super) fn refusal(payload: &[u8]) -> Result<Refusal, StoreOffence> {
    let name = core::str::from_utf8(without_nul(payload)).map_err(|_| StoreOffence::NoErrorName)?;
    if let Some(errno) = Errno::from_name(name) {
        return Ok(Refusal::Known(errno));
    }
    let plausible = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    if name.starts_with('E') && name.len() <= ERROR_NAME_MAX && name.bytes().all(plausible) {
        return Ok(Refusal::Named(name.to_owned()));
    }
    Err(StoreOffence::NoErrorName)
}

/// Checks the `OK` that acknowledges a change.
pub(super) fn acknowledged(asked: MessageType, payload: &[u8]) -> Result<(), StoreOffence> {
    match without_nul(payload) {
        b"OK" => Ok(()),
        _ => Err(StoreOffence::NoAcknowledgement { asked }),
    }
}

/// The names in a list of children.
pub(super) fn children(payload: &[u8]) -> Result<Vec<String>, StoreOffence> {
    strings(MessageType::DIRECTORY, payload)?
        .into_iter()
        .map(child)
        .collect()
}

fn child(name: &str) -> Result<String, StoreOffence> {
    if name.is_empty() || name.contains('/') {
        return Err(StoreOffence::ChildName);
    }
    Ok(name.to_owned())
}

/// A part of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Changes whenever the list does.
    pub(super) generation: u64,
    /// Some of the children.
    pub(super) names: Vec<String>,
    /// Whether there are none after these.
    pub(super) last: bool,
}

impl Part {
    /// `GENERATION|NAME|NAME|…`, with an empty name at the very end.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, StoreOffence> {
        let list = strings(MessageType::DIRECTORY_PART, payload)?;
        let (first, names) = list.split_first().ok_or(StoreOffence::Generation)?;
        let generation = number(first).ok_or(StoreOffence::Generation)?;
        let (last, names) = match names.split_last() {
            None => return Err(StoreOffence::EmptyPart),
            Some((&"", before)) => (true, before),
            Some(_) => (false, names),
        };
        let names = names.iter().copied().map(child).collect::<Result<_, _>>()?;
        Ok(Self {
            generation,
            names,
            last,
        })
    }
}

/// Who may do what with a node: the first entry names the owner and what
/// everybody else may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What may be done.
    pub rights: Rights,
    /// By whom.
    pub domain: DomId,
}

/// What may be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Nothing: `n`.
    None,
    /// Read: `r`.
    Read,
    /// Write: `w`.
    Write,
    /// Both: `b`.
    Both,
}

impl Permission {
    fn parse(text: &str) -> Option<Self> {
        let mut chars = text.chars();
        let rights = match chars.next()? {
            'n' => Rights::None,
            'r' => Rights::Read,
            'w' => Rights::Write,
            'b' => Rights::Both,
            _ => return None,
        };
        let domain = DomId(u16::try_from(number(chars.as_str())?).ok()?);
        Some(Self { rights, domain })
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::Both => 'b',
        };
        write!(f, "{letter}{}", self.domain.0)
    }
}

/// The entries of a list of permissions.
pub(super) fn permissions(payload: &[u8]) -> Result<Vec<Permission>, StoreOffence> {
    strings(MessageType::GET_PERMS, payload)?
        .into_iter()
        .map(|text| Permission::parse(text).ok_or(StoreOffence::Permission))
        .collect()
}

/// The id of a new transaction.
pub(super) fn transaction(payload: &[u8]) -> Result<u32, StoreOffence> {
    core::str::from_utf8(without_nul(payload))
        .ok()
        .and_then(number)
        .and_then(|id| u32::try_from(id).ok())
        .filter(|id| *id != 0)
        .ok_or(StoreOffence::TransactionId)
}

/// The home of a domain.
pub(super) fn domain_path(payload: &[u8]) -> Result<String, StoreOffence> {
    match strings(MessageType::GET_DOMAIN_PATH, payload)?[..] {
        [path] if path.starts_with('/') => Ok(path.to_owned()),
        _ => Err(StoreOffence::DomainPath),
    }
}

/// Path and token of a watch event.
pub(super) fn watch_event(payload: &[u8]) -> Result<(&str, &str), StoreOffence> {
    match strings(MessageType::WATCH_EVENT, payload)?[..] {
        [path, token, ..] => Ok((path, token)),
        _ => Err(StoreOffence::NoToken),
    }
}

/// Text made of strings that each end with a zero byte.
fn strings(asked: MessageType, payload: &[u8]) -> Result<Vec<&str>, StoreOffence> {
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    let text = payload
        .strip_suffix(b"\0")
        .ok_or(StoreOffence::MissingNul { asked })?;
    let text = core::str::from_utf8(text).map_err(|_| StoreOffence::NotText { asked })?;
    Ok(text.split('\0').collect())
}

/// Servers differ in whether they count the final zero of a single string.
fn without_nul(payload: &[u8]) -> &[u8] {
    payload.strip_suffix(b"\0").unwrap_or(payload)
}

/// A decimal number; unlike `parse`, without a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
