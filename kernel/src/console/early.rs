//! The earliest possible console: port 0xE9 and a 16550 at COM1.

use spin::Mutex;
use uart_16550::{Config, Uart16550, backend::PioBackend};

use crate::arch::port;

const COM1: u16 = 0x3f8;
/// Tries per byte: a UART that never drains must not hang the boot.
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
    let Some(mut uart) = UART.try_lock() else {
        return;
    };
    let Some(uart) = uart.as_mut() else { return };
    for byte in text.bytes() {
        if byte == b'\n' {
            send(uart, b'\r');
        }
        send(uart, byte);
    }
}

fn send(uart: &mut Uart16550<PioBackend>, byte: u8) {
    for _ in 0..SEND_TRIES {
        if uart.try_send_byte(byte).is_ok() {
            return;
        }
    }
}
