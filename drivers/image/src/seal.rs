//! Encryption and authentication: XChaCha20-Poly1305.
//!
//! A nonce is the image's salt (12 random bytes), its generation and what it is
//! for, so none is used twice under one key; docs/adr/0009-sealed-images.md.

use crate::format::table::{RawDisk, RawEntry};
use crate::{Header, Key};
use alloc::vec::Vec;
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use zerocopy::IntoBytes;

/// What a nonce is for, beyond the numbers of chunks.
const TABLE: u32 = u32::MAX;
const HEADER: u32 = u32::MAX - 1;

/// The key and the nonces of one image.
#[derive(Clone)]
pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    salt: [u8; 12],
    generation: u64,
}

/// The key does not open it.
pub(crate) struct Broken;

impl Seal {
    /// The seal of the image that `header` describes.
    pub(crate) fn new(key: &Key, header: &Header) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new(&key.secret.into()),
            salt: header.layout.salt,
            generation: header.generation.0,
        }
    }

    fn nonce(&self, purpose: u32) -> XNonce {
        let mut nonce = [0; 24];
        nonce[..12].copy_from_slice(&self.salt);
        nonce[12..20].copy_from_slice(&self.generation.to_le_bytes());
        nonce[20..].copy_from_slice(&purpose.to_le_bytes());
        nonce.into()
    }

    /// Encrypts a chunk in place; its entry is complete but for the tag.
    pub(crate) fn chunk(&self, index: u32, entry: &RawEntry, bytes: &mut [u8]) -> [u8; 16] {
        self.close(index, entry.sealed_part(), bytes)
    }

    /// Decrypts a chunk in place, if it is the one that was sealed.
    pub(crate) fn open(
        &self,
        index: u32,
        entry: &RawEntry,
        bytes: &mut [u8],
    ) -> Result<(), Broken> {
        let tag = Tag::from(entry.sum);
        let nonce = self.nonce(index);
        let opened =
            self.cipher
                .decrypt_inout_detached(&nonce, entry.sealed_part(), bytes.into(), &tag);
        opened.map_err(|_| Broken)
    }

    /// The tag of a table; it is not encrypted.
    pub(crate) fn table(&self, disks: &[RawDisk], entries: &[RawEntry]) -> Option<[u8; 16]> {
        let mut bytes = Vec::new();
        let length = size_of_val(disks) + size_of_val(entries);
        bytes.try_reserve_exact(length).ok()?;
        bytes.extend_from_slice(disks.as_bytes());
        bytes.extend_from_slice(entries.as_bytes());
        Some(self.close(TABLE, &bytes, &mut []))
    }

    /// The tag of a header.
    pub(crate) fn header(&self, header: &Header) -> [u8; 16] {
        self.close(HEADER, header.sealed_part().as_bytes(), &mut [])
    }

    /// A tag is all zeros if the cipher refuses the length, which it does only
    /// beyond 256 GiB.
    fn close(&self, purpose: u32, beside: &[u8], bytes: &mut [u8]) -> [u8; 16] {
        let nonce = self.nonce(purpose);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, beside, bytes.into());
        tag.map_or([0; 16], Into::into)
    }
}
