//! What the fuzzers run: each target turns bytes into acts of a hostile host
//! and checks that the guest neither panics, nor hangs, nor breaks a rule.
//!
//! `README.md` says how to run them.
#![deny(unsafe_code)]

pub mod blkback;
pub mod bootinfo;
pub mod ic;
pub mod scsi;
pub mod store;
pub mod vmbus;

use arbitrary::{Arbitrary, Unstructured};
use std::ops::ControlFlow;

/// Acts of one input that are carried out; more only make it slow.
const MOST_ACTS: usize = 200;

/// Carries out what the input says, act by act, until it ends or `carry_out` does
/// not go on.
fn each_act<'a, A: Arbitrary<'a>>(
    input: &mut Unstructured<'a>,
    mut carry_out: impl FnMut(A) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for _ in 0..MOST_ACTS {
        let Ok(act) = A::arbitrary(input) else {
            break;
        };
        carry_out(act)?;
        if input.is_empty() {
            break;
        }
    }
    ControlFlow::Continue(())
}
