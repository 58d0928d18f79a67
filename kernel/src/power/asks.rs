//! What jobs ask of the power code, and what they are told.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_image::{Header, Reason, Store, Verdict};
use firn_jobs::{Datum, FreezeAsk, FreezeLevel, FreezeThen, PowerAsk, PowerRefusal, PowerReport};
use firn_power::{Fault, FreezeOptions, Frozen, Host, Level, Limits, Then, Trouble};

use super::audit::{Audit, Owner, audit};
use super::events;
use super::host::KernelHost;
use crate::exec::{AskId, PowerAnswer};
use crate::mm::{self, Memory};
use firn_task::sort_few;

impl KernelHost {
    /// Answers a question of a job. A freeze that ends in a power off answers
    /// it in another boot ([`KernelHost::answer_restored`]).
    pub(crate) async fn answer(self, id: AskId, ask: PowerAsk) {
        let answer = match ask {
            PowerAsk::Freeze(freeze) => {
                self.main_loop.jobs().freezing.set(Some(id));
                let answer = self.freeze(&freeze, "job").await;
                self.main_loop.jobs().freezing.set(None);
                answer
            }
            PowerAsk::Suspend => self.suspend().await,
            PowerAsk::Cold => self.go_cold().await,
            PowerAsk::FormatImage { disk } => self.format_image(disk).await,
            PowerAsk::ShowImage { disk } => self.show_image(disk).await,
            PowerAsk::CycleBus { times } => self.cycle_bus(times).await,
        };
        self.tell(id, answer);
    }

    /// Hands an answer over, as job memory.
    fn tell(self, id: AskId, answer: PowerAnswer) {
        let _job = mm::enter(Memory::Job);
        let copy = match &answer {
            Ok(report) => Ok(copy_report(report)),
            Err(refusal) => Err(PowerRefusal {
                error: refusal.error,
                what: refusal.what.as_str().to_owned(),
                place: refusal.place.as_str().to_owned(),
                hint: refusal.hint.as_str().to_owned(),
            }),
        };
        self.main_loop.jobs().power.answer(id, copy);
    }

    /// Freezes, as `reason` says.
    pub(crate) async fn freeze(self, ask: &FreezeAsk, reason: &str) -> PowerAnswer {
        let state = self.state();
        let _working = self.begin()?;
        let mut limits = state.configured.get();
        if let Some(deadline) = ask.deadline {
            limits.drain = deadline;
        }
        let options = self.options(ask, reason, limits);
        state.disks.limits.set(limits);
        if ask.check {
            let ready = firn_power::check(&self, &options).await;
            let ready = ready.map_err(|trouble| self.refusal(&trouble))?;
            let name = self.job_name(ready.image);
            return Ok(PowerReport {
                summary: format!("it would be image {} on {name}", ready.generation.0),
                fields: Vec::from([
                    ("image", Datum::Text(name)),
                    ("generation", Datum::Number(ready.generation.0)),
                ]),
                ..PowerReport::default()
            });
        }
        let jobs = self.main_loop.jobs();
        jobs.audit_wanted.set(ask.audit);
        state.audit.take();
        let mut report = PowerReport::default();
        let outcome = firn_power::freeze(&self, &options).await;
        state.disks.limits.set(state.configured.get());
        match outcome {
            Ok(Frozen::Thawed(written)) => {
                report.summary = "everything was undone, and goes on".into();
                report.fields.push(("thawed", Datum::Flag(true)));
                if let Some(audit) = &*state.audit.borrow() {
                    report
                        .fields
                        .push(("audited_words", Datum::Number(audit.words)));
                    report
                        .fields
                        .push(("stale_words", Datum::Number(audit.count)));
                }
                if let Some(written) = written {
                    let name = self.job_name(written.image);
                    report.fields.push(("image", Datum::Text(name)));
                    let bytes = Datum::Number(written.written.bytes);
                    report.fields.push(("image_bytes", bytes));
                    let saved = written.written.pages * firn_block::PAGE as u64;
                    report.fields.push(("saved_bytes", Datum::Number(saved)));
                    let (ram, _, part) = events::part_of_ram(saved);
                    report.fields.push(("ram_bytes", Datum::Number(ram)));
                    report.summary = format!(
                        "everything was undone, and goes on; saved {saved} bytes, {part} % of RAM"
                    );
                }
                Ok(report)
            }
            Ok(Frozen::Off(_)) => Ok(report), // only a simulator comes here
            Err(failure) => {
                let mut refusal = self.refusal(&failure.trouble);
                refusal.what = format!("{failure}");
                Err(refusal)
            }
        }
    }

    fn options(self, ask: &FreezeAsk, reason: &str, limits: Limits) -> FreezeOptions {
        FreezeOptions {
            image: ask
                .image
                .map(|name| self.main_loop.names.borrow().to_boot(name)),
            level: match ask.level {
                FreezeLevel::Gate => Level::Gate,
                FreezeLevel::Drain => Level::Drain,
                FreezeLevel::Disconnect => Level::Disconnect,
                FreezeLevel::Write => Level::Write,
                FreezeLevel::Verify => Level::Verify,
                FreezeLevel::Full => Level::Full,
            },
            then: match ask.then {
                FreezeThen::PowerOff => Then::PowerOff,
                FreezeThen::Reboot => Then::Reboot,
                FreezeThen::Thaw => Then::Thaw,
            },
            compress: ask.compress,
            key: self.state().key.borrow().clone(),
            reason: Reason::new(reason),
            limits,
        }
    }

    /// Audits job memory; nobody runs in it.
    pub(super) fn audit(self) -> Audit {
        let (memory, free) = self.saved_memory();
        let audit = audit(&memory, &free, &mm::boot_memory(), &self.owners());
        for finding in &audit.findings {
            log::debug!("audit: {finding}");
        }
        audit
    }

    /// What in job memory has a name.
    fn owners(self) -> Vec<Owner> {
        let jobs = self.main_loop.jobs();
        let at = core::ptr::from_ref(jobs).addr();
        let head = mm::job_memory().addr();
        let mut owners = Vec::from([
            Owner {
                range: head..head + mm::PAGE as usize,
                name: "the head page".into(),
                data: false,
            },
            Owner {
                range: at..at + size_of_val(jobs),
                name: "the root".into(),
                data: false,
            },
        ]);
        jobs.executor.for_each_task(|id, at, bytes| {
            let name = format!("the state of {id}, {bytes} bytes at {at:#x}");
            owners.push(Owner {
                range: at..at + bytes,
                name,
                data: false,
            });
        });
        jobs.buffers.for_each(|buffer| {
            let (at, bytes) = (buffer.memory.addr(), buffer.memory.len());
            owners.push(Owner {
                range: at..at + bytes,
                name: format!("buffer {} of {}", buffer.index, buffer.disk),
                data: true,
            });
        });
        sort_few(&mut owners, |owner| owner.range.start);
        owners
    }

    /// Gives up every image, and lets jobs write.
    pub(crate) async fn go_cold(self) -> PowerAnswer {
        let _working = self.begin()?;
        let state = self.state();
        let undecided = state.undecided.borrow().clone();
        let gone = firn_power::cold(&self, state.disks.limits.get(), &undecided).await;
        let gone = gone.map_err(|trouble| self.refusal(&trouble))?;
        state.undecided.borrow_mut().clear();
        state.guarded.set(false);
        self.main_loop.platform.keep_shut(false);
        events::abandoned(&self, &gone);
        let summary = format!("{} images given up, all disks are open", gone.len());
        let count = Datum::Number(gone.len() as u64);
        Ok(PowerReport {
            summary,
            fields: Vec::from([("abandoned", count)]),
            ..PowerReport::default()
        })
    }

    async fn format_image(self, name: DiskId) -> PowerAnswer {
        let _working = self.begin()?;
        let disk = self.main_loop.names.borrow().to_boot(name);
        let present = self.disks().into_iter().find(|d| d.id == disk);
        if let Some(present) = present {
            if present.state != Lifecycle::Live {
                return Err(self.image_refusal(name, &Fault::Cannot("the disk is shut, or gone")));
            }
            if present.in_use {
                return Err(self.image_refusal(name, &Fault::InUse));
            }
        }
        let mut store = self
            .open_store(disk)
            .map_err(|f| self.image_refusal(name, &f))?;
        let formatted = async {
            let area = store.area().await?.ok_or(firn_image::Error::Gone)?;
            store.format(area).await
        };
        let formatted = formatted.await;
        self.close_store(disk, store);
        formatted.map_err(|error| self.image_refusal(name, &error.into()))?;
        self.has_image_disk();
        Ok(PowerReport {
            summary: format!("{name} is an image disk"),
            ..PowerReport::default()
        })
    }

    async fn show_image(self, name: DiskId) -> PowerAnswer {
        let _working = self.begin()?;
        let disk = self.main_loop.names.borrow().to_boot(name);
        let mut store = self
            .open_store(disk)
            .map_err(|f| self.image_refusal(name, &f))?;
        let looked = async {
            let area = store.area().await?.ok_or(firn_image::Error::Gone)?;
            store.look(area).await
        };
        let looked = looked.await;
        self.close_store(disk, store);
        let slots = looked.map_err(|error| self.image_refusal(name, &error.into()))?;
        Ok(describe(&slots.verdict()))
    }

    async fn cycle_bus(self, times: u64) -> PowerAnswer {
        let _working = self.begin()?;
        let refused = |what: String| PowerRefusal {
            error: "bus",
            what,
            place: "vmbus".into(),
            hint: "it takes a guest of Hyper-V without disks".into(),
        };
        let Some(hyperv) = self.main_loop.platform.hyperv() else {
            return Err(refused("there is a VMBus on Hyper-V only".into()));
        };
        let cycles = hyperv.cycle(times).await.map_err(refused)?;
        let leaks = cycles.leaks.list();
        let lost = leaks.iter().any(|(_, count)| *count > 0);
        let version = cycles.version.unwrap_or_default();
        let mut fields = Vec::from([
            ("version", Datum::Text(version.clone())),
            ("rounds", Datum::Number(times)),
            ("opened", Datum::Number(cycles.opened)),
            ("leak", Datum::Flag(lost)),
        ]);
        fields.extend(leaks.into_iter().map(|(name, n)| (name, Datum::Number(n))));
        Ok(PowerReport {
            summary: format!(
                "{times} times from contact to unload at {version}, {} channels opened and \
                 closed, {}",
                cycles.opened,
                if lost {
                    "something was lost"
                } else {
                    "nothing lost"
                }
            ),
            fields,
            ..PowerReport::default()
        })
    }

    fn open_store(self, disk: DiskId) -> Result<Store<<Self as firn_power::Host>::Device>, Fault> {
        let device = self.device(disk)?;
        let scratch = self.scratch(disk)?;
        let limits = firn_image::Limits {
            stall: self.state().disks.limits.get().step,
        };
        Store::open(device, scratch, limits).map_err(|error| {
            self.scratch_back(disk, false);
            error.into()
        })
    }

    fn close_store(self, disk: DiskId, store: Store<<Self as firn_power::Host>::Device>) {
        let free = store.close().is_some();
        self.scratch_back(disk, free);
    }

    fn image_refusal(self, name: DiskId, fault: &Fault) -> PowerRefusal {
        PowerRefusal {
            error: fault.word(),
            what: format!("{fault}"),
            place: name.to_string(),
            hint: fault.hint().into(),
        }
    }

    fn refusal(self, trouble: &Trouble) -> PowerRefusal {
        let disk = trouble.disk.map(|disk| self.job_name(disk));
        PowerRefusal {
            error: trouble.fault.word(),
            what: format!("{}", trouble.fault),
            place: match disk {
                Some(disk) => format!("{} {disk}", trouble.step),
                None => format!("{}", trouble.step),
            },
            hint: trouble.fault.hint().into(),
        }
    }

    /// Answers what the boot that froze was asked: the freeze itself, and what
    /// it had no time for.
    pub(super) fn answer_restored(self, restored: &firn_power::Restored) {
        let jobs = self.main_loop.jobs();
        let frozen = jobs.freezing.take();
        let interrupted = PowerRefusal {
            error: "interrupted",
            what: "the machine was frozen meanwhile".into(),
            place: "kernel".into(),
            hint: "ask again".into(),
        };
        for id in jobs.power.unanswered() {
            let answer = match frozen == Some(id) {
                true => Ok(self.came_back(restored)),
                false => Err(interrupted.clone()),
            };
            self.tell(id, answer);
        }
        let _job = mm::enter(Memory::Job);
        for id in jobs.store.unanswered() {
            let answer = Err(String::from("the machine was frozen meanwhile: ask again"));
            jobs.store.answer(id, answer);
        }
    }

    fn came_back(self, restored: &firn_power::Restored) -> PowerReport {
        let name = self.job_name(restored.image);
        let mut fields = Vec::from([
            ("restored", Datum::Flag(true)),
            ("generation", Datum::Number(restored.generation.0)),
            ("image", Datum::Text(name.clone())),
            ("image_bytes", Datum::Number(restored.loaded.bytes)),
        ]);
        let state = self.state();
        if let Some(time) = state.marks.load() {
            fields.push(("load_seconds", Datum::Time(time)));
        }
        if let Some(hash) = state.adopted_hash.get() {
            fields.push(("memory_hash", Datum::Text(events::digits(hash))));
        }
        PowerReport {
            summary: format!(
                "frozen, and restored from image {} on {name}",
                restored.generation.0
            ),
            fields,
            ..PowerReport::default()
        }
    }

    /// What jobs call a disk of this boot.
    pub(super) fn job_name(self, disk: DiskId) -> String {
        self.main_loop.names.borrow().to_job(disk).to_string()
    }
}

fn copy_report(report: &PowerReport) -> PowerReport {
    let datum = |datum: &Datum| match datum {
        Datum::Text(text) => Datum::Text(text.as_str().to_owned()),
        other => other.clone(),
    };
    PowerReport {
        summary: report.summary.as_str().to_owned(),
        lines: report.lines.iter().map(|l| l.as_str().to_owned()).collect(),
        fields: report.fields.iter().map(|(k, d)| (*k, datum(d))).collect(),
    }
}

/// What `image show` says.
fn describe(verdict: &Verdict) -> PowerReport {
    let (word, header): (&str, Option<&Header>) = match verdict {
        Verdict::Blank => ("blank", None),
        Verdict::Foreign => ("foreign", None),
        Verdict::Version(_) => ("another-version", None),
        Verdict::Damaged(_) => ("damaged", None),
        Verdict::Ended(header, _) => ("ended", Some(header)),
        Verdict::Valid(header, _) => ("valid", Some(header)),
    };
    let mut report = PowerReport {
        summary: format!("the disk is {word}"),
        fields: Vec::from([("verdict", Datum::Text(word.into()))]),
        ..PowerReport::default()
    };
    if let Verdict::Damaged(damage) = verdict {
        report.lines.push(format!("{damage}"));
    }
    if let Some(header) = header {
        report.lines.push(format!(
            "image {} of build {}: {}, frozen by {:?}",
            header.generation.0, header.build, header.state, header.reason
        ));
        report.lines.push(format!(
            "{} KiB of memory at {:#x}, {} KiB stored in {} chunks, {} disks",
            header.heap.bytes >> 10,
            header.heap.address,
            header.stored >> 10,
            header.chunks,
            header.disks
        ));
        let fields = [
            ("generation", header.generation.0),
            ("heap_bytes", header.heap.bytes),
            ("stored_bytes", header.stored),
        ];
        let numbers = fields.map(|(key, value)| (key, Datum::Number(value)));
        report.fields.extend(numbers);
        let state = Datum::Text(format!("{}", header.state));
        report.fields.push(("state", state));
    }
    report
}
