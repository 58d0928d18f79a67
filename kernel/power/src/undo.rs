//! What was done so far, to be undone in exactly reverse order.

use crate::run::Run;
use crate::{Fault, Host, Link, Step, Trouble};
use alloc::vec::Vec;
use firn_block::DiskId;
use firn_image::{Plan, Store};

/// Something that was begun; whether it came to its end does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Park,
    Shut(DiskId),
    Disconnect(DiskId),
    ConnectImage(DiskId),
    /// A header that makes an image valid may be on the disk.
    Header(DiskId),
}

/// Everything that a freeze did, and the store it works with.
pub(crate) struct Done<H: Host> {
    begun: Vec<Begun>,
    pub(crate) store: Option<Store<H::Device>>,
    pub(crate) plan: Option<Plan>,
}

/// A header could not be taken back: nothing may go on.
pub(crate) struct StayStopped;

impl<H: Host> Done<H> {
    /// Nothing was done. There is room for `disks` disks, so that noting
    /// something never allocates.
    pub(crate) fn nothing(disks: usize) -> Self {
        Self {
            begun: Vec::with_capacity(2 * disks + 3),
            store: None,
            plan: None,
        }
    }

    /// Notes what is about to be done.
    pub(crate) fn begin(&mut self, what: Begun) {
        self.begun.push(what);
    }

    /// Undoes everything, the last first. What cannot be brought back is noted
    /// in `left`, and the others are brought back all the same: but for a
    /// header that may be valid, which stops everything.
    pub(crate) async fn undo(
        mut self,
        run: &Run<'_, H>,
        left: &mut Vec<Trouble>,
    ) -> Result<(), StayStopped> {
        while let Some(begun) = self.begun.pop() {
            let result = match begun {
                Begun::Header(disk) => match self.void(run, disk).await {
                    Ok(()) => Ok(()),
                    Err(trouble) => {
                        left.push(trouble);
                        if let Some(store) = self.store.take() {
                            run.close(disk, store);
                        }
                        return Err(StayStopped);
                    }
                },
                Begun::ConnectImage(disk) => self.leave_image(run, disk).await,
                Begun::Disconnect(disk) => {
                    let connected = run.host.connect(disk, Link::Ordinary);
                    run.within(Step::Reconnect, Some(disk), connected).await
                }
                Begun::Shut(disk) => run.at_once(Step::Open, Some(disk), || run.host.open(disk)),
                Begun::Park => run.at_once(Step::Unpark, None, || run.host.unpark()),
            };
            left.extend(result.err());
        }
        Ok(())
    }

    async fn leave_image(&mut self, run: &Run<'_, H>, disk: DiskId) -> Result<(), Trouble> {
        if let Some(store) = self.store.take() {
            run.close(disk, store);
        }
        let closed = run.host.disconnect(disk);
        run.within(Step::DisconnectImage, Some(disk), closed).await
    }

    /// Takes the header back, durably. If that fails on the connection that
    /// there is, it is tried once more over a new one: the old one may be what
    /// is wrong.
    async fn void(&mut self, run: &Run<'_, H>, disk: DiskId) -> Result<(), Trouble> {
        let Some(plan) = self.plan.take() else {
            return Ok(()); // a header is only ever written by a plan
        };
        if let Some(store) = &mut self.store
            && run.image(Step::Void, disk, store.void(&plan)).await.is_ok()
        {
            return Ok(());
        }
        if let Err(trouble) = self.leave_image(run, disk).await
            && trouble.fault != Fault::Gone
        {
            log::warn!("{trouble}");
        }
        let connected = run.host.connect(disk, Link::Image);
        run.within(Step::ConnectImage, Some(disk), connected)
            .await?;
        let opened = run.at_once(Step::Void, Some(disk), || run.open(disk))?;
        let store = self.store.insert(opened);
        run.image(Step::Void, disk, store.void(&plan)).await
    }
}
