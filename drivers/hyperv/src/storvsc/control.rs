//! Packets of the controller's own, and waiting for their answers.

use super::controller::Controller;
use super::error::ConnectError;
use super::link::{Command, Link, Own, Waiter};
use super::packet::{self, Answer, Direction, Ended};
use crate::hal::Hal;
use crate::wire::vstor::{Operation, PACKET, Status};
use alloc::vec::Vec;
use core::time::Duration;
use firn_scsi::{Cdb, Condition};
use firn_task::{Instant, race, sleep_until, timeout_at, yield_now};

/// How often a channel without interrupts is looked at.
const POLL: Duration = Duration::from_millis(1);
/// How long to wait for a disk that becomes ready.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a command is sent that a disk did not carry out for a reason that
/// passes.
const TRIES: u32 = 8;

impl<H: Hal> Controller<H> {
    /// Sends a packet of the handshake that has to succeed.
    pub(super) async fn ask_plain(
        &self,
        operation: Operation,
        packet: &[u8; PACKET],
    ) -> Result<Answer, ConnectError> {
        let until = self.now() + self.config.deadline;
        let answer = self.ask(packet, until).await?;
        match answer.status {
            Status::SUCCESS => Ok(answer),
            status => Err(ConnectError::Refused(operation, status)),
        }
    }

    /// Sends a packet of the handshake and waits for the answer.
    pub(super) async fn ask(
        &self,
        packet: &[u8; PACKET],
        until: Instant,
    ) -> Result<Answer, ConnectError> {
        let step = "a packet of the handshake";
        let ticket = self.wire.with(|link| {
            let (ticket, scsi) = (link.new_ticket(), false);
            let sent = link.send_plain(packet, Waiter::Own { ticket, scsi })?;
            Ok(sent.then_some(ticket))
        });
        match self.answer(ticket.flatten(), step, until).await? {
            Own::Answer(answer) => Ok(answer),
            Own::Ended(_) => Err(ConnectError::Failed("the handshake")),
        }
    }

    /// Has a unit carry out a command that moves up to a page of data; those that
    /// came back.
    ///
    /// # Errors
    /// [`ConnectError::Scsi`] with what the unit says, and those of the link.
    pub(super) async fn command(
        &self,
        unit: u8,
        name: &'static str,
        cdb: Cdb,
        bytes: u32,
    ) -> Result<Vec<u8>, ConnectError> {
        let mut last = Condition::NotReady;
        for _ in 0..TRIES {
            match self.try_command(unit, name, cdb, bytes).await? {
                Ended::Good(moved) => return Ok(self.data(moved)),
                Ended::Bad(condition) if condition.is_passing() => last = condition,
                Ended::Bad(condition) => return Err(ConnectError::Scsi(name, condition)),
                Ended::NoUnit => return Err(ConnectError::Scsi(name, Condition::NoUnit)),
                Ended::Failed(..) | Ended::Unexplained(_) => {
                    return Err(ConnectError::Failed(name));
                }
            }
            if last == Condition::BecomingReady {
                let at = self.now() + PAUSE;
                sleep_until(&*self.wire.hv, at).await;
            }
        }
        Err(ConnectError::Scsi(name, last))
    }

    async fn try_command(
        &self,
        unit: u8,
        name: &'static str,
        cdb: Cdb,
        bytes: u32,
    ) -> Result<Ended, ConnectError> {
        let ticket = {
            let page = self.page.borrow();
            let page = page.as_ref().ok_or(ConnectError::NoMemory)?;
            let data = (bytes > 0).then_some((page, 0, bytes));
            let command = Command {
                unit,
                cdb,
                way: Direction::In,
                data,
            };
            self.wire.with(|link| {
                let ticket = link.new_ticket();
                let waiter = Waiter::Own { ticket, scsi: true };
                Ok(link.send(&command, waiter)?.then_some(ticket))
            })
        };
        let until = self.now() + self.config.deadline;
        match self.answer(ticket.flatten(), name, until).await? {
            Own::Ended(ended) => Ok(ended),
            Own::Answer(_) => Err(ConnectError::Failed(name)),
        }
    }

    /// What a command brought.
    fn data(&self, moved: u32) -> Vec<u8> {
        let page = self.page.borrow();
        let Some(page) = page.as_ref() else {
            return Vec::new();
        };
        let mut data = alloc::vec![0; (moved as usize).min(page.len())];
        page.copy_out(0, &mut data);
        data
    }

    /// Shows the host what was sent, and waits for the answer to it.
    async fn answer(
        &self,
        ticket: Option<u64>,
        step: &'static str,
        until: Instant,
    ) -> Result<Own, ConnectError> {
        let Some(ticket) = ticket else {
            self.check()?;
            return Err(ConnectError::Deadline(step));
        };
        self.wire.with(|link| link.kick());
        loop {
            let events = {
                let link = self.wire.link.borrow();
                link.as_ref().map(Link::events)
            };
            let Some(events) = events else {
                return Err(ConnectError::Busy);
            };
            let (fired, changed) = (events.seen(), self.bus.changed().seen());
            let seen = self.wire.attention.seen();
            let own = self.wire.with(|link| {
                link.reap(usize::MAX)?;
                Ok(link.take_own(ticket))
            });
            if let Some(Some(own)) = own {
                return Ok(own);
            }
            self.check()?;
            if self.now() >= until {
                self.wire.with(|link| {
                    link.forget(ticket);
                    Ok(())
                });
                return Err(ConnectError::Deadline(step));
            }
            if self.wire.with(|link| link.arm()) == Some(true) {
                self.look_later(until).await;
                continue;
            }
            // The disks' polls may take the answer off the ring.
            let taken = self.wire.attention.changed(seen);
            let news = race(events.changed(fired), taken);
            let news = race(news, self.bus.changed().changed(changed));
            // At the deadline, one more look.
            let _ = timeout_at(&*self.wire.hv, until, news).await;
        }
    }

    async fn look_later(&self, until: Instant) {
        if self.config.interrupts {
            yield_now().await;
        } else {
            let at = (self.now() + POLL).min(until);
            sleep_until(&*self.wire.hv, at).await;
        }
    }

    /// Whether the link can still be used.
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        if let Some(offence) = self.wire.offence.get() {
            return Err(ConnectError::Offence(offence));
        }
        if self.is_rescinded() {
            return Err(ConnectError::Bus(crate::vmbus::BusError::Rescinded));
        }
        Ok(())
    }

    /// Whether the host has taken the channel back, or forgot the bus.
    pub(super) fn is_rescinded(&self) -> bool {
        let link = self.wire.link.borrow();
        link.as_ref().is_some_and(Link::is_rescinded)
    }

    /// Has the host end everything that is in flight.
    pub(super) fn send_reset(&self) {
        self.wire.with(|link| {
            link.send_plain(&packet::plain(Operation::RESET_BUS), Waiter::Nobody)?;
            link.kick()
        });
    }
}
