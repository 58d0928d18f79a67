//! A client of xenstore (`io/xs_wire.h`), over the ring page of this domain.
//!
//! [`Store::poll`] is called by the main loop; everything else is `async`.
//! What the server sends is checked: a broken rule is a [`StoreOffence`] that
//! ends the connection for good and never a panic. Tolerated, because servers
//! do it or a race explains it: a late reply to a request that timed out, events
//! of a watch until the server has confirmed its end, errors with a name we do
//! not know, a missing final zero where a payload is a single string, ids in
//! watch events.

mod client;
mod error;
mod message;
mod nodes;
mod reply;
mod ring;
mod transaction;
mod watch;

pub use error::{StoreError, StoreOffence};
pub use nodes::Nodes;
pub use reply::{Permission, Rights};
pub use transaction::Transaction;
pub use watch::Watch;

use crate::Xen;
use crate::hal::Hal;
use crate::start_page::StartPage;
use crate::trace::Source;
use crate::wire::DomId;
use crate::wire::errno::Errno;
use crate::wire::event_channel::Port;
use crate::wire::hvm::{PARAM_STORE_EVTCHN, PARAM_STORE_PFN};
use crate::wire::xs::MessageType;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use client::{Client, DEADLINE, Phase, State};
use core::cell::Cell;
use core::mem::replace;
use core::ops::Deref;
use core::task::Waker;
use core::time::Duration;
use firn_block::shm::Region;
use firn_task::{Signal, timeout};
use ring::{Connection, Ring};

const PAGE: StartPage = StartPage {
    frame: ("STORE_PFN", PARAM_STORE_PFN),
    port: ("STORE_EVTCHN", PARAM_STORE_EVTCHN),
};

/// How often [`Store::transact`] runs a transaction that loses races.
const TRANSACTION_TRIES: usize = 32;

/// The connection to xenstore. A clone is another handle to the same one.
///
/// Nodes are read and changed by the methods of [`Nodes`].
pub struct Store<H: Hal> {
    nodes: Nodes<H>,
}

impl<H: Hal> Clone for Store<H> {
    fn clone(&self) -> Self {
        Self::of(self.nodes.client.clone())
    }
}

impl<H: Hal> Deref for Store<H> {
    type Target = Nodes<H>;

    fn deref(&self) -> &Nodes<H> {
        &self.nodes
    }
}

impl<H: Hal> Store<H> {
    /// Connects by the HVM parameters `STORE_PFN` and `STORE_EVTCHN`.
    ///
    /// # Errors
    /// [`StoreError::NotYet`] when the toolstack says that xenstore comes later:
    /// the caller tries again until its deadline. [`StoreError::Page`] when
    /// there is none. Else as [`Store::new`].
    pub fn attach(xen: &Rc<Xen<H>>) -> Result<Self, StoreError> {
        let (ring, port) = PAGE.find(&xen.hal)?;
        let store = Self::new(xen, ring, port)?;
        store.client().attached.set(true);
        Ok(store)
    }

    /// Connects over a ring page. If an earlier user left the ring in the middle
    /// of something, the server is asked to reset it; requests wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] when the ring or the port cannot be used.
    pub fn new(xen: &Rc<Xen<H>>, ring: Region, port: Port) -> Result<Self, StoreError> {
        let port = xen.events.adopt(port).map_err(StoreError::Port)?;
        let client = Client {
            xen: xen.clone(),
            port: Cell::new(port),
            owes_event: Cell::new(false),
            attached: Cell::new(false),
            state: State::new(Ring::new(ring)).into(),
            changed: Signal::new(),
            deadline: Cell::new(DEADLINE),
        };
        if client.first_look()? {
            client.kick();
        }
        xen.events.unmask(port);
        Ok(Self::of(Rc::new(client)))
    }

    fn of(client: Rc<Client<H>>) -> Self {
        Self {
            nodes: Nodes {
                client,
                tx: 0,
                epoch: 0,
            },
        }
    }

    fn client(&self) -> &Rc<Client<H>> {
        &self.nodes.client
    }

    /// The event channel; the store has unmasked it.
    #[must_use]
    pub fn port(&self) -> Port {
        self.client().port.get()
    }

    /// Sets how long the server may take to answer a request: 5 seconds unless
    /// told otherwise. Requests that are under way keep their deadline.
    pub fn set_deadline(&self, deadline: Duration) {
        self.client().deadline.set(deadline);
    }

    /// Moves bytes both ways, completes replies, queues watch events and
    /// notifies the server. Bounded, and cheap when there is nothing to do.
    /// Returns whether it stopped at its bound: then call it again before
    /// halting, there may be no further event.
    pub fn poll(&self) -> bool {
        self.client().poll()
    }

    /// Why the store cannot be used (any more).
    #[must_use]
    pub fn is_failed(&self) -> Option<StoreError> {
        match &self.client().state.borrow().phase {
            Phase::Down(error) => Some(error.clone()),
            Phase::Connecting | Phase::Live => None,
        }
    }

    /// The home of a domain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn domain_path(&self, domain: DomId) -> Result<String, StoreError> {
        let id = domain.0.to_string();
        let payload = self.ask(MessageType::GET_DOMAIN_PATH, &id, b"").await?;
        self.client().checked(reply::domain_path(&payload))
    }

    /// Watches a path and everything below it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn watch(&self, path: &str) -> Result<Watch<H>, StoreError> {
        // Dropped on any error, it also takes back a registration whose
        // acknowledgement is late.
        let watch = Watch::new(self.client().clone(), path);
        self.register(path, watch.token()).await?;
        Ok(watch)
    }

    async fn register(&self, path: &str, token: u32) -> Result<(), StoreError> {
        let mut rest = token.to_string();
        rest.push('\0');
        match self.change(MessageType::WATCH, path, rest.as_bytes()).await {
            // The server has it already: registered by a resume meanwhile.
            Err(StoreError::Errno { errno, .. }) if errno == Errno::EEXIST => {}
            result => result?,
        }
        self.client().state.borrow_mut().watches.registered(token);
        Ok(())
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn transaction(&self) -> Result<Transaction<H>, StoreError> {
        let (client, what) = (self.client(), MessageType::TRANSACTION_START);
        let epoch = client.state.borrow().epoch;
        let payload = client.request(what, 0, "(begin)", &[b"\0"]).await?;
        let tx = client.checked(reply::transaction(&payload))?;
        let fresh = {
            let mut state = client.state.borrow_mut();
            if state.epoch != epoch {
                return Err(StoreError::Reset);
            }
            state.transactions.insert(tx, ()).is_none()
        };
        if !fresh {
            return client.checked(Err(StoreOffence::TransactionId));
        }
        let client = client.clone();
        Ok(Transaction::new(Nodes { client, tx, epoch }))
    }

    /// Runs `body` in a transaction until it commits. `body` is run again when
    /// the transaction lost a race, up to 32 times; when it fails, the
    /// transaction is given up.
    ///
    /// # Errors
    /// What `body` returns; [`StoreError::Again`] when every try lost; else as
    /// every request.
    pub async fn transact<T, F>(&self, body: F) -> Result<T, StoreError>
    where
        F: AsyncFn(&Transaction<H>) -> Result<T, StoreError>,
    {
        for _ in 0..TRANSACTION_TRIES {
            let transaction = self.transaction().await?;
            let value = body(&transaction).await?;
            match transaction.commit().await {
                Ok(()) => return Ok(value),
                Err(StoreError::Again) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Again)
    }

    /// Resets the connection and registers every watch again. Requests in
    /// flight and open transactions end with [`StoreError::Reset`].
    ///
    /// # Errors
    /// [`StoreError::NoReconnect`] when the server has no such feature,
    /// [`StoreError::ReconnectTimeout`], the offence that failed the store, or
    /// what kept a watch from being registered.
    pub async fn reconnect(&self) -> Result<(), StoreError> {
        let client = self.client();
        let under_way = Reconnecting::begin(client)?;
        client.look_for_port()?;
        client.begin_reset();
        match timeout(client.xen.clone(), client.deadline.get(), client.settled()).await {
            Ok(settled) => settled?,
            Err(_) => {
                client.fail(&StoreError::ReconnectTimeout);
                return Err(StoreError::ReconnectTimeout);
            }
        }
        let watches = client.state.borrow().watches.to_register();
        for (token, path) in watches {
            self.register(&path, token).await?;
        }
        under_way.done();
        Ok(())
    }
}

impl<H: Hal> Store<H> {
    /// Connects to the store of a new host, after
    /// [`Xen::resume`](crate::Xen::resume), and registers every watch there:
    /// each of them fires. Requests in flight and open transactions end with
    /// [`StoreError::Reset`]; new ones may be made at once.
    ///
    /// # Errors
    /// [`StoreError`] as [`Store::attach`]; the store cannot be used then.
    pub fn resume(&self) -> Result<(), StoreError> {
        let client = self.client();
        let taken_up = client.take_up();
        if let Err(error) = &taken_up {
            client.fail(error);
        }
        taken_up
    }
}

impl<H: Hal> Client<H> {
    /// Takes up the ring page and the port that the toolstack made anew.
    fn take_up(&self) -> Result<(), StoreError> {
        let (ring, port) = PAGE.find(&self.xen.hal)?;
        let port = self.xen.events.adopt(port).map_err(StoreError::Port)?;
        self.port.set(port);
        let wakers = {
            let mut state = self.state.borrow_mut();
            state.phase = Phase::Connecting;
            state.ring = Ring::new(ring);
            state.drop_everything(&StoreError::Reset)
        };
        self.xen.record(Source::Store, "resumed", port.0.into());
        self.first_look()?;
        {
            let state = &mut *self.state.borrow_mut();
            for (token, path) in state.watches.to_register() {
                state.post_watch(&path, token);
            }
        }
        self.xen.events.unmask(port);
        // What was posted goes out with the next look at the ring.
        self.kick();
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify();
        Ok(())
    }

    /// A server that starts anew may listen at another port.
    fn look_for_port(&self) -> Result<(), StoreError> {
        if !self.attached.get() {
            return Ok(());
        }
        let (_, port) = PAGE.find(&self.xen.hal)?;
        let old = self.port.get();
        if port != old {
            let port = self.xen.events.adopt(port).map_err(StoreError::Port)?;
            self.port.set(port);
            self.xen.events.unmask(port);
            // The server has closed its end.
            let _ = self.xen.events.close(&self.xen.hal, old);
        }
        Ok(())
    }

    /// Looks at a ring for the first time; asks for a reset unless it is clean.
    /// Returns whether the server has to be told.
    fn first_look(&self) -> Result<bool, StoreError> {
        let state = &mut *self.state.borrow_mut();
        let connection = state.ring.connection()?;
        match connection {
            Connection::Resetting => return Ok(false),
            Connection::Up if state.ring.adopt() => {
                state.phase = Phase::Live;
                return Ok(false);
            }
            Connection::Up | Connection::Broken(_) => {}
        }
        if !state.ring.can_reconnect() {
            return Err(StoreError::RingInUse);
        }
        state.ring.ask_for_reset();
        Ok(true)
    }

    /// Ends what is in flight and asks the server for a reset.
    fn begin_reset(&self) {
        let wakers = {
            let mut state = self.state.borrow_mut();
            state.phase = Phase::Connecting;
            state.ring.ask_for_reset();
            state.drop_everything(&StoreError::Reset)
        };
        self.xen.record(Source::Store, "reset", 0);
        wakers.into_iter().for_each(Waker::wake);
        self.kick();
    }
}

/// Only one task resets the connection at a time; one that does not finish
/// leaves the connection lost.
struct Reconnecting<'a, H: Hal>(&'a Client<H>);

impl<'a, H: Hal> Reconnecting<'a, H> {
    fn begin(client: &'a Client<H>) -> Result<Self, StoreError> {
        let mut state = client.state.borrow_mut();
        match &state.phase {
            Phase::Down(error @ StoreError::Protocol(_)) => return Err(error.clone()),
            _ if state.reconnecting => return Err(StoreError::Reconnecting),
            _ if !state.ring.can_reconnect() => return Err(StoreError::NoReconnect),
            _ => state.reconnecting = true,
        }
        Ok(Self(client))
    }

    fn done(self) {
        self.0.state.borrow_mut().reconnecting = false;
    }
}

impl<H: Hal> Drop for Reconnecting<'_, H> {
    fn drop(&mut self) {
        let unfinished = {
            let mut state = self.0.state.borrow_mut();
            let down = matches!(state.phase, Phase::Down(_));
            replace(&mut state.reconnecting, false) && !down
        };
        if unfinished {
            self.0.fail(&StoreError::Reset);
        }
    }
}
