//! Every fault point leaves the machine as the design says.

use firn_power::Step;
use firn_sim::memory::SimAlloc;
use firn_sim::table::{self, Phase};
use std::collections::BTreeSet;

#[global_allocator]
static ALLOCATOR: SimAlloc = SimAlloc;

#[test]
fn every_step_is_taken_by_some_sequence() {
    let taken: BTreeSet<Step> = Phase::ALL.into_iter().flat_map(table::steps).collect();
    assert_eq!(taken, BTreeSet::from(Step::ALL));
}

#[test]
fn every_fault_point_leaves_the_machine_as_designed() {
    let points = table::points();
    assert!(points.len() >= 60, "{} fault points", points.len());
    let wrong: Vec<String> = points
        .into_iter()
        .map(table::run)
        .filter(|row| row.wrong.is_some())
        .map(|row| format!("{:?}: {}, {:?}", row.point, row.stands, row.wrong))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}
