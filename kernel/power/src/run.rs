//! One sequence at work: steps with names, deadlines and stores.

use crate::{Fault, Host, Link, Step, Trouble};
use core::time::Duration;
use firn_block::DiskId;
use firn_image::Store;
use firn_task::{Elapsed, timeout};

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Waiting for requests in flight.
    pub drain: Duration,
    /// Any other wait for one disk, and for other vCPUs.
    pub step: Duration,
    /// Switching off.
    pub power_off: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(5),
            step: Duration::from_secs(5),
            power_off: Duration::from_secs(10),
        }
    }
}

/// What every sequence has at hand.
pub(crate) struct Run<'h, H: Host> {
    pub(crate) host: &'h H,
    pub(crate) limits: Limits,
}

impl<H: Host> Run<'_, H> {
    /// A step that does not wait.
    pub(crate) fn at_once<T>(
        &self,
        step: Step,
        disk: Option<DiskId>,
        work: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Trouble> {
        self.host.enter(step, disk);
        work().map_err(|fault| Trouble { step, disk, fault })
    }

    /// A step that waits, but not for ever: what is late is dropped.
    pub(crate) async fn within<T>(
        &self,
        step: Step,
        disk: Option<DiskId>,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Trouble> {
        let limit = match step {
            Step::Drain => self.limits.drain,
            Step::PowerOff => self.limits.power_off,
            _ => self.limits.step,
        };
        self.host.enter(step, disk);
        match timeout(self.host, limit, work).await {
            Ok(result) => result.map_err(|fault| Trouble { step, disk, fault }),
            Err(Elapsed) => Err(Trouble {
                step,
                disk,
                fault: Fault::Timeout,
            }),
        }
    }

    /// A step of the image code, which keeps its own deadlines.
    pub(crate) async fn image<T, E: Into<Fault>>(
        &self,
        step: Step,
        disk: DiskId,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Trouble> {
        self.host.enter(step, Some(disk));
        work.await.map_err(|error| Trouble {
            step,
            disk: Some(disk),
            fault: error.into(),
        })
    }

    /// A step of the image code on a disk that is connected.
    pub(crate) async fn store<T>(
        &self,
        step: Step,
        disk: DiskId,
        work: impl AsyncFn(&mut Store<H::Device>) -> Result<T, firn_image::Error>,
    ) -> Result<T, Trouble> {
        let mut store = self.at_once(step, Some(disk), || self.open(disk))?;
        let result = self.image(step, disk, work(&mut store)).await;
        self.close(disk, store);
        result
    }

    /// The same where it has to succeed. If it does not on the connection that
    /// there is, it is tried once more over a new one: the old one may be what
    /// is wrong.
    pub(crate) async fn insist<T>(
        &self,
        step: Step,
        disk: DiskId,
        link: Link,
        work: impl AsyncFn(&mut Store<H::Device>) -> Result<T, firn_image::Error>,
    ) -> Result<T, Trouble> {
        let trouble = match self.store(step, disk, &work).await {
            Err(trouble) => trouble,
            done => return done,
        };
        let connected = async {
            let closed = self.host.disconnect(disk);
            self.within(Step::DisconnectImage, Some(disk), closed)
                .await?;
            let connected = self.host.connect(disk, link);
            self.within(Step::ConnectImage, Some(disk), connected).await
        };
        match connected.await {
            Ok(()) => self.store(step, disk, work).await,
            Err(also) => {
                log::warn!("{also}");
                Err(trouble)
            }
        }
    }

    /// The image code at work on a disk that is connected.
    pub(crate) fn open(&self, disk: DiskId) -> Result<Store<H::Device>, Fault> {
        let device = self.host.device(disk)?;
        let scratch = self.host.scratch(disk)?;
        let limits = firn_image::Limits {
            stall: self.limits.step,
        };
        Store::open(device, scratch, limits).map_err(|error| {
            self.host.scratch_back(disk, false);
            error.into()
        })
    }

    /// Ends it; the memory that it worked with goes back.
    pub(crate) fn close(&self, disk: DiskId, store: Store<H::Device>) {
        let free = store.close().is_some();
        self.host.scratch_back(disk, free);
    }
}
