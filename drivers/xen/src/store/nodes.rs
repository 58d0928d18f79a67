//! Reading and changing nodes, inside a transaction or outside.

use super::client::Client;
use super::error::{StoreError, StoreOffence};
use super::reply::{self, Part, Permission};
use crate::hal::Hal;
use crate::wire::errno::Errno;
use crate::wire::xs::{ABS_PATH_MAX, MessageType, PAYLOAD_MAX, REL_PATH_MAX};
use alloc::borrow::ToOwned;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

/// How often the listing of a directory that changes meanwhile is started.
const LISTINGS: usize = 8;
/// Longest list of children in parts of up to 4096 bytes.
const PARTS: usize = 64;

/// The nodes of xenstore: what [`Store`](super::Store) and
/// [`Transaction`](super::Transaction) have in common.
///
/// A path that does not start with `/` is relative to this domain's home. Every
/// request ends within the store's deadline; a change whose request timed out may still be
/// made. All methods fail with the [`StoreError`] that the server, the
/// connection or a check of the arguments gives.
pub struct Nodes<H: Hal> {
    pub(super) client: Rc<Client<H>>,
    pub(super) tx: u32,
    pub(super) epoch: u32,
}

impl<H: Hal> Nodes<H> {
    /// The value of a node, as text.
    ///
    /// # Errors
    /// [`StoreError`]; `ENOENT` when there is no such node.
    pub async fn read(&self, path: &str) -> Result<String, StoreError> {
        let value = self.ask(MessageType::READ, path, b"").await?;
        String::from_utf8(value).map_err(|_| StoreError::NotText(path.to_owned()))
    }

    /// Sets the value of a node; makes it and its parents if need be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write(&self, path: &str, value: &str) -> Result<(), StoreError> {
        self.change(MessageType::WRITE, path, value.as_bytes())
            .await
    }

    /// Makes a node with an empty value and its parents; one that exists stays
    /// as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mkdir(&self, path: &str) -> Result<(), StoreError> {
        self.change(MessageType::MKDIR, path, b"").await
    }

    /// Removes a node and everything below it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rm(&self, path: &str) -> Result<(), StoreError> {
        self.change(MessageType::RM, path, b"").await
    }

    /// The names of a node's children. A list too long for one message is read
    /// in parts.
    ///
    /// # Errors
    /// [`StoreError`]; `ENOENT` when there is no such node.
    pub async fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        match self.ask(MessageType::DIRECTORY, path, b"").await {
            Ok(payload) => self.client.checked(reply::children(&payload)),
            Err(StoreError::Errno { errno, .. }) if errno == Errno::E2BIG => {
                self.directory_by_parts(path).await
            }
            Err(error) => Err(error),
        }
    }

    async fn directory_by_parts(&self, path: &str) -> Result<Vec<String>, StoreError> {
        for _ in 0..LISTINGS {
            if let Some(names) = self.one_listing(path).await? {
                return Ok(names);
            }
        }
        Err(StoreError::Unstable(path.to_owned()))
    }

    /// Lists all parts, or `None` when the directory changed on the way.
    async fn one_listing(&self, path: &str) -> Result<Option<Vec<String>>, StoreError> {
        let mut names: Vec<String> = Vec::new();
        let mut generation = None;
        let mut offset = 0;
        for _ in 0..PARTS {
            let mut from = offset.to_string();
            from.push('\0');
            let asked = MessageType::DIRECTORY_PART;
            let payload = self.ask(asked, path, from.as_bytes()).await?;
            let part = self.client.checked(Part::parse(&payload))?;
            if *generation.get_or_insert(part.generation) != part.generation {
                return Ok(None);
            }
            // The server counts a name with its final zero.
            offset += part.names.iter().map(|name| name.len() + 1).sum::<usize>();
            names.extend(part.names);
            if part.last {
                return Ok(Some(names));
            }
        }
        self.client.checked(Err(StoreOffence::EndlessDirectory))
    }

    /// Who may do what with a node: the owner first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError> {
        let payload = self.ask(MessageType::GET_PERMS, path, b"").await?;
        self.client.checked(reply::permissions(&payload))
    }

    /// Sets who may do what with a node: the owner first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_permissions(
        &self,
        path: &str,
        permissions: &[Permission],
    ) -> Result<(), StoreError> {
        let mut list = String::new();
        for permission in permissions {
            // Writing to a string does not fail.
            let _ = write!(list, "{permission}\0");
        }
        self.change(MessageType::SET_PERMS, path, list.as_bytes())
            .await
    }

    /// Sends `path` and `rest`; the reply is an acknowledgement.
    pub(super) async fn change(
        &self,
        what: MessageType,
        path: &str,
        rest: &[u8],
    ) -> Result<(), StoreError> {
        let payload = self.ask(what, path, rest).await?;
        self.client.checked(reply::acknowledged(what, &payload))
    }

    /// Sends `path`, a zero byte and `rest`; returns the reply's payload.
    pub(super) async fn ask(
        &self,
        what: MessageType,
        path: &str,
        rest: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        if self.tx != 0 && self.client.state.borrow().epoch != self.epoch {
            return Err(StoreError::Reset);
        }
        check_path(path)?;
        if path.len() + 1 + rest.len() > PAYLOAD_MAX {
            let path = path.to_owned();
            return Err(StoreError::TooLong { what, path });
        }
        let parts: [&[u8]; 3] = [path.as_bytes(), b"\0", rest];
        self.client.request(what, self.tx, path, &parts).await
    }
}

/// Refuses what would be no path, or more than one string, on the wire.
fn check_path(path: &str) -> Result<(), StoreError> {
    let longest = match path.starts_with('/') {
        true => ABS_PATH_MAX,
        false => REL_PATH_MAX,
    };
    if path.is_empty() || path.len() > longest || path.contains('\0') {
        return Err(StoreError::BadPath(path.to_owned()));
    }
    Ok(())
}
