//! The PV console as the sink of all text.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;

use firn_task::Time;
use firn_xen::Hal;
use firn_xen::Xen;
use firn_xen::console::{Console, ConsoleError};
use firn_xen::hypercall::Hypercall;

use super::XenHal;
use crate::arch::FirstCpu;
use crate::console::{self, Sink};

/// How long the last words may take.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a job that prints much waits for the host to read.
const RELIEVE: Duration = Duration::from_millis(500);

struct PvConsole {
    xen: Rc<Xen<XenHal>>,
    console: Rc<Console<XenHal>>,
    /// The host read when it was last waited for: it is worth waiting again.
    patient: Cell<bool>,
}

impl Sink for FirstCpu<PvConsole> {
    fn write(&self, text: &str) {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.console.write(b"\r\n");
            }
            if !line.is_empty() {
                self.console.write(line.as_bytes());
            }
        }
    }

    fn relieve(&self) {
        if self.patient.get() || self.console.flush() {
            self.patient
                .set(self.wait(RELIEVE, |console| console.flush()));
        }
    }

    fn drain(&self) {
        self.wait(DRAIN, Console::is_drained);
    }
}

impl PvConsole {
    /// Waits until `done`, or for `limit`; returns whether it was done.
    fn wait(&self, limit: Duration, done: impl Fn(&Console<XenHal>) -> bool) -> bool {
        let deadline = self.xen.now() + limit;
        while !done(&self.console) {
            if self.xen.now() >= deadline {
                return false;
            }
            self.console.flush();
            // Lets the domain of the console's daemon run, if it shares a CPU
            // with us; nothing depends on it.
            let _ = self.xen.hal.hypercall(Hypercall::Yield);
        }
        true
    }
}

/// Attaches the console and sends all text there from now on.
///
/// # Errors
/// [`ConsoleError`]; text then goes on to the early ports.
pub(crate) fn attach(xen: &Rc<Xen<XenHal>>) -> Result<Rc<Console<XenHal>>, ConsoleError> {
    let console = Rc::new(Console::attach(xen)?);
    let sink = PvConsole {
        xen: xen.clone(),
        console: console.clone(),
        patient: Cell::new(true),
    };
    console::set_sink(Box::leak(Box::new(FirstCpu::new(sink))));
    Ok(console)
}
