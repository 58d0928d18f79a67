//! Guests that leave and come back: saved, restored, moved to another host
//! (which is the same one here), and asked by their toolstack to end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use firn_lab_agent::Request;

use crate::guest::{Guest, Kind};
use crate::transcript::Transcript;

/// To write or read a guest's memory in software emulation, on a busy machine.
const MOVE: Duration = Duration::from_secs(180);
/// For the toolstack's small commands.
const XL: Duration = Duration::from_secs(60);

impl Guest {
    /// Saves it to a file of the lab; it is gone then.
    ///
    /// # Errors
    /// What `xl` says; the guest may be gone or not. Or it is not on Xen.
    pub fn save(&mut self) -> Result<()> {
        let id = self.id()?;
        self.command(&["xl", "save", &id, &self.saved()], MOVE)
            .map(|_| ())
    }

    /// Brings a saved guest back, under a new domain id.
    ///
    /// # Errors
    /// What `xl` says.
    pub fn restore(&mut self) -> Result<()> {
        let file = self.saved();
        self.command(&["xl", "restore", &file], MOVE)?;
        self.command(&["rm", &file], XL)?;
        self.follow(self.name().to_owned())
    }

    /// Saves it and lets it go on where it is: its suspend is cancelled.
    ///
    /// # Errors
    /// As [`Guest::save`].
    pub fn checkpoint(&self) -> Result<()> {
        let (id, file) = (self.id()?, self.saved());
        self.command(&["xl", "save", "-c", &id, &file], MOVE)?;
        self.command(&["rm", &file], XL).map(|_| ())
    }

    /// Migrates it, live, to this same host.
    ///
    /// # Errors
    /// What `xl` says.
    pub fn migrate(&mut self) -> Result<()> {
        let id = self.id()?;
        let migrate = ["xl", "migrate", "-s", "", &id, "xl migrate-receive"];
        self.command(&migrate, MOVE)?;
        self.follow(incoming(self.name()))
    }

    /// Asks it to end: `poweroff`, `reboot`, `halt`, `suspend`, `hibernate`, by
    /// the word in `control/shutdown` that a toolstack would write.
    ///
    /// # Errors
    /// xenstore refuses, or the guest is not on Xen.
    pub fn ask(&self, word: &str) -> Result<()> {
        let key = self.control()?;
        self.command(&["xenstore-write", &key, word], XL)
            .map(|_| ())
    }

    /// What stands in `control/shutdown`: empty once the guest has taken note.
    ///
    /// # Errors
    /// As [`Guest::ask`].
    pub fn asked(&self) -> Result<String> {
        let key = self.control()?;
        let said = self.command(&["xenstore-read", &key], XL)?;
        Ok(said.trim().to_owned())
    }

    /// Runs `xl shutdown`, `xl reboot` or another command that takes nothing
    /// but the guest.
    ///
    /// # Errors
    /// What `xl` says.
    pub fn xl_command(&self, command: &str) -> Result<String> {
        let id = self.id()?;
        self.command(&["xl", command, &id], XL)
    }

    fn control(&self) -> Result<String> {
        Ok(format!("/local/domain/{}/control/shutdown", self.id()?))
    }

    fn id(&self) -> Result<String> {
        let domain = self.domain().context("only guests on Xen have an id")?;
        Ok(domain.to_string())
    }

    fn saved(&self) -> String {
        format!("/tmp/{}.save", self.name())
    }

    fn command(&self, argv: &[&str], deadline: Duration) -> Result<String> {
        let output = self.client.exec(argv, deadline)?;
        if output.code != Some(0) {
            bail!(
                "{}: {}{}{}",
                argv.join(" "),
                output.stdout,
                output.stderr,
                self.hosts_view()
            );
        }
        Ok(output.stdout)
    }

    /// From now on it is the domain that `xl` called `alias` while it came up.
    fn follow(&mut self, alias: String) -> Result<()> {
        let said = self.command(&["xl", "domid", self.name()], XL)?;
        let domain = said.trim().parse();
        let domain = domain.with_context(|| format!("no domain id in {said:?}"))?;
        let path = format!("/var/log/xen/xl-{alias}.log");
        let log = Arc::<Transcript>::default();
        let tail = self
            .client
            .stream(&Request::Tail { path }, Arc::clone(&log))?;
        let Kind::Xen(there) = &mut self.kind else {
            bail!("only guests on Xen move");
        };
        there.domain = domain;
        let old = std::mem::replace(&mut there.log_tail, tail);
        self.log = log;
        self.client.kill(old)
    }
}

/// The name of a guest that is on its way here.
pub(crate) fn incoming(name: &str) -> String {
    format!("{name}--incoming")
}
