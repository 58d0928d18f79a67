//! Guests of a few instructions: what the host does for one, and how each end of
//! one is told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use firn_boot_tests::tiny::{self, CODE, Code};
use firn_boot_tests::{Bench, again};
use firn_lab::{Exit, Host};

/// A page for hypercalls.
const CALLS: u64 = 0x20_0000;
const SOON: Duration = Duration::from_secs(90);

/// What a test does with such a guest.
trait Runs {
    /// Runs it; what came of it, and what was on its console.
    fn run(&self, typed: &[u8], words: &[&str]) -> Result<(Exit, String)>;

    /// Runs it, and checks its end and what it said.
    fn ends_as(&self, end: &Exit, said: &str, typed: &[u8], words: &[&str]) -> Result<()> {
        let (exit, console) = self.run(typed, words)?;
        ensure!(exit == *end, "it ended with {exit:?}: {console}");
        let from_guest = console.split("hyperv-host: ").next();
        ensure!(from_guest == Some(said), "it said {console:?}");
        Ok(())
    }

    fn ends(&self, end: &Exit, said: &str) -> Result<()> {
        self.ends_as(end, said, b"", &[])
    }

    /// Runs it to an end that is none of a guest's own; what the host says of it.
    fn breaks(&self, words: &[&str]) -> Result<String> {
        match self.run(b"", words)? {
            (Exit::Other(why), _) => Ok(why),
            (exit, console) => bail!("it ended with {exit:?}: {console}"),
        }
    }
}

impl Runs for Code {
    fn run(&self, typed: &[u8], words: &[&str]) -> Result<(Exit, String)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), self.elf())?;
        run(file.path(), typed, words)
    }
}

fn run(kernel: &Path, typed: &[u8], words: &[&str]) -> Result<(Exit, String)> {
    let lab = &Bench::shared(Host::HyperV)?.lab;
    tiny::run(lab, kernel, typed, words, SOON)
}

#[test]
fn a_kvm_that_does_passes_the_probe() -> Result<()> {
    again(Host::HyperV, || {
        Bench::shared(Host::HyperV)?.lab.probe(SOON)
    })
}

#[test]
fn a_guest_switches_itself_off() -> Result<()> {
    again(Host::HyperV, || {
        let code = Code::default().say("hello\n").off();
        code.ends(&Exit::PowerOff, "hello\n")
    })
}

#[test]
fn a_line_without_an_end_is_shown() -> Result<()> {
    again(Host::HyperV, || {
        Code::default()
            .say("half")
            .off()
            .ends(&Exit::PowerOff, "half")
    })
}

#[test]
fn a_reset_is_a_reboot() -> Result<()> {
    again(Host::HyperV, || {
        Code::default().out(0x64, 0xfe).ends(&Exit::Reboot, "")
    })
}

#[test]
fn a_fault_without_a_handler_is_told() -> Result<()> {
    again(Host::HyperV, || {
        // nop; ud2
        let why = Code::default().raw(&[0x90, 0x0f, 0x0b]).breaks(&[])?;
        let place = match Bench::shared(Host::HyperV)?.lab.is_emulated() {
            true => format!("rip {:#x},", CODE + 1),
            // Linux here need not trace it.
            false => "rip".into(),
        };
        let wanted = format!("processor shut down at {place}");
        ensure!(why.contains(&wanted), "{why}");
        Ok(())
    })
}

#[test]
fn who_shuts_down_in_spite_of_gates_was_not_the_guest() -> Result<()> {
    again(Host::HyperV, || {
        const GATES: u32 = 0x20_0000;
        let shut_down = |flags| {
            // lidt [GATES + 0x1000], which tells of nine gates; the last leads nowhere.
            let load = [0x0f, 0x01, 0x1c, 0x25, 0x00, 0x10, 0x20, 0x00];
            let code = Code::default()
                .put(GATES + 8 * 16 + 4, flags)
                .put(GATES + 0x1000, 9 * 16 - 1 + (GATES << 16))
                .put(GATES + 0x1004, GATES >> 16)
                .raw(&load);
            // Who it is: the host sees its tables. ud2
            code.wrmsr(0x4000_0000, 1).raw(&[0x0f, 0x0b]).breaks(&[])
        };
        let why = shut_down(0x8e00)?;
        ensure!(why.contains("the emulator lost"), "{why}");
        let why = shut_down(0x0e00)?;
        ensure!(why.contains("processor shut down at"), "{why}");
        Ok(())
    })
}

#[test]
fn a_guest_that_goes_on_is_stopped() -> Result<()> {
    again(Host::HyperV, || {
        // hlt, for ever: interrupts are off. Long enough to be inspected twice.
        let code = Code::default().raw(&[0xf4, 0xeb, 0xfd]);
        let why = code.breaks(&["--deadline", "2.5"])?;
        ensure!(why.contains("after its deadline"), "{why}");
        Ok(())
    })
}

#[test]
fn a_crash_is_told_with_its_text() -> Result<()> {
    again(Host::HyperV, || {
        let text = b"PANIC: by itself";
        // jmp over the text
        let code = Code::default().raw(&[0xeb, text.len() as u8]).raw(text);
        let code = code
            .wrmsr(0x4000_0103, CODE + 2)
            .wrmsr(0x4000_0104, text.len() as u64)
            .wrmsr(0x4000_0105, 3 << 62);
        let (exit, console) = code.run(b"", &[])?;
        ensure!(exit == Exit::Crash, "it ended with {exit:?}");
        ensure!(
            console.contains("the guest crashed: PANIC: by itself"),
            "{console}"
        );
        Ok(())
    })
}

#[test]
fn what_is_typed_reaches_com1() -> Result<()> {
    again(Host::HyperV, || {
        // again: mov dx, 0x3fd; in al, dx; test al, 1; jz again; mov dx, 0x3f8; in al, dx; out dx, al
        let echo = [
            0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0x66, 0xba, 0xf8, 0x03, 0xec,
            0xee,
        ];
        let code = Code::default().raw(&echo).raw(&echo).off();
        code.ends_as(&Exit::PowerOff, "ok", b"ok", &[])
    })
}

#[test]
fn the_hypercall_page_calls_the_host() -> Result<()> {
    again(Host::HyperV, || {
        let code = Code::default()
            .wrmsr(0x4000_0000, 1 << 63)
            .wrmsr(0x4000_0001, CALLS | 1)
            // mov ecx, SIGNAL_EVENT | FAST; mov edx, 5; mov esp, 0x180000; mov eax, CALLS; call rax
            .raw(&[0xb9, 0x5d, 0, 1, 0, 0xba, 5, 0, 0, 0])
            .raw(&[0xbc, 0, 0, 0x18, 0])
            .raw(&[0xb8, 0, 0, 0x20, 0, 0xff, 0xd0])
            .say_al()
            .say("\n")
            .off();
        // Nobody has connection 5: status 0x12, and that is a rule, which the host may
        // tell before it shows what was said.
        let (exit, console) = code.run(b"", &[])?;
        let complaint = "the host complains: BadEvent(5)";
        ensure!(exit == Exit::Other(complaint.into()), "{exit:?}: {console}");
        ensure!(console.lines().any(|line| line == "B"), "{console}");
        Ok(())
    })
}

#[test]
fn nobody_calls_before_saying_who_it_is() -> Result<()> {
    again(Host::HyperV, || {
        let code = Code::default()
            .wrmsr(0x4000_0001, CALLS | 1)
            .rdmsr(0x4000_0001)
            .say_al()
            .off();
        code.ends(&Exit::PowerOff, "0")
    })
}

#[test]
fn an_msr_that_is_none_is_a_fault() -> Result<()> {
    again(Host::HyperV, || {
        for index in [0x4000_0199, 0x4000_0020] {
            let code = Code::default().wrmsr(index, 1).say("x").off();
            let why = code.breaks(&[])?;
            ensure!(why.contains("shut down"), "{index:#x}: {why}");
        }
        Ok(())
    })
}

#[test]
fn the_advice_against_auto_eoi_is_a_switch() -> Result<()> {
    again(Host::HyperV, || {
        // mov eax, 0x40000004; cpuid; shr eax, 9; and eax, 1
        let code = Code::default()
            .raw(&[0xb8, 4, 0, 0, 0x40, 0x0f, 0xa2])
            .raw(&[0xc1, 0xe8, 9, 0x83, 0xe0, 1])
            .say_al()
            .off();
        code.ends(&Exit::PowerOff, "1")?;
        code.ends_as(&Exit::PowerOff, "0", b"", &["--auto-eoi"])
    })
}

#[test]
fn a_compatible_processor_hides_new_instructions() -> Result<()> {
    again(Host::HyperV, || {
        // mov eax, 1; cpuid; mov eax, ecx; shr eax, 9; and eax, 1: SSSE3
        let code = Code::default()
            .raw(&[0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x89, 0xc8])
            .raw(&[0xc1, 0xe8, 9, 0x83, 0xe0, 1])
            .say_al()
            .off();
        code.ends(&Exit::PowerOff, "1")?;
        code.ends_as(&Exit::PowerOff, "0", b"", &["--compatible"])
    })
}

#[test]
fn a_file_that_is_no_kernel_is_named() -> Result<()> {
    again(Host::HyperV, || {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "no kernel at all")?;
        let (exit, console) = run(file.path(), b"", &[])?;
        let told = console.contains("hyperv-host: cannot go on: loading ");
        ensure!(told && exit != Exit::PowerOff, "{exit:?}: {console}");
        Ok(())
    })
}
