//! I/O ports: COM1, the ACPI PM block, two ways to reset, the early console. There
//! is nothing else; what is not there reads as ones.

use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::end::End;
use crate::pm;

/// COM1's first port; it has eight.
const COM1: u16 = 0x3f8;
/// The keyboard controller's command port, and its command to reset.
const KEYBOARD: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;
/// Where guests write before they have a console.
const EARLY: u16 = 0xe9;
/// Console bytes that are kept until the line ends.
const LINE: usize = 1024;

/// COM1 interrupts nobody: there is no I/O APIC.
struct Nobody;

impl Trigger for Nobody {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output, a line at a time; what waits longer is written by
/// [`Chipset::flush`].
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn pass_on(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(&self.0)?;
        self.0.clear();
        out.flush()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        if self.0.ends_with(b"\n") || self.0.len() >= LINE {
            self.pass_on()?;
        }
        Ok(bytes.len())
    }

    /// Called after each byte.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All ports.
pub struct Chipset {
    com1: Serial<Nobody, NoEvents, Lines>,
    early: Option<File>,
    /// The PM block without its timer.
    pm: [u8; 8],
    started: Instant,
}

impl Chipset {
    /// A chipset that has just been switched on; the early console's bytes go to
    /// `early`.
    #[must_use]
    pub fn new(early: Option<File>) -> Self {
        Self {
            com1: Serial::new(Nobody, Lines::default()),
            early,
            pm: [0; 8],
            started: Instant::now(),
        }
    }

    /// The guest reads a port.
    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        for (port, byte) in (port..).zip(data) {
            *byte = match port {
                COM1..=0x3ff => self.com1.read((port - COM1) as u8),
                pm::EVENT..pm::END => self.pm_byte(port),
                _ => 0xff,
            };
        }
    }

    /// The guest writes a port; how that ends it, if it does.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Option<End> {
        for (port, byte) in (port..).zip(data) {
            match port {
                // It can only fail to write to our own output: nobody listens.
                COM1..=0x3ff => drop(self.com1.write((port - COM1) as u8, *byte)),
                EARLY => drop(self.early.as_mut().map(|file| file.write_all(&[*byte]))),
                pm::EVENT..pm::TIMER => self.pm[usize::from(port - pm::EVENT)] = *byte,
                pm::RESET if byte & pm::RESET_NOW == pm::RESET_NOW => return Some(End::Reboot),
                KEYBOARD if *byte == KEYBOARD_RESET => return Some(End::Reboot),
                _ => {}
            }
        }
        let control = self.control();
        let kind = control >> pm::SLEEP_TYPE_SHIFT & 7;
        let off = control & pm::SLEEP_ENABLE != 0 && kind == pm::SLEEP_OFF;
        off.then_some(End::PowerOff)
    }

    fn control(&self) -> u16 {
        let at = usize::from(pm::CONTROL - pm::EVENT);
        u16::from_le_bytes([self.pm[at], self.pm[at + 1]])
    }

    fn pm_byte(&self, port: u16) -> u8 {
        let low_or_high = |value: u16, base: u16| value.to_le_bytes()[usize::from(port - base)];
        match port - pm::EVENT {
            // Nothing ever happens.
            0 | 1 => 0,
            at @ (2 | 3) => self.pm[usize::from(at)],
            4 | 5 => {
                let kept = self.control() & !pm::SLEEP_ENABLE;
                low_or_high(kept | pm::SCI_ENABLE, pm::CONTROL)
            }
            8..12 => {
                let nanos = self.started.elapsed().as_nanos();
                let ticks = nanos * u128::from(pm::TIMER_HZ) / 1_000_000_000;
                (ticks as u32).to_le_bytes()[usize::from(port - pm::TIMER)]
            }
            _ => 0,
        }
    }

    /// Takes as much of what was typed as the guest has room for.
    pub fn type_in(&mut self, bytes: &[u8]) -> usize {
        let room = self.com1.fifo_capacity().min(bytes.len());
        let taken = self.com1.enqueue_raw_bytes(&bytes[..room]);
        taken.unwrap_or(0)
    }

    /// Whether a line was begun that nobody has seen.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.com1.writer().0.is_empty()
    }

    /// Shows the line that was begun.
    pub fn flush(&mut self) {
        // Nobody listens: then nothing is lost.
        let _gone = self.com1.writer_mut().pass_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chipset() -> Chipset {
        Chipset::new(None)
    }

    #[test]
    fn sleep_type_0_is_off_and_no_other() {
        assert_eq!(
            chipset().write(pm::CONTROL, &[0, 0x20]),
            Some(End::PowerOff)
        );
        assert_eq!(chipset().write(pm::CONTROL, &[0, 0x24]), None);
        assert_eq!(chipset().write(pm::CONTROL, &[1, 0]), None);
        let mut bytewise = chipset();
        assert_eq!(bytewise.write(pm::CONTROL, &[0]), None);
        assert_eq!(
            bytewise.write(pm::CONTROL + 1, &[0x20]),
            Some(End::PowerOff)
        );
    }

    #[test]
    fn acpi_is_on_and_the_timer_runs() {
        let mut chipset = chipset();
        let mut control = [0; 2];
        chipset.read(pm::CONTROL, &mut control);
        assert_eq!(control, [1, 0]);
        let mut timer = [0; 4];
        std::thread::sleep(std::time::Duration::from_millis(2));
        chipset.read(pm::TIMER, &mut timer);
        assert!(u32::from_le_bytes(timer) > 3579);
    }

    #[test]
    fn both_resets_reset() {
        assert_eq!(chipset().write(0x64, &[0xfe]), Some(End::Reboot));
        assert_eq!(chipset().write(0xcf9, &[6]), Some(End::Reboot));
        assert_eq!(chipset().write(0xcf9, &[2]), None);
    }

    #[test]
    fn what_is_not_there_reads_as_ones() {
        let mut word = [0; 2];
        for port in [0x20, 0x40, 0x61, 0xcfc] {
            chipset().read(port, &mut word);
            assert_eq!(word, [0xff; 2], "{port:#x}");
        }
    }

    #[test]
    fn what_is_typed_waits_for_room() {
        let mut chipset = chipset();
        let typed = [b'x'; 100];
        let first = chipset.type_in(&typed);
        assert!(first > 0 && first < 100);
        assert_eq!(chipset.type_in(&typed), 0);
        let mut byte = [0];
        chipset.read(COM1, &mut byte);
        assert_eq!(byte, [b'x']);
        assert_eq!(chipset.type_in(&typed), 1);
    }
}
