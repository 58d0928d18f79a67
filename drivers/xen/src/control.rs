//! What the toolstack asks of the whole domain: `control/shutdown`
//! (`docs/misc/xenstore-paths.pandoc`).
//!
//! The toolstack writes a command; the domain acknowledges it by emptying the
//! node, in a transaction, before it acts. What the domain understands it says
//! in `control/feature-*`.

use crate::Xen;
use crate::hal::Hal;
use crate::store::{Store, StoreError, Transaction, Watch};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;
use core::time::Duration;
use firn_task::{Time, sleep_until};

const SHUTDOWN: &str = "control/shutdown";
/// How long to wait before asking a lost xenstore connection again.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the toolstack wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Power off.
    PowerOff,
    /// Stop, without a wish for what comes after: as power off.
    Halt,
    /// Start again.
    Reboot,
    /// Let the host take the memory (save, migrate).
    Suspend,
    /// Save the memory to a disk, and power off (`hibernate`, `s4`).
    Hibernate,
}

impl Command {
    /// Every command, for tests and tables.
    pub const ALL: [Self; 5] = [
        Self::PowerOff,
        Self::Halt,
        Self::Reboot,
        Self::Suspend,
        Self::Hibernate,
    ];

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "poweroff" => Self::PowerOff,
            "halt" => Self::Halt,
            "reboot" => Self::Reboot,
            "suspend" => Self::Suspend,
            "hibernate" | "s4" => Self::Hibernate,
            _ => return None,
        })
    }

    /// The node that says that it is understood; a halt has none.
    const fn feature(self) -> Option<&'static str> {
        match self {
            Self::PowerOff => Some("feature-poweroff"),
            Self::Halt => None,
            Self::Reboot => Some("feature-reboot"),
            Self::Suspend => Some("feature-suspend"),
            Self::Hibernate => Some("feature-s4"),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "poweroff",
            Self::Halt => "halt",
            Self::Reboot => "reboot",
            Self::Suspend => "suspend",
            Self::Hibernate => "hibernate",
        })
    }
}

/// The toolstack's commands, one after the other.
pub struct Control<H: Hal> {
    xen: Rc<Xen<H>>,
    store: Store<H>,
    watch: Option<Watch<H>>,
    /// On which host the features were announced.
    announced: Option<u32>,
}

impl<H: Hal> Control<H> {
    /// Nothing is asked of the store yet.
    #[must_use]
    pub fn new(xen: &Rc<Xen<H>>, store: &Store<H>) -> Self {
        Self {
            xen: xen.clone(),
            store: store.clone(),
            watch: None,
            announced: None,
        }
    }

    /// The next command. It is acknowledged: whoever gets it acts on it. Goes on
    /// through resets of the connection and changes of the host.
    ///
    /// # Errors
    /// What makes the store unusable.
    pub async fn next(&mut self) -> Result<Command, StoreError> {
        loop {
            match self.look().await {
                Ok(Some(command)) => return Ok(command),
                Ok(None) => {
                    if let Some(watch) = &mut self.watch {
                        watch.changed().await;
                    }
                }
                Err(error) if error.is_lost_connection() || error.is_late() => {
                    // The bus mends it, or a resume has; or there is more
                    // patience than a single answer gets.
                    let again = self.xen.now() + PATIENCE;
                    sleep_until(self.xen.clone(), again).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks once; what there is, is acknowledged.
    async fn look(&mut self) -> Result<Option<Command>, StoreError> {
        if self.watch.is_none() {
            self.watch = Some(self.store.watch(SHUTDOWN).await?);
        }
        let generation = self.xen.generation();
        if self.announced != Some(generation) {
            self.announce().await?;
            self.announced = Some(generation);
        }
        let take = async |transaction: &Transaction<H>| take(transaction).await;
        self.store.transact(take).await
    }

    /// Says what is understood. A toolstack that does not let us has other ways
    /// to know.
    async fn announce(&self) -> Result<(), StoreError> {
        for feature in Command::ALL.into_iter().filter_map(Command::feature) {
            match self.store.write(&format!("control/{feature}"), "1").await {
                Err(error) if error.is_lost_connection() => return Err(error),
                Err(error) => log::debug!("{error}"),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// The command in the node, which is emptied. A command that is not understood
/// is not acknowledged either, so that the toolstack learns of it.
async fn take<H: Hal>(transaction: &Transaction<H>) -> Result<Option<Command>, StoreError> {
    let text: String = match transaction.read(SHUTDOWN).await {
        Ok(text) => text,
        Err(error) if error.is_hidden() => return Ok(None),
        Err(error) => return Err(error),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let Some(command) = Command::parse(text.trim()) else {
        log::warn!("{SHUTDOWN} asks for {text:?}: not understood");
        return Ok(None);
    };
    transaction.write(SHUTDOWN, "").await?;
    Ok(Some(command))
}
