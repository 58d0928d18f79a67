//! Short forms of what `cargo xtask soak` does for long: one memory in many
//! boots and places, and not one acknowledged record lost or doubled.

use anyhow::{Result, ensure};
use firn_boot_tests::campaign::{self, Kind, Plan};

/// A failing seed is in the message; it goes here to be tried again.
const SEED: u64 = 1;

#[test]
fn saved_and_restored_under_load() -> Result<()> {
    let score = campaign::run(Kind::Save, &Plan::quiet(2, SEED))?;
    ensure!(score.times == 2, "{score:?}");
    Ok(())
}

#[test]
fn migrated_under_load() -> Result<()> {
    let score = campaign::run(Kind::Migrate, &Plan::quiet(1, SEED))?;
    ensure!(score.times == 1, "{score:?}");
    Ok(())
}

#[test]
fn frozen_and_restored_under_load() -> Result<()> {
    let score = campaign::run(Kind::Freeze, &Plan::quiet(3, SEED))?;
    ensure!((score.restored, score.cold) == (3, 1), "{score:?}");
    Ok(())
}

#[test]
fn destroyed_at_random_moments() -> Result<()> {
    let score = campaign::run(Kind::Destroy, &Plan::quiet(4, SEED))?;
    ensure!(score.restored + score.cold >= 5, "{score:?}");
    Ok(())
}
