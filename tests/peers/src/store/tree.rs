//! The tree of nodes: values, permissions, generations.

use firn_xen::wire::errno::Errno;
use firn_xen::wire::xs::ABS_PATH_MAX;
use std::collections::BTreeMap;

/// Who may do what with a node, in the store's own words: the first entry names
/// the owner and what everybody else may do, each other entry one domain.
/// Letters are `n`, `r`, `w` and `b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perms(Vec<(char, u16)>);

impl Perms {
    /// A node of `owner` that `other` may read.
    #[must_use]
    pub fn readable_by(owner: u16, other: u16) -> Self {
        Self(vec![('n', owner), ('r', other)])
    }

    /// A node that only its owner (and domain 0) sees.
    #[must_use]
    pub fn private(owner: u16) -> Self {
        Self(vec![('n', owner)])
    }

    /// Reads the wire form, such as `n1`, `r0`.
    pub(super) fn parse(words: &[&str]) -> Option<Self> {
        let parse = |word: &&str| {
            let letter = word.chars().next().filter(|c| "nrwb".contains(*c))?;
            Some((letter, word.get(1..)?.parse().ok()?))
        };
        let list: Option<Vec<_>> = words.iter().map(parse).collect();
        list.filter(|list| !list.is_empty()).map(Self)
    }

    pub(super) fn words(&self) -> Vec<String> {
        let words = self.0.iter();
        words.map(|(letter, id)| format!("{letter}{id}")).collect()
    }

    pub(super) fn owner(&self) -> u16 {
        self.0[0].1
    }

    fn letter(&self, domid: u16) -> char {
        if domid == 0 || domid == self.owner() {
            return 'b';
        }
        let entry = self.0[1..].iter().find(|(_, id)| *id == domid);
        entry.unwrap_or(&self.0[0]).0
    }

    pub(super) fn allow_read(&self, domid: u16) -> bool {
        matches!(self.letter(domid), 'r' | 'b')
    }

    pub(super) fn allow_write(&self, domid: u16) -> bool {
        matches!(self.letter(domid), 'w' | 'b')
    }

    /// What a child made by `domid` gets.
    fn inherited_by(&self, domid: u16) -> Self {
        let mut perms = self.clone();
        if domid != 0 {
            perms.0[0].1 = domid;
        }
        perms
    }
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Vec<u8>,
    pub(super) perms: Perms,
    /// When the node itself or its list of children last changed.
    pub(super) generation: u64,
}

/// All nodes by absolute path; the root is the empty path.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node {
            value: Vec::new(),
            perms: Perms(vec![('r', 0)]),
            generation: 0,
        };
        Self {
            nodes: BTreeMap::from([(String::new(), root)]),
        }
    }

    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// A node that `domid` may read.
    pub(super) fn readable(&self, path: &str, domid: u16) -> Result<&Node, Errno> {
        match self.nodes.get(path) {
            Some(node) if node.perms.allow_read(domid) => Ok(node),
            Some(_) => Err(Errno::EACCES),
            None => Err(self.absent(path, domid)),
        }
    }

    /// Why a missing node is missing: who may not read the parent does not
    /// learn that it is.
    pub(super) fn absent(&self, path: &str, domid: u16) -> Errno {
        let (_, above) = self.nearest(path);
        if above.perms.allow_read(domid) {
            Errno::ENOENT
        } else {
            Errno::EACCES
        }
    }

    /// The nearest node above a path.
    fn nearest<'a>(&self, path: &'a str) -> (&'a str, &Node) {
        let mut at = path;
        loop {
            at = parent(at);
            if let Some(node) = self.nodes.get(at) {
                return (at, node);
            }
        }
    }

    /// Names of the children.
    pub(super) fn children(&self, path: &str) -> Vec<&str> {
        let prefix = format!("{path}/");
        let below = self.nodes.range(prefix.clone()..);
        below
            .map_while(|(name, _)| name.strip_prefix(&prefix))
            .filter(|rest| !rest.contains('/'))
            .collect()
    }

    /// Makes a node and what is missing above it.
    pub(super) fn create(&mut self, path: &str, domid: u16, generation: u64) -> Result<(), Errno> {
        let (above, node) = self.nearest(path);
        if !node.perms.allow_write(domid) {
            return Err(Errno::EACCES);
        }
        let perms = node.perms.inherited_by(domid);
        if let Some(node) = self.nodes.get_mut(above) {
            node.generation = generation;
        }
        let mut at = path;
        while at != above {
            let node = Node {
                value: Vec::new(),
                perms: perms.clone(),
                generation,
            };
            self.nodes.insert(at.to_owned(), node);
            at = parent(at);
        }
        Ok(())
    }

    /// Sets a value; makes the node if it is missing.
    pub(super) fn write(
        &mut self,
        path: &str,
        value: &[u8],
        domid: u16,
        generation: u64,
    ) -> Result<(), Errno> {
        match self.nodes.get(path) {
            Some(node) if !node.perms.allow_write(domid) => return Err(Errno::EACCES),
            Some(_) => {}
            None => self.create(path, domid, generation)?,
        }
        if let Some(node) = self.nodes.get_mut(path) {
            node.value = value.to_vec();
            node.generation = generation;
        }
        Ok(())
    }

    /// Removes a node and what is below; returns the paths, deepest last.
    pub(super) fn remove(&mut self, path: &str, generation: u64) -> Vec<String> {
        let prefix = format!("{path}/");
        let mut gone: Vec<String> = self
            .nodes
            .range(prefix.clone()..)
            .map_while(|(name, _)| name.starts_with(&prefix).then(|| name.clone()))
            .collect();
        gone.insert(0, path.to_owned());
        gone.retain(|name| self.nodes.remove(name).is_some());
        if let Some(above) = self.nodes.get_mut(parent(path)) {
            above.generation = generation;
        }
        gone
    }

    /// Makes one path what it is in `other`: present with that content, or
    /// absent.
    pub(super) fn copy_from(&mut self, other: &Self, path: &str, generation: u64) {
        match other.nodes.get(path) {
            Some(node) => {
                let node = Node {
                    generation,
                    ..node.clone()
                };
                self.nodes.insert(path.to_owned(), node);
            }
            None => {
                self.nodes.remove(path);
            }
        }
        if let Some(above) = self.nodes.get_mut(parent(path)) {
            above.generation = generation;
        }
    }
}

/// The path above; the root's is the root.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// A path as a domain wrote it, in absolute form without a slash at the end.
pub(super) fn absolute(path: &str, domid: u16) -> Result<String, Errno> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-/_@".contains(&c);
    if path.is_empty() || path.len() > ABS_PATH_MAX || !path.bytes().all(fine) {
        return Err(Errno::EINVAL);
    }
    if path == "/" {
        return Ok(String::new());
    }
    if path.ends_with('/') || path.contains("//") {
        return Err(Errno::EINVAL);
    }
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Ok(format!("/local/domain/{domid}/{path}"))
}
