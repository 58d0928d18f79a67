//! What a driver has to do for a disk's data path, and what all of them have in
//! common on top of it: the queue for jobs, the one for the kernel, and the
//! buffers of an earlier boot.

use crate::accepted::{Accepted, Owner};
use crate::buffers::{AdoptError, Adopted, Buffers};
use crate::gate::Lifecycle;
use crate::queue::{Armed, Queue, RegisterError, Unregistered};
use crate::shm::Region;
use crate::{Buffer, Busy, Completion, DiskInfo, Refused, Request, Stats, Token};
use alloc::rc::Rc;
use firn_task::Signal;

/// One disk's way to its host: what only the driver knows how to do. Whoever
/// implements it has a [`Queue`], and [`PrivateQueue`] on top of it.
pub trait DataPath {
    /// What is kept of each registered buffer, as long as it is registered.
    type Kept;

    /// What the disk is now.
    fn disk(&self) -> &DiskInfo;

    /// Where the disk is in its life, after what the host did was noticed.
    fn look(&mut self) -> Lifecycle;

    /// Requests between their acceptance and their completion.
    fn requests(&self) -> &Accepted;

    /// The same, to be changed.
    fn requests_mut(&mut self) -> &mut Accepted;

    /// Registered buffers.
    fn buffers(&self) -> &Buffers<Self::Kept>;

    /// Notified when the control path should look: nothing is in flight any more
    /// on a disk that is shut, or the host broke a rule.
    fn attention(&self) -> &Rc<Signal>;

    /// Notified with the host's events, while there is a connection.
    fn events(&self) -> Option<Rc<Signal>>;

    /// Puts on the ring what fits and was not put there yet.
    fn fill(&mut self);

    /// Shows the host what is on the ring.
    fn publish(&mut self);

    /// Takes up to `budget` answers off the ring.
    fn reap(&mut self, budget: usize);

    /// Asks for an event at the next answer.
    fn arm_ring(&mut self) -> Armed;

    /// What keeps the ring from being idle.
    fn busy(&self) -> Option<Busy>;

    /// [`Queue::register`] for an owner.
    ///
    /// # Errors
    /// [`RegisterError`] gives the memory back.
    fn register_for(&mut self, region: Region, owner: Owner) -> Result<Buffer, RegisterError>;

    /// [`Queue::unregister`].
    fn take_back(&mut self, buffer: Buffer) -> Unregistered;

    /// [`Queue::reuse`] for an owner.
    fn reuse_for(&mut self, pages: usize, owner: Owner) -> Option<Buffer>;

    /// [`Queue::keeps_mapped`].
    fn is_mapping(&self) -> bool {
        false
    }

    /// Replaces the registered buffers, none of which is lent, by those of an
    /// earlier boot.
    ///
    /// # Errors
    /// [`AdoptError::Host`]; nothing is replaced then.
    fn replace_buffers(&mut self, adopted: Buffers<Self::Kept>) -> Result<(), AdoptError>;

    /// What [`Buffer::queue`] says of this queue's buffers: to be saved beside
    /// them.
    #[must_use]
    fn queue(&self) -> u32 {
        self.buffers().queue()
    }

    /// A number that no token of this queue has reached: to be saved as well.
    #[must_use]
    fn next_token(&self) -> u64 {
        self.requests().next_token()
    }

    /// Takes over the buffers of an earlier boot's queue, under their numbers:
    /// whoever has one goes on using it here, on whatever host that boot was. The
    /// disk may have another name now, so `queue` replaces this queue's own
    /// number. Tokens go on from `next_token`, so that none of the earlier boot's
    /// is given out twice.
    ///
    /// What the host can do makes no difference to a buffer: smaller requests and
    /// rings than the earlier boot's only mean that requests are sent in more
    /// pieces.
    ///
    /// # Errors
    /// [`AdoptError`]; nothing is adopted then.
    fn adopt(
        &mut self,
        queue: u32,
        next_token: u64,
        buffers: impl IntoIterator<Item = Adopted>,
    ) -> Result<(), AdoptError>
    where
        Self::Kept: Default,
    {
        if self.buffers().any_lent() {
            return Err(AdoptError::Lent);
        }
        self.replace_buffers(Buffers::adopt(queue, buffers)?)?;
        self.requests_mut().skip_tokens(next_token);
        Ok(())
    }
}

/// Asks the gate, then checks the request, then accepts it.
fn accept(path: &mut impl DataPath, request: Request, owner: Owner) -> Result<Token, Refused> {
    let admitted = path.look().admit(owner);
    let owns = |buffer: &Buffer| path.buffers().owns(buffer);
    if let Err(why) = admitted.and_then(|()| path.disk().check(&request, owns)) {
        return Err(Refused { why, request });
    }
    let token = path.requests_mut().accept(request, owner)?;
    path.fill();
    Ok(token)
}

/// Asks for an event, unless there are completions to be taken.
fn arm(path: &mut impl DataPath, owner: Owner) -> Armed {
    match path.requests().completions(owner) {
        0 => path.arm_ring(),
        _ => Armed::Poll,
    }
}

impl<P: DataPath> Queue for P {
    fn info(&self) -> &DiskInfo {
        self.disk()
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        self.register_for(region, Owner::Job)
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        self.take_back(buffer)
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        self.reuse_for(pages, Owner::Job)
    }

    fn keeps_mapped(&self) -> bool {
        self.is_mapping()
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        accept(self, request, Owner::Job)
    }

    fn kick(&mut self) {
        self.publish();
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        self.reap(budget);
        let handed = self.requests_mut().deliver(Owner::Job, budget, done);
        if handed > 0 && self.in_flight() == 0 && self.look() != Lifecycle::Live {
            // Whoever drains the disk waits until all is handed out.
            self.attention().notify();
        }
        handed
    }

    fn arm(&mut self) -> Armed {
        arm(self, Owner::Job)
    }

    fn in_flight(&self) -> usize {
        self.requests().in_flight(Owner::Job)
    }

    fn stats(&self) -> &Stats {
        &self.requests().stats
    }
}

/// A disk's queue as the kernel uses it for itself: to flush before a
/// disconnect, and to write or read an image.
///
/// It accepts requests while the gate is shut to jobs ([`Lifecycle::Freezing`]),
/// and its completions are its own: the main loop's [`Queue::poll`] does not see
/// them, and [`Queue::in_flight`] counts them alone. It keeps nothing of its own,
/// so making one for each call is the way to use it.
pub struct PrivateQueue<'a, P>(&'a mut P);

impl<'a, P: DataPath> PrivateQueue<'a, P> {
    /// The kernel's own way in.
    pub const fn new(path: &'a mut P) -> Self {
        Self(path)
    }

    /// Requests that the host has not answered: it may still read or write their
    /// memory.
    pub fn unanswered(&mut self) -> usize {
        self.0.reap(usize::MAX);
        self.0.requests().unended(Owner::Kernel)
    }
}

impl<P: DataPath> Queue for PrivateQueue<'_, P> {
    fn info(&self) -> &DiskInfo {
        self.0.disk()
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        self.0.register_for(region, Owner::Kernel)
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        self.0.take_back(buffer)
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        self.0.reuse_for(pages, Owner::Kernel)
    }

    fn keeps_mapped(&self) -> bool {
        self.0.is_mapping()
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        accept(self.0, request, Owner::Kernel)
    }

    fn kick(&mut self) {
        self.0.publish();
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        self.0.reap(budget);
        self.0.requests_mut().deliver(Owner::Kernel, budget, done)
    }

    fn arm(&mut self) -> Armed {
        arm(self.0, Owner::Kernel)
    }

    fn in_flight(&self) -> usize {
        self.0.requests().in_flight(Owner::Kernel)
    }

    fn stats(&self) -> &Stats {
        &self.0.requests().stats
    }
}
