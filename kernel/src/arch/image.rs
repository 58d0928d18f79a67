//! Which build this is: the build id that the linker computed over the image.

use core::fmt;

unsafe extern "C" {
    static firn_build_id_start: u8;
    static firn_build_id_end: u8;
}

/// Bytes of an ELF note before its description, for the name "GNU".
const NOTE_HEADER: usize = 16;

/// The build id: equal for equal code and data, and printed in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildId(&'static [u8]);

/// The build id of the running image; empty if it was linked without one.
pub fn build_id() -> BuildId {
    let (start, end) = (&raw const firn_build_id_start, &raw const firn_build_id_end);
    // SAFETY: `boot/linker.ld` puts the symbols around the note, in read-only
    // data of the image.
    let note = unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) };
    BuildId(note.get(NOTE_HEADER..).unwrap_or(&[]))
}

impl BuildId {
    /// Its bytes.
    pub fn bytes(&self) -> &'static [u8] {
        self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
