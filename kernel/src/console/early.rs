//! The earliest possible console: port 0xE9 and a 16550 at COM1. The latter is the
//! console for good where the host has none of its own.

use spin::Mutex;
use uart_16550::spec::registers::LSR;
use uart_16550::{Config, Uart16550, backend::PioBackend};

use super::Sink;
use crate::arch::port;

const COM1: u16 = 0x3f8;
/// Tries in vain: a UART that never drains must not hang the boot.
const SEND_TRIES: u32 = 100_000;

static UART: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);

/// Looks for COM1; most Xen guests have none.
pub(super) fn init() {
    *UART.lock() = port::com1(COM1).and_then(|mut uart| {
        let found = uart.init(Config::default()).is_ok();
        found.then_some(uart)
    });
}

/// Writes to both; a terminal on COM1 wants carriage returns.
pub(super) fn write(text: &str) {
    text.bytes().for_each(port::debug_byte);
    write_serial(text);
}

fn write_serial(text: &str) {
    let Some(mut uart) = UART.try_lock() else {
        return;
    };
    let Some(uart) = uart.as_mut() else { return };
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            send(uart, b"\r\n");
        }
        send(uart, line.as_bytes());
    }
}

/// Sends as much at once as the UART takes; gives up where it takes nothing more.
fn send(uart: &mut Uart16550<PioBackend>, mut bytes: &[u8]) {
    let mut tries = 0;
    while !bytes.is_empty() && tries < SEND_TRIES {
        match uart.send_bytes(bytes) {
            0 => tries += 1,
            sent => (bytes, tries) = (&bytes[sent..], 0),
        }
    }
}

/// Whether there is a COM1.
pub(super) fn is_there() -> bool {
    UART.lock().is_some()
}

/// Bytes that came in; how many. A UART that has always more is asked for no more
/// than there is room for.
pub(super) fn read(to: &mut [u8]) -> usize {
    let mut uart = UART.lock();
    let Some(uart) = uart.as_mut() else { return 0 };
    uart.receive_bytes(to)
}

/// COM1 as the sink of all text. It waits for the other end by itself, byte by
/// byte, and not for ever: there is never anything to relieve or to drain but its
/// own buffer.
pub(super) struct Serial;

impl Sink for Serial {
    fn write(&self, text: &str) {
        write_serial(text);
    }

    fn relieve(&self) {}

    fn drain(&self) {
        if let Some(uart) = UART.lock().as_mut() {
            for _ in 0..SEND_TRIES {
                if uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                    return;
                }
            }
        }
    }
}
