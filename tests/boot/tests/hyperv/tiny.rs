//! Guests of a few instructions: what the host does for one, and how each end of
//! one is told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use firn_boot_tests::Bench;
use firn_lab::{Exit, GuestSpec, Host};

/// Where the guest's code lies and begins.
const CODE: u64 = 0x10_0000;
/// A page for hypercalls.
const CALLS: u64 = 0x20_0000;
const SOON: Duration = Duration::from_secs(90);

/// Instructions, one after the other.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// `mov dx, port; mov al, byte; out dx, al`
    fn out(self, port: u16, byte: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        self.raw(&[0x66, 0xba, low, high, 0xb0, byte, 0xee])
    }

    fn say(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(0x3f8, byte))
    }

    /// `mov edx, high; mov eax, low; mov ecx, index; wrmsr`
    fn wrmsr(self, index: u32, value: u64) -> Self {
        let [a, b, c, d] = (value as u32).to_le_bytes();
        let [e, f, g, h] = ((value >> 32) as u32).to_le_bytes();
        let [i, j, k, l] = index.to_le_bytes();
        self.raw(&[0xba, e, f, g, h, 0xb8, a, b, c, d, 0xb9, i, j, k, l])
            .raw(&[0x0f, 0x30])
    }

    /// `mov ecx, index; rdmsr`
    fn rdmsr(self, index: u32) -> Self {
        let [i, j, k, l] = index.to_le_bytes();
        self.raw(&[0xb9, i, j, k, l, 0x0f, 0x32])
    }

    /// `add al, '0'; mov dx, 0x3f8; out dx, al`
    fn say_al(self) -> Self {
        self.raw(&[0x04, b'0', 0x66, 0xba, 0xf8, 0x03, 0xee])
    }

    /// `mov dx, 0x404; mov ax, 0x2000; out dx, ax`
    fn off(self) -> Self {
        self.raw(&[0x66, 0xba, 0x04, 0x04, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef])
    }

    /// An ELF file of one segment.
    fn elf(&self) -> Vec<u8> {
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

    /// Runs it with these words for the host; what came of it, and what was on its
    /// console.
    fn run(&self, typed: &[u8], words: &[&str]) -> Result<(Exit, String)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), self.elf())?;
        run(file.path(), typed, words)
    }

    /// Runs it, and checks its end and what it said.
    fn ends(&self, end: &Exit, said: &str) -> Result<()> {
        self.ends_as(end, said, b"", &[])
    }

    fn ends_as(&self, end: &Exit, said: &str, typed: &[u8], words: &[&str]) -> Result<()> {
        let (exit, console) = self.run(typed, words)?;
        ensure!(exit == *end, "it ended with {exit:?}: {console}");
        let from_guest = console.split("hyperv-host: ").next();
        ensure!(from_guest == Some(said), "it said {console:?}");
        Ok(())
    }

    /// Runs it to an end that is none of a guest's own; what the host says of it.
    fn breaks(&self, words: &[&str]) -> Result<String> {
        match self.run(b"", words)? {
            (Exit::Other(why), _) => Ok(why),
            (exit, console) => anyhow::bail!("it ended with {exit:?}: {console}"),
        }
    }
}

fn run(kernel: &Path, typed: &[u8], words: &[&str]) -> Result<(Exit, String)> {
    let mut spec = GuestSpec::new("tiny", kernel).with_memory(16);
    spec.extra = words.iter().map(|word| (*word).to_owned()).collect();
    let guest = Bench::shared(Host::HyperV)?.lab.guest(&spec)?;
    if !typed.is_empty() {
        guest.send(typed)?;
    }
    let exit = guest.wait_exit(SOON)?;
    Ok((exit, guest.console().text()))
}

#[test]
fn a_guest_switches_itself_off() -> Result<()> {
    let code = Code::default().say("hello\n").off();
    code.ends(&Exit::PowerOff, "hello\n")
}

#[test]
fn a_line_without_an_end_is_shown() -> Result<()> {
    Code::default()
        .say("half")
        .off()
        .ends(&Exit::PowerOff, "half")
}

#[test]
fn a_reset_is_a_reboot() -> Result<()> {
    Code::default().out(0x64, 0xfe).ends(&Exit::Reboot, "")
}

#[test]
fn a_fault_without_a_handler_is_told() -> Result<()> {
    // int3
    let why = Code::default().raw(&[0xcc]).breaks(&[])?;
    ensure!(why.contains("processor shut down at rip"), "{why}");
    Ok(())
}

#[test]
fn a_guest_that_goes_on_is_stopped() -> Result<()> {
    // hlt, for ever: interrupts are off.
    let code = Code::default().raw(&[0xf4, 0xeb, 0xfd]);
    let why = code.breaks(&["--deadline", "0.3"])?;
    ensure!(why.contains("after its deadline"), "{why}");
    Ok(())
}

#[test]
fn a_crash_is_told_with_its_text() -> Result<()> {
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
}

#[test]
fn what_is_typed_reaches_com1() -> Result<()> {
    // again: mov dx, 0x3fd; in al, dx; test al, 1; jz again; mov dx, 0x3f8; in al, dx; out dx, al
    let echo = [
        0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xee,
    ];
    let code = Code::default().raw(&echo).raw(&echo).off();
    code.ends_as(&Exit::PowerOff, "ok", b"ok", &[])
}

#[test]
fn the_hypercall_page_calls_the_host() -> Result<()> {
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
}

#[test]
fn nobody_calls_before_saying_who_it_is() -> Result<()> {
    let code = Code::default()
        .wrmsr(0x4000_0001, CALLS | 1)
        .rdmsr(0x4000_0001)
        .say_al()
        .off();
    code.ends(&Exit::PowerOff, "0")
}

#[test]
fn an_msr_that_is_none_is_a_fault() -> Result<()> {
    for index in [0x4000_0199, 0x4000_0020] {
        let code = Code::default().wrmsr(index, 1).say("x").off();
        let why = code.breaks(&[])?;
        ensure!(why.contains("shut down"), "{index:#x}: {why}");
    }
    Ok(())
}

#[test]
fn the_advice_against_auto_eoi_is_a_switch() -> Result<()> {
    // mov eax, 0x40000004; cpuid; shr eax, 9; and eax, 1
    let code = Code::default()
        .raw(&[0xb8, 4, 0, 0, 0x40, 0x0f, 0xa2])
        .raw(&[0xc1, 0xe8, 9, 0x83, 0xe0, 1])
        .say_al()
        .off();
    code.ends(&Exit::PowerOff, "1")?;
    code.ends_as(&Exit::PowerOff, "0", b"", &["--auto-eoi"])
}

#[test]
fn a_compatible_processor_hides_new_instructions() -> Result<()> {
    // mov eax, 1; cpuid; mov eax, ecx; shr eax, 9; and eax, 1: SSSE3
    let code = Code::default()
        .raw(&[0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x89, 0xc8])
        .raw(&[0xc1, 0xe8, 9, 0x83, 0xe0, 1])
        .say_al()
        .off();
    code.ends(&Exit::PowerOff, "1")?;
    code.ends_as(&Exit::PowerOff, "0", b"", &["--compatible"])
}

#[test]
fn a_file_that_is_no_kernel_is_named() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "no kernel at all")?;
    let (exit, console) = run(file.path(), b"", &[])?;
    let told = console.contains("hyperv-host: cannot go on: loading ");
    ensure!(told && exit != Exit::PowerOff, "{exit:?}: {console}");
    Ok(())
}
