//! Kernel modules for an image: with everything they need, unpacked, and with
//! the tables that `modprobe` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use lzma_rust2::XzReader;

use crate::tree::Tree;

/// `modules.dep`: each module's path and the paths of all modules it needs.
struct Needs(BTreeMap<String, Vec<String>>);

impl Needs {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (module, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((module.to_owned(), needs))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// The paths of the module called `name` and of all it needs; nothing if
    /// it is built into the kernel.
    fn of(&self, name: &str) -> Vec<&str> {
        let same = |path: &str| module_name(path) == name.replace('-', "_");
        self.0
            .iter()
            .filter(|(path, _)| same(path))
            .flat_map(|(path, needs)| std::iter::once(path).chain(needs))
            .map(String::as_str)
            .collect()
    }
}

/// `kernel/drivers/block/xen-blkfront.ko.xz` is called `xen_blkfront`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// Adds `modules` of the Linux `version` under `root` to the tree.
pub(crate) fn add(tree: &mut Tree, root: &Path, version: &str, modules: &[&str]) -> Result<()> {
    let from = root.join("usr/lib/modules").join(version);
    let to = format!("usr/lib/modules/{version}");
    let text = fs::read_to_string(from.join("modules.dep")).context("reading modules.dep")?;
    let needs = Needs::parse(&text);
    let builtin = fs::read_to_string(from.join("modules.builtin"))?;
    let mut paths = BTreeSet::new();
    for name in modules {
        let found = needs.of(name);
        let is_builtin = || {
            builtin
                .lines()
                .any(|l| module_name(l) == name.replace('-', "_"))
        };
        anyhow::ensure!(
            !found.is_empty() || is_builtin(),
            "Linux {version} has no module {name}"
        );
        paths.extend(found);
    }
    for path in &paths {
        let unpacked = path.trim_end_matches(".xz");
        tree.file(
            &format!("{to}/{unpacked}"),
            0o644,
            read_module(&from.join(path))?,
        );
    }
    let mut dep = String::new();
    for path in &paths {
        let of = needs.0.get(*path).into_iter().flatten();
        let list: Vec<_> = of.map(|p| p.trim_end_matches(".xz")).collect();
        dep += &format!("{}: {}\n", path.trim_end_matches(".xz"), list.join(" "));
    }
    tree.file(&format!("{to}/modules.dep"), 0o644, dep);
    for table in ["modules.alias", "modules.symbols", "modules.builtin"] {
        tree.copy(&format!("{to}/{table}"), &from.join(table))?;
    }
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
    let mut content = Vec::new();
    if path.extension().is_some_and(|e| e == "xz") {
        XzReader::new(file, true)
            .read_to_end(&mut content)
            .with_context(|| format!("unpacking {}", path.display()))?;
    } else {
        BufReader::new(file).read_to_end(&mut content)?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_found_by_either_spelling() {
        let needs =
            Needs::parse("k/xen-a.ko.xz: k/b_c.ko.xz k/d.ko.xz\nk/b_c.ko.xz:\nk/d.ko.xz:\n");
        let all = ["k/xen-a.ko.xz", "k/b_c.ko.xz", "k/d.ko.xz"];
        assert_eq!(needs.of("xen-a"), all);
        assert_eq!(needs.of("xen_a"), all);
        assert_eq!(needs.of("b-c"), ["k/b_c.ko.xz"]);
        assert!(needs.of("xen").is_empty());
    }
}
