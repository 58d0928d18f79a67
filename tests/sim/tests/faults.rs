//! Every fault point leaves the machine as the design says.

use firn_power::Step;
use firn_sim::memory::SimAlloc;
use firn_sim::side::Hypervisor;
use firn_sim::table::{self, Phase};
use firn_sim::vmbus::{self, BusStep};
use std::collections::BTreeSet;

#[global_allocator]
static ALLOCATOR: SimAlloc = SimAlloc;

#[test]
fn every_step_is_taken_by_some_sequence() {
    for on in Hypervisor::ALL {
        let taken = Phase::ALL.map(|phase| table::steps(on, phase));
        let taken: BTreeSet<Step> = taken.into_iter().flatten().collect();
        let mut all = BTreeSet::from(Step::ALL);
        if on == Hypervisor::HyperV {
            // There the host maps memory for each request anew.
            all.remove(&Step::MapLanes);
        }
        assert_eq!(taken, all, "{on}");
    }
}

#[test]
fn every_fault_point_leaves_the_machine_as_designed() {
    for on in Hypervisor::ALL {
        let points = table::points(on);
        assert!(points.len() >= 200, "{} fault points", points.len());
        let wrong: Vec<String> = points
            .into_iter()
            .map(table::run)
            .filter(|row| row.wrong.is_some())
            .map(|row| format!("{:?}: {}, {:?}", row.point, row.stands, row.wrong))
            .collect();
        assert_eq!(wrong, Vec::<String>::new());
    }
}

#[test]
fn every_fault_of_the_bus_ends_as_designed_and_nothing_is_leaked() {
    let points = vmbus::points();
    assert!(points.len() >= 60, "{} fault points", points.len());
    let with_faults: BTreeSet<BusStep> = points.iter().map(|point| point.step).collect();
    let all = BusStep::DOWN.into_iter().chain(BusStep::UP);
    // Nobody can refuse that.
    let expected = all.filter(|step| *step != BusStep::TurnOff);
    assert!(with_faults.into_iter().eq(expected));
    let pages = vmbus::pages_without_fault();
    let wrong: Vec<String> = points
        .into_iter()
        .map(|point| vmbus::run(point, pages))
        .filter_map(|row| {
            let (step, fault) = (row.point.step, row.point.fault);
            row.wrong.map(|why| format!("{step}, {fault}: {why}"))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}
