//! Guests of a few instructions, for our own Hyper-V host: what they need of it is
//! known.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use firn_lab::{Exit, GuestSpec, Lab};

/// Where the guest's code lies and begins.
pub const CODE: u64 = 0x10_0000;

/// Instructions, one after the other.
#[derive(Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// Any bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `mov dx, port; mov al, byte; out dx, al`
    #[must_use]
    pub fn out(self, port: u16, byte: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        self.raw(&[0x66, 0xba, low, high, 0xb0, byte, 0xee])
    }

    /// Writes to COM1, byte by byte.
    #[must_use]
    pub fn say(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(0x3f8, byte))
    }

    /// `mov edx, high; mov eax, low; mov ecx, index; wrmsr`
    #[must_use]
    pub fn wrmsr(self, index: u32, value: u64) -> Self {
        let [a, b, c, d] = (value as u32).to_le_bytes();
        let [e, f, g, h] = ((value >> 32) as u32).to_le_bytes();
        let [i, j, k, l] = index.to_le_bytes();
        self.raw(&[0xba, e, f, g, h, 0xb8, a, b, c, d, 0xb9, i, j, k, l])
            .raw(&[0x0f, 0x30])
    }

    /// `mov dword [at], value`
    #[must_use]
    pub fn put(self, at: u32, value: u32) -> Self {
        self.raw(&[0xc7, 0x04, 0x25])
            .raw(&at.to_le_bytes())
            .raw(&value.to_le_bytes())
    }

    /// `mov ecx, index; rdmsr`
    #[must_use]
    pub fn rdmsr(self, index: u32) -> Self {
        let [i, j, k, l] = index.to_le_bytes();
        self.raw(&[0xb9, i, j, k, l, 0x0f, 0x32])
    }

    /// `add al, '0'; mov dx, 0x3f8; out dx, al`
    #[must_use]
    pub fn say_al(self) -> Self {
        self.raw(&[0x04, b'0', 0x66, 0xba, 0xf8, 0x03, 0xee])
    }

    /// `mov dx, 0x404; mov ax, 0x2000; out dx, ax`
    #[must_use]
    pub fn off(self) -> Self {
        self.raw(&[0x66, 0xba, 0x04, 0x04, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef])
    }

    /// An ELF file of one segment.
    #[must_use]
    pub fn elf(&self) -> Vec<u8> {
        let mut elf = vec![0; 0x1000];
        elf[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        // Executable, for x86-64; version; entry; program headers at 64.
        put(16, &[2, 0, 62, 0, 1]);
        put(24, &CODE.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        // Sizes of both headers, one program header.
        put(52, &[64, 0, 56, 0, 1, 0]);
        // PT_LOAD, all rights, at 0x1000 of the file.
        put(64, &[1, 0, 0, 0, 7, 0, 0, 0]);
        let bytes = self.0.len() as u64;
        for (at, value) in [
            (72, 0x1000),
            (80, CODE),
            (88, CODE),
            (96, bytes),
            (104, bytes),
        ] {
            put(at, &value.to_le_bytes());
        }
        elf.extend(&self.0);
        elf
    }
}

/// Runs such a guest to its end, with what is `typed` at its console and these words
/// for the host; what came of it, and what was on its console.
///
/// # Errors
/// It does not end within the deadline, or the lab is gone.
pub fn run(
    lab: &Lab,
    kernel: &Path,
    typed: &[u8],
    words: &[&str],
    deadline: Duration,
) -> Result<(Exit, String)> {
    let mut spec = GuestSpec::new("tiny", kernel).with_memory(16);
    spec.extra = words.iter().map(|word| (*word).to_owned()).collect();
    let guest = lab.guest(&spec)?;
    if !typed.is_empty() {
        guest.send(typed)?;
    }
    let exit = guest.wait_exit(deadline)?;
    Ok((exit, guest.console().text()))
}
