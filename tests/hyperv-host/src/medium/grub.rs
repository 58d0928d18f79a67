//! GRUB's configuration, as far as our media have one: which kernel is started by
//! Multiboot2, and with which words.

use anyhow::{Context, Result, ensure};

/// What a configuration starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The kernel's path.
    pub(super) kernel: String,
    /// GRUB leaves the kernel's name out of the command line.
    pub(super) cmdline: String,
}

/// Finds the one `multiboot2` line. What a medium says to consoles is none of our
/// business; what would be loaded beside the kernel is refused.
pub(super) fn parse(config: &str) -> Result<Wanted> {
    let mut wanted = None;
    for line in config.lines() {
        let command = line.split_whitespace().next().unwrap_or_default();
        ensure!(command != "module2", "`{line}`: a module");
        if command == "multiboot2" {
            ensure!(wanted.is_none(), "`{line}`: a second kernel");
            wanted = Some(kernel(line).with_context(|| format!("`{line}`"))?);
        }
    }
    wanted.context("no kernel for Multiboot2")
}

fn kernel(line: &str) -> Result<Wanted> {
    let words = shell_words::split(line)?;
    let [_, kernel, words @ ..] = &words[..] else {
        anyhow::bail!("no kernel is named");
    };
    // GRUB would put quotes and backslashes into what the kernel sees.
    let odd = |c: char| c.is_whitespace() || matches!(c, '\\' | '\'' | '"');
    if let Some(word) = words.iter().find(|word| word.contains(odd)) {
        anyhow::bail!("{word:?} would not reach the kernel as it is");
    }
    Ok(Wanted {
        kernel: kernel.clone(),
        cmdline: words.join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_sees_its_words_only() {
        let config = "if serial --unit=0; then terminal_output console serial; fi\n\
            multiboot2 /firn/firn.elf 'log=info' '--' 'verify' 'size=$x;' 'poweroff'\nboot\n";
        let wanted = parse(config).unwrap();
        assert_eq!(wanted.kernel, "/firn/firn.elf");
        assert_eq!(wanted.cmdline, "log=info -- verify size=$x; poweroff");
        assert_eq!(parse("multiboot2 /k").unwrap().cmdline, "");
    }

    #[test]
    fn what_grub_would_take_otherwise_is_refused() {
        for (config, why) in [
            ("boot\n", "no kernel"),
            ("multiboot2", "no kernel is named"),
            ("multiboot2 /a\nmultiboot2 /b", "a second kernel"),
            ("multiboot2 /a\nmodule2 /b", "a module"),
            ("multiboot2 /a 'a b'", "as it is"),
            ("multiboot2 /a 'a", "missing closing quote"),
        ] {
            let error = format!("{:#}", parse(config).unwrap_err());
            assert!(error.contains(why), "{config}: {error}");
        }
    }
}
