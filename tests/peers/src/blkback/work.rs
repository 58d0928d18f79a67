//! One step of a backend: take requests, answer requests, as well or as badly
//! as it was told to.

use super::config::Order;
use super::offence::BlkOffence;
use super::ring::Raw;
use super::serve::{Context, Job};
use super::{Back, Connection};
use firn_xen::wire::blkif::{Operation, Response, Status};

impl Back {
    pub(super) fn is(&self, offence: BlkOffence) -> bool {
        self.config.offences.contains(&offence)
    }

    /// Uses up an offence that happens once.
    fn take_offence(&mut self, offence: BlkOffence) -> bool {
        debug_assert!(offence.is_single());
        let at = self.config.offences.iter().position(|o| *o == offence);
        at.map(|at| self.config.offences.remove(at)).is_some()
    }

    /// xorshift64: any seed but zero.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    pub(super) fn step(&mut self) -> bool {
        self.clock += 1;
        let changed = !self.front_watch.take().is_empty();
        if changed && !self.gone {
            self.follow();
        }
        self.flip();
        self.haunt();
        let Some(mut connection) = self.connection.take() else {
            return changed;
        };
        let served = self.serve(&mut connection);
        self.connection = Some(connection);
        changed | served
    }

    fn serve(&mut self, connection: &mut Connection) -> bool {
        let storm = self.is(BlkOffence::EventStorm);
        let ring = &mut connection.ring;
        if self.take_offence(BlkOffence::ResponseIndexRunsAway) {
            ring.run_away();
            ring.channel().notify();
            return true;
        }
        if self.take_offence(BlkOffence::ResponseIndexGoesBack) {
            ring.go_back();
            ring.channel().notify();
            return true;
        }
        if storm {
            ring.channel().notify();
        }
        let took = self.take_requests(connection);
        if connection.ring.outstanding() > 0
            && self.take_offence(BlkOffence::OverwritesRequestIndex)
        {
            connection.ring.overwrite_request_index();
        }
        let answered = self.answer(connection);
        let waiting = self.is_waiting(connection);
        took | answered | waiting
    }

    /// Whether time alone will let it answer something.
    fn is_waiting(&self, connection: &Connection) -> bool {
        let never = self.is(BlkOffence::NeverAnswers) || self.allowance == Some(0);
        !never && !connection.jobs.is_empty()
    }

    fn take_requests(&mut self, connection: &mut Connection) -> bool {
        let polls = self.is(BlkOffence::NeverWantsEvents);
        let event = connection.ring.channel().take_pending();
        self.counters.events_received += u64::from(event);
        if !(event || polls) || self.is(BlkOffence::NeverTakes) {
            return false;
        }
        let mut taken = 0;
        loop {
            match connection.ring.take() {
                Ok(Some(raw)) => {
                    taken += 1;
                    self.accept(&raw, connection);
                    continue;
                }
                Ok(None) => {}
                Err(index) => {
                    let size = connection.ring.size();
                    let what = format!("request index {index} runs away from a ring of {size}");
                    self.complaints.push(what);
                    return false;
                }
            }
            if polls {
                connection.ring.never_wake();
                break;
            }
            if !connection.ring.final_check() {
                break;
            }
        }
        self.counters.requests += taken;
        self.counters.empty_events += u64::from(taken == 0);
        taken > 0
    }

    fn accept(&mut self, raw: &Raw, connection: &mut Connection) {
        let mut context = Context {
            machine: &self.machine,
            config: &self.config,
            disk: &self.disk,
            persistent: connection.persistent.as_mut(),
        };
        let job = Job::parse(raw, self.clock + self.config.delay, &mut context);
        if connection.jobs.iter().any(|other| other.id == job.id) {
            self.complaints.push(format!("id {} is used twice", job.id));
        }
        if let Some(why) = job.refusal() {
            self.complaints.push(format!("{}: {why}", job.operation));
        }
        connection.jobs.push(job);
    }

    /// Takes the next job to answer, by the configured order.
    fn pick(&mut self, jobs: &mut Vec<Job>) -> Option<Job> {
        if self.allowance == Some(0) || self.is(BlkOffence::NeverAnswers) {
            return None;
        }
        let due: Vec<usize> = (0..jobs.len())
            .filter(|at| jobs[*at].due <= self.clock)
            .collect();
        let at = match self.config.order {
            Order::Fifo => *due.first()?,
            Order::Reversed => *due.last()?,
            Order::Random => {
                let random = self.random() as usize;
                // Sometimes the rest has to wait for the next step.
                if random.is_multiple_of(5) {
                    return None;
                }
                *due.get(random / 5 % due.len().max(1))?
            }
        };
        Some(jobs.remove(at))
    }

    fn answer(&mut self, connection: &mut Connection) -> bool {
        let mut any = false;
        while let Some(job) = self.pick(&mut connection.jobs) {
            any = true;
            if let Some(allowance) = &mut self.allowance {
                *allowance -= 1;
            }
            if self.take_offence(BlkOffence::ScribblesOverRequests) {
                connection.ring.scribble();
            }
            let status = job.run(&self.disk);
            // Unmap before the answer, or the guest finds its page in use.
            let response = self.response(&job, status);
            if self.take_offence(BlkOffence::KeepsRequestPages) {
                self.kept_jobs.push(job);
            } else {
                drop(job);
            }
            let twice = connection.ring.outstanding() > 1
                && self.take_offence(BlkOffence::DoubledCompletion);
            connection.ring.answer(&response);
            if twice {
                // In place of another answer, so that the count is right.
                connection.ring.answer(&response);
                connection.jobs.pop();
            }
            self.counters.responses += 1;
            self.last_id = Some(response.id);
        }
        if connection.ring.publish() && !self.is(BlkOffence::NeverNotifies) {
            connection.ring.channel().notify();
            self.counters.events_sent += 1;
        }
        any
    }

    /// The answer to a job, spoiled by at most one offence.
    fn response(&mut self, job: &Job, status: Status) -> Response {
        let mut response = Response {
            id: job.id,
            operation: job.operation.0,
            pad: 0,
            status: status.0,
            pad2: 0,
        };
        let offences = self.config.offences.clone();
        for offence in offences.into_iter().filter(|offence| offence.is_single()) {
            if self.spoil(&mut response, offence, job.operation) {
                self.take_offence(offence);
                break;
            }
        }
        response
    }

    fn spoil(&self, response: &mut Response, offence: BlkOffence, operation: Operation) -> bool {
        let unsupported = Status::EOPNOTSUPP.0;
        match offence {
            BlkOffence::UnknownId => response.id = u64::MAX - 1,
            BlkOffence::IdleId => match self.last_id.filter(|id| *id != response.id) {
                Some(idle) => response.id = idle,
                None => return false,
            },
            BlkOffence::WrongOperation => response.operation ^= 1,
            BlkOffence::UnknownOperation => response.operation = 0x7f,
            BlkOffence::UnknownStatus => response.status = 77,
            BlkOffence::FlushUnsupported
                if matches!(
                    operation,
                    Operation::FLUSH_DISKCACHE | Operation::WRITE_BARRIER
                ) =>
            {
                response.status = unsupported;
            }
            BlkOffence::DiscardUnsupported if operation == Operation::DISCARD => {
                response.status = unsupported;
            }
            BlkOffence::Unsupported => response.status = unsupported,
            BlkOffence::Fails => response.status = Status::ERROR.0,
            _ => return false,
        }
        true
    }

    /// Answers on rings that are no more.
    fn haunt(&mut self) {
        if !self.is(BlkOffence::AnswersAfterClosed) {
            return;
        }
        let apart = |connection: &&mut Connection| !connection.ring.channel().is_bound();
        for connection in self.kept.iter_mut().filter(apart) {
            let id = self.last_id.unwrap_or(0);
            connection.ring.answer(&Response {
                id,
                operation: Operation::READ.0,
                pad: 0,
                status: Status::OKAY.0,
                pad2: 0,
            });
            connection.ring.publish();
            connection.ring.channel().notify();
        }
    }
}
