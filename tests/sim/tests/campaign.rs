//! Short forms of what the command line does at length.

use firn_sim::campaign::Campaign;
use firn_sim::memory::SimAlloc;
use firn_sim::model::{Bounds, Broken, Protocol};

#[global_allocator]
static ALLOCATOR: SimAlloc = SimAlloc;

const CAMPAIGN: Campaign = Campaign {
    cycles: 2_000,
    seed: 1,
    lying: false,
    threads: 2,
};

#[test]
fn no_record_is_lost_and_no_image_goes_on_twice() {
    let report = CAMPAIGN.run(|_| {});
    if let Some(failing) = report.failing {
        panic!(
            "seed {}: {}\n{:#?}\n{}",
            failing.seed,
            failing.wrong,
            failing.script,
            failing.trace.join("\n")
        );
    }
    let tally = report.tally;
    assert!(tally.restored > 1_000 && tally.cuts > 100 && tally.refused > 10);
    assert!(tally.crossed > 300, "{tally:?}");
    assert!(tally.acked > 10_000, "{tally:?}");
}

#[test]
fn a_disk_that_lies_about_flush_is_found_out() {
    let lying = Campaign {
        lying: true,
        ..CAMPAIGN
    };
    let failing = lying.run(|_| {}).failing;
    let failing = failing.unwrap_or_else(|| panic!("nothing was noticed"));
    assert!(failing.script.cycles.len() <= 3, "{:#?}", failing.script);
    assert!(!failing.trace.is_empty());
}

#[test]
fn the_model_holds_and_needs_every_rule() {
    let bounds = Bounds {
        cuts: 1,
        faults: 2,
        freezes: 2,
        writes: 2,
    };
    for broken in Broken::ALL {
        let found = Protocol { bounds, broken }.explore(2);
        assert_eq!(
            found.offences.is_empty(),
            broken == Broken::Nothing,
            "{broken:?}: {found:?}"
        );
    }
}

#[test]
fn no_state_that_a_power_cut_leaves_loses_anything() {
    for seed in 1..4 {
        let found = firn_sim::states::explore(seed);
        assert_eq!(found.wrong, Vec::<String>::new(), "seed {seed}");
        assert!(found.states > 500 && found.restored > 10, "{found:?}");
    }
}
