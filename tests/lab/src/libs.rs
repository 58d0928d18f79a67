//! The shared libraries that programs in an image need.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{Endianness, elf};

use crate::tree::Tree;

/// Where all of them go in an image: in the loader's default path.
pub(crate) const FOLDER: &str = "usr/lib/x86_64-linux-gnu";

/// Every shared library under an unpacked root, by file name.
pub(crate) struct Libraries(BTreeMap<String, PathBuf>);

impl Libraries {
    /// Looks through the library folders of `root`.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        let folders = [FOLDER, "usr/lib/x86_64-linux-gnu/ceph", "usr/lib/xen-4.20"];
        for folder in folders {
            let Ok(entries) = fs::read_dir(root.join(folder)) else {
                continue;
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(".so") {
                    found.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        Ok(Self(found))
    }

    /// Adds the library `name` and all that it needs.
    pub(crate) fn add(&self, tree: &mut Tree, name: &str) -> Result<()> {
        let to = format!("{FOLDER}/{name}");
        if tree.contains(&to) {
            return Ok(());
        }
        let path = self
            .0
            .get(name)
            .with_context(|| format!("no library {name}"))?;
        tree.copy(&to, path)?;
        self.add_needs_of(tree, path)
    }

    /// Adds all libraries that the program or library at `path` needs.
    pub(crate) fn add_needs_of(&self, tree: &mut Tree, path: &Path) -> Result<()> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        for name in needed(&bytes).with_context(|| path.display().to_string())? {
            self.add(tree, &name)
                .with_context(|| format!("needed by {}", path.display()))?;
        }
        Ok(())
    }
}

/// The names in an ELF file's `DT_NEEDED` entries; none for a script.
fn needed(bytes: &[u8]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if !bytes.starts_with(&elf::ELFMAG) {
        return Ok(names);
    }
    let file = ElfFile64::<Endianness>::parse(bytes)?;
    let (endian, header) = (file.endian(), file.elf_header());
    let sections = header.sections(endian, bytes)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes)? else {
        return Ok(names);
    };
    let strings = sections.strings(endian, bytes, link)?;
    for entry in entries {
        if entry.tag(endian) == elf::DT_NEEDED {
            let name = entry.string(endian, strings)?;
            names.insert(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_needs_libc() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&own).unwrap().contains("libc.so.6"));
        assert!(needed(b"#!/bin/sh\n").unwrap().is_empty());
        assert!(needed(b"\x7fELF").is_err());
    }
}
