//! What jobs call a disk, and what this boot calls it.

use alloc::vec::Vec;

use firn_block::DiskId;

/// Jobs that were restored know their disks by the names that these had at the
/// freeze. Every other disk keeps its name, unless a restored disk has it: then
/// it gets the name that the restored disk left free. So no two disks ever have
/// one name.
#[derive(Debug, Default)]
pub struct Names {
    bound: Vec<(DiskId, DiskId)>,
}

impl Names {
    /// Every disk has its own name.
    #[must_use]
    pub const fn new() -> Self {
        Self { bound: Vec::new() }
    }

    /// From now on, for each pair, jobs call `.1` by the name `.0`.
    pub fn bind(&mut self, pairs: &[(DiskId, DiskId)]) {
        self.bound.clear();
        self.bound.extend_from_slice(pairs);
    }

    /// This boot's name of what jobs call `name`.
    #[must_use]
    pub fn to_boot(&self, name: DiskId) -> DiskId {
        if let Some(boot) = self.target(name) {
            return boot;
        }
        self.follow(name, |at| self.source(at))
    }

    /// The jobs' name of this boot's disk `disk`.
    #[must_use]
    pub fn to_job(&self, disk: DiskId) -> DiskId {
        if let Some(job) = self.source(disk) {
            return job;
        }
        self.follow(disk, |at| self.target(at))
    }

    fn target(&self, job: DiskId) -> Option<DiskId> {
        self.bound.iter().find(|pair| pair.0 == job).map(|p| p.1)
    }

    fn source(&self, boot: DiskId) -> Option<DiskId> {
        self.bound.iter().find(|pair| pair.1 == boot).map(|p| p.0)
    }

    /// Follows a chain of pairs to its end; it has at most all of them.
    fn follow(&self, mut at: DiskId, next: impl Fn(DiskId) -> Option<DiskId>) -> DiskId {
        for _ in 0..self.bound.len() {
            match next(at) {
                Some(further) => at = further,
                None => break,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn without_bindings_names_are_what_they_are() {
        let names = Names::new();
        assert_eq!(names.to_boot(DiskId(3)), DiskId(3));
        assert_eq!(names.to_job(DiskId(3)), DiskId(3));
    }

    #[test]
    fn a_disk_that_lost_its_name_takes_the_one_that_is_free() {
        let mut names = Names::new();
        names.bind(&[(DiskId(0), DiskId(2))]);
        assert_eq!(names.to_boot(DiskId(0)), DiskId(2));
        assert_eq!(names.to_job(DiskId(0)), DiskId(2));
        assert_eq!(names.to_boot(DiskId(2)), DiskId(0));
        assert_eq!(names.to_job(DiskId(1)), DiskId(1));
    }

    proptest! {
        /// Both ways agree, bound names are as bound, no two disks share one.
        #[test]
        fn names_stay_apart(
            saved in Just((0..8).collect::<Vec<u32>>()).prop_shuffle(),
            present in Just((0..8).collect::<Vec<u32>>()).prop_shuffle(),
            count in 0usize..8,
        ) {
            let pairs: Vec<_> = saved.into_iter().zip(present).take(count)
                .map(|(s, p)| (DiskId(s), DiskId(p))).collect();
            let mut names = Names::new();
            names.bind(&pairs);
            for (job, boot) in &pairs {
                prop_assert_eq!(names.to_boot(*job), *boot);
            }
            let all: BTreeSet<_> = (0..8).map(|d| names.to_job(DiskId(d))).collect();
            prop_assert_eq!(all.len(), 8);
            for disk in (0..8).map(DiskId) {
                prop_assert_eq!(names.to_boot(names.to_job(disk)), disk);
            }
        }
    }
}
