//! A file tree in memory, written as a `newc` archive (what Linux takes as its
//! first file system).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

enum Node {
    Folder,
    File { mode: u32, content: Vec<u8> },
    Link(String),
}

/// The tree; paths have no leading slash. Parent folders come by themselves.
#[derive(Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    pub(crate) fn folder(&mut self, path: &str) {
        self.parents(path);
        self.nodes.insert(path.into(), Node::Folder);
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.nodes.insert(path.into(), Node::Link(target.into()));
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        let content = content.into();
        self.nodes.insert(path.into(), Node::File { mode, content });
    }

    /// Copies a file (or what a link points to) with its permissions.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| from.display().to_string())?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(path, mode, content);
        Ok(())
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    fn parents(&mut self, path: &str) {
        let mut end = 0;
        while let Some(slash) = path[end..].find('/') {
            end += slash;
            self.nodes.entry(path[..end].into()).or_insert(Node::Folder);
            end += 1;
        }
    }

    /// The archive. Several archives may follow one another in an image.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, node)) in (1..).zip(&self.nodes) {
            let entry = Builder::new(path).ino(number).nlink(1);
            let (entry, content) = match node {
                Node::Folder => (
                    entry
                        .mode(0o755)
                        .set_mode_file_type(ModeFileType::Directory),
                    &[][..],
                ),
                Node::File { mode, content } => (
                    entry.mode(*mode).set_mode_file_type(ModeFileType::Regular),
                    content.as_slice(),
                ),
                Node::Link(target) => (
                    entry.mode(0o777).set_mode_file_type(ModeFileType::Symlink),
                    target.as_bytes(),
                ),
            };
            let size = u32::try_from(content.len()).with_context(|| format!("{path}: too big"))?;
            let mut writer = entry.write(&mut out, size);
            writer.write_all(content)?;
            writer.finish()?;
        }
        trailer(&mut out)?;
        // The kernel looks for the next archive at a multiple of four bytes.
        out.resize(out.len().next_multiple_of(512), 0);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn an_archive_reads_back() {
        let mut tree = Tree::default();
        tree.file("a/b/c", 0o755, *b"content");
        tree.link("a/l", "b/c");
        let archive = tree.archive().unwrap();
        assert_eq!(archive.len() % 512, 0);
        let mut input = &archive[..];
        let mut seen = Vec::new();
        loop {
            let mut reader = cpio::newc::Reader::new(input).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            let entry = reader.entry();
            seen.push((entry.name().to_owned(), entry.mode(), content));
            input = reader.finish().unwrap();
        }
        let expected = [
            ("a", 0o040_755, ""),
            ("a/b", 0o040_755, ""),
            ("a/b/c", 0o100_755, "content"),
            ("a/l", 0o120_777, "b/c"),
        ];
        assert_eq!(seen, expected.map(|(n, m, c)| (n.into(), m, c.into())));
    }
}
