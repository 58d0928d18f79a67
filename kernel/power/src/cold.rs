//! Going on without an image: it is given up first, durably.

use crate::boot::open_all;
use crate::look::is_connected;
use crate::run::Run;
use crate::{Fault, Host, Limits, Step, Trouble};
use alloc::vec::Vec;
use firn_block::DiskId;
use firn_image::{Generation, Store};

/// Gives up every image that this machine could restore, and everything that
/// might be one, durably; then opens the gates and lets jobs run. Returns what
/// was given up. `undecided` are the disks that a refused boot named: each has
/// to be there, because what it holds cannot be given up without it.
///
/// # Errors
/// [`Trouble`]: gates stay shut, and what is not yet given up may be restored.
pub async fn cold<H: Host>(
    host: &H,
    limits: Limits,
    undecided: &[DiskId],
) -> Result<Vec<(DiskId, Generation)>, Trouble> {
    let run = Run { host, limits };
    host.empty();
    let (places, unread) = run.look_at_all().await;
    // Whoever cannot be read may hold an image, and stays a reason to wait.
    if let Some(trouble) = unread.into_iter().next() {
        return Err(trouble);
    }
    let disks = host.disks();
    for id in undecided {
        run.at_once(Step::Abandon, Some(*id), || {
            let there = disks
                .iter()
                .any(|disk| disk.id == *id && is_connected(disk));
            there.then_some(()).ok_or(Fault::Gone)
        })?;
    }
    let mut gone = Vec::new();
    for place in places.iter().filter(|place| place.asks()) {
        let abandon =
            async |store: &mut Store<H::Device>| store.abandon(place.area, &place.slots).await;
        gone.push((
            place.disk,
            run.store(Step::Abandon, place.disk, abandon).await?,
        ));
    }
    open_all(&run)?;
    Ok(gone)
}
