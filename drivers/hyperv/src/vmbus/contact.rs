//! The beginning and the end of a connection to the host.

use super::message::VersionReply;
use super::wait::{Key, Reply};
use super::{BusError, BusState, Offence, Vmbus, succeeded};
use crate::hal::Hal;
use crate::post::PostError;
use crate::wire::hypercall::Status;
use crate::wire::synic::VMBUS_SINT;
use crate::wire::vmbus::{
    Header, InitiateContact, Kind, MESSAGE_CONNECTION, OLD_MESSAGE_CONNECTION, TRIGGER_GROUPS,
    Version,
};
use core::sync::atomic::Ordering::AcqRel;
use firn_block::PAGE;
use firn_block::shm::Region;
use zerocopy::IntoBytes;

impl<H: Hal> Vmbus<H> {
    /// Connects at the newest version that both ends speak, and waits until the
    /// host has offered all it has. It has deadlines of its own, and is to be run
    /// to its end.
    ///
    /// # Errors
    /// [`BusError`]: the bus is disconnected again, or failed.
    pub async fn connect(&self) -> Result<Version, BusError> {
        if let Some(version) = self.spent.get() {
            return Err(BusError::OnlyOnce(version));
        }
        if self.state() != BusState::Disconnected {
            return Err(self.check().err().unwrap_or(BusError::NotConnected));
        }
        self.state.set(BusState::Changing);
        self.waiting.clear();
        self.offers.borrow_mut().clear();
        self.complete.set(false);
        self.pages.zero(0, self.pages.len());
        let connected = self.shake_hands().await;
        if connected.is_err() && self.state() != BusState::Failed {
            self.state.set(BusState::Disconnected);
        }
        connected
    }

    async fn shake_hands(&self) -> Result<Version, BusError> {
        let version = self.agree().await?;
        self.state.set(BusState::Connected(version));
        log::info!("VMBus {version}");
        let until = self.hv.hal.now() + self.config.offers;
        let request = Header::new(Kind::REQUEST_OFFERS);
        let (kind, key) = (Kind::REQUEST_OFFERS, Key::AllOffers);
        let offered = self.ask(kind, request.as_bytes(), key, None, until).await;
        if let Err(error) = offered {
            // The host counts us as connected.
            let _ = self.unload().await;
            return Err(error);
        }
        self.complete.set(true);
        self.changed.notify();
        Ok(version)
    }

    /// Tries the versions, the newest first.
    async fn agree(&self) -> Result<Version, BusError> {
        let mut oldest = self.config.max_version;
        for version in Version::ALL {
            if version > self.config.max_version {
                continue;
            }
            oldest = version;
            match self.propose(version).await {
                Ok(reply) if reply.supported => return self.accept(version, reply),
                Ok(_) => {}
                // A host that has no such connection is too old for it.
                Err(BusError::Post(_, PostError::Refused(Status::INVALID_CONNECTION_ID)))
                    if version >= Version::V5_0 => {}
                Err(error) => return Err(error),
            }
        }
        Err(BusError::NoVersion { oldest })
    }

    async fn propose(&self, version: Version) -> Result<VersionReply, BusError> {
        let address = |page| self.hv.hal.gfn(&self.pages, page).0 << 12;
        let (connection, target) = if version >= Version::V5_0 {
            (MESSAGE_CONNECTION, u64::from(VMBUS_SINT))
        } else {
            (OLD_MESSAGE_CONNECTION, address(0))
        };
        self.connection.set(connection);
        let message = InitiateContact {
            header: Header::new(Kind::INITIATE_CONTACT),
            version: version.0,
            target_vp: self.hv.vp_index(),
            target,
            monitor_in: address(1),
            monitor_out: address(2),
        };
        let (kind, until) = (Kind::INITIATE_CONTACT, self.reply_deadline());
        let reply = self.ask(kind, message.as_bytes(), Key::Version, None, until);
        match reply.await? {
            Reply::Version(reply) => Ok(reply),
            Reply::Status(_) => Err(Offence::Foreign(Kind::VERSION_RESPONSE).into()),
        }
    }

    /// The host speaks a version: where messages go from now on.
    fn accept(&self, version: Version, reply: VersionReply) -> Result<Version, BusError> {
        if reply.state != 0 {
            let state = reply.state;
            return Err(BusError::NotConnectable { version, state });
        }
        if version >= Version::V5_0 {
            match reply.connection {
                Some(connection) if connection != 0 => self.connection.set(connection),
                _ => {
                    self.fail(Offence::NoConnectionId);
                    return Err(Offence::NoConnectionId.into());
                }
            }
        }
        Ok(version)
    }

    /// Ends the connection: the host forgets every offer and lets go of all
    /// memory. Channels must have been closed before. It may take very long, as
    /// hosts write their caches back first. A host before 3.0 has no such
    /// message, and is not to be contacted again. It is to be run to its end.
    ///
    /// # Errors
    /// [`BusError::Post`]: the bus is connected as before. Other [`BusError`]s: the
    /// host may still use our memory.
    pub async fn unload(&self) -> Result<(), BusError> {
        let version = self.version().ok_or(BusError::NotConnected)?;
        self.state.set(BusState::Changing);
        if version < Version::V3_0 {
            self.spent.set(Some(version));
        } else {
            let until = self.hv.hal.now() + self.config.unload;
            let message = Header::new(Kind::UNLOAD);
            let (kind, key) = (Kind::UNLOAD, Key::Unloaded);
            let reply = self.ask(kind, message.as_bytes(), key, None, until).await;
            if let Err(error) = reply.and_then(|reply| succeeded(key, reply)) {
                match error {
                    _ if self.state() == BusState::Failed => {}
                    // It was not told: nothing has changed.
                    BusError::Post(..) => self.state.set(BusState::Connected(version)),
                    // Whatever comes now is of a connection that nobody uses.
                    _ => self.state.set(BusState::Disconnected),
                }
                return Err(error);
            }
        }
        self.waiting.clear();
        self.offers.borrow_mut().clear();
        self.complete.set(false);
        // It has let go of all memory.
        self.gpadls.set(0);
        self.state.set(BusState::Disconnected);
        self.changed.notify();
        Ok(())
    }

    /// The page by which events of channels that are not dedicated are noted:
    /// its second half is ours to write.
    pub(super) const fn interrupt_page(&self) -> &Region {
        &self.pages
    }

    /// Sets a channel's bit in the page that the hypervisor looks at now and then.
    pub(super) fn set_monitor(&self, bit: u8) {
        let group = 2 * PAGE + TRIGGER_GROUPS + usize::from(bit) / 32 * 8;
        let pending = self.pages.atomic_u32(group);
        pending.fetch_or(1 << (bit % 32), AcqRel);
    }
}
