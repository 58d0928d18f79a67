//! Transactions: a private copy of the tree, and who won.

use super::tree::{Tree, parent};
use std::collections::{BTreeMap, BTreeSet};

/// A change that watches hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: String,
    /// Only watches of exactly this path: it went away with a node above it.
    pub(super) exact: bool,
}

/// One open transaction.
pub(super) struct Transaction {
    pub(super) tree: Tree,
    /// The tree at the start.
    base: Tree,
    /// What was looked at or changed, and its generation at the start.
    touched: BTreeMap<String, Option<u64>>,
    written: BTreeSet<String>,
    pub(super) changes: Vec<Change>,
}

impl Transaction {
    pub(super) fn new(tree: &Tree) -> Self {
        Self {
            tree: tree.clone(),
            base: tree.clone(),
            touched: BTreeMap::new(),
            written: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// Notes that the outcome depends on a node.
    pub(super) fn touch(&mut self, path: &str) {
        if !self.touched.contains_key(path) {
            let generation = self.base.get(path).map(|node| node.generation);
            self.touched.insert(path.to_owned(), generation);
        }
    }

    /// Notes that a node is about to be changed, made or removed, and with it
    /// what has to be made above it.
    pub(super) fn will_write(&mut self, path: &str) {
        let mut at = path;
        loop {
            self.touch(at);
            self.written.insert(at.to_owned());
            if self.tree.get(at).is_some() || at.is_empty() {
                break;
            }
            at = parent(at);
        }
    }

    /// Notes that a node was changed, perhaps together with one above it.
    pub(super) fn wrote(&mut self, path: &str) {
        self.written.insert(path.to_owned());
    }

    /// Whether nobody else changed what this transaction depends on.
    fn may_commit(&self, main: &Tree) -> bool {
        self.touched
            .iter()
            .all(|(path, seen)| main.get(path).map(|node| node.generation) == *seen)
    }

    /// Applies the changes; says whether it could.
    pub(super) fn commit(&self, main: &mut Tree, generation: u64) -> bool {
        if !self.may_commit(main) {
            return false;
        }
        for path in &self.written {
            main.copy_from(&self.tree, path, generation);
        }
        true
    }
}
