//! Transactions: changes that happen together or not at all.

use super::client::Fate;
use super::error::StoreError;
use super::nodes::Nodes;
use super::reply;
use crate::hal::Hal;
use crate::trace::Source;
use crate::wire::errno::Errno;
use crate::wire::xs::MessageType;
use core::ops::Deref;

/// An open transaction: what it reads is one state of the store, and what it
/// writes is seen by others when it commits. Dropping it gives it up.
pub struct Transaction<H: Hal> {
    nodes: Nodes<H>,
    ended: bool,
}

impl<H: Hal> Transaction<H> {
    /// `nodes` belong to the transaction, which the server just opened.
    pub(super) const fn new(nodes: Nodes<H>) -> Self {
        let ended = false;
        Self { nodes, ended }
    }

    /// Makes the changes visible.
    ///
    /// # Errors
    /// [`StoreError::Again`] when somebody else changed what this transaction
    /// used: nothing has happened, run it again. Else as every request.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        if !self.is_open() {
            return Err(StoreError::Reset);
        }
        self.close();
        let (client, what) = (&self.nodes.client, MessageType::TRANSACTION_END);
        match client
            .request(what, self.nodes.tx, "(commit)", &[b"T\0"])
            .await
        {
            Ok(payload) => client.checked(reply::acknowledged(what, &payload)),
            Err(StoreError::Errno { errno, .. }) if errno == Errno::EAGAIN => {
                let tx = u64::from(self.nodes.tx);
                client.xen.record(Source::Store, "transaction again", tx);
                Err(StoreError::Again)
            }
            Err(error) => Err(error),
        }
    }

    fn is_open(&self) -> bool {
        let epoch = self.nodes.client.state.borrow().epoch;
        !self.ended && epoch == self.nodes.epoch
    }

    fn close(&mut self) {
        self.ended = true;
        let mut state = self.nodes.client.state.borrow_mut();
        state.transactions.remove(&self.nodes.tx);
    }
}

impl<H: Hal> Deref for Transaction<H> {
    type Target = Nodes<H>;

    fn deref(&self) -> &Nodes<H> {
        &self.nodes
    }
}

impl<H: Hal> Drop for Transaction<H> {
    /// Gives the transaction up; nobody waits for the reply.
    fn drop(&mut self) {
        if self.is_open() {
            self.close();
            let (client, what) = (&self.nodes.client, MessageType::TRANSACTION_END);
            // A lost connection has ended the transaction already.
            let _ = client.submit(what, self.nodes.tx, &[b"F\0"], Fate::Forgotten);
        }
    }
}
