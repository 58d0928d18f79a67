//! What every demonstration needs: two disks, a lab of the right kind, boots.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use firn_boot_tests::campaign::image_state;
use firn_boot_tests::disks::vdev;
use firn_boot_tests::{Event, JobResult, PATIENT};
use firn_image::State;
use firn_lab::{
    BrokenGuest, Cache, DiskSpec, Exit, Guest, GuestDisk, GuestSpec, Host, Images, Lab, LabConfig,
    RunFolder, by_line,
};

use super::Options;
use crate::progress::Progress;
use crate::{cmd, elf};

/// Beside what is filled: the kernel, and what jobs and drivers need.
const OWN_MIB: u32 = 112;
/// Beside what is filled, on the image disk.
const SPARE: u64 = 64 << 20;
const DATA: u64 = 64 << 20;
/// How often to look whether a guest that goes on was refused its image.
const LOOK: Duration = Duration::from_secs(10);

/// What a guest calls its disks there: for data, for the image.
pub(super) fn disks(host: Host) -> [String; 2] {
    [vdev(host, 0), vdev(host, 1)]
}

/// The ledger that lives through it, on the first disk of such a host.
pub(super) fn ledger_line(host: Host) -> String {
    format!(
        "ledger disk={} size=8M rate=500 qd=8 reads=20",
        vdev(host, 0)
    )
}

/// Everything that a guest printed until it was off.
pub(super) struct Life {
    pub(super) console: String,
    pub(super) results: Vec<JobResult>,
}

/// Where demonstrations take place.
pub(super) struct Stage {
    elf: PathBuf,
    images: Images,
    progress: Progress,
    lab: Option<Lab>,
    /// Whether there is another kind of host as well.
    crosses: bool,
    /// How much memory is filled, in MiB.
    fill: u32,
    deadline: Duration,
    /// The disks' files: for data, for the image.
    pub(super) data: PathBuf,
    image: PathBuf,
    pub(super) show: Show,
    _folder: RunFolder,
}

impl Stage {
    /// Prepares everything but the lab.
    pub(super) fn set(options: &Options) -> Result<Self> {
        let elf = cmd::build::build()?;
        elf::check(&elf.stripped, &elf.debug)?;
        let progress = Progress::new();
        let images = cmd::lab::prepare(&progress)?;
        let folder = Cache::open()?.run_folder()?;
        let fill = u64::from(options.fill) << 20;
        let (data, image) = (folder.path("data.img"), folder.path("image.img"));
        for (file, bytes) in [(&data, DATA), (&image, fill + SPARE)] {
            std::fs::File::create(file)?.set_len(bytes)?;
        }
        Ok(Self {
            elf: elf.stripped,
            images,
            progress,
            lab: None,
            crosses: options.hosts.len() > 1,
            fill: options.fill,
            deadline: options.deadline,
            data,
            image,
            show: Show { json: options.json },
            _folder: folder,
        })
    }

    /// A lab of this kind with both disks; the last one, if it is of this kind.
    pub(super) fn lab(&mut self, host: Host) -> Result<&Lab> {
        if self.lab.as_ref().is_none_or(|lab| lab.host() != host) {
            // One lab at a time: the disks are the other one's until it is off.
            drop(self.lab.take());
            let config = LabConfig::new(host)
                .with_disk(DiskSpec::new("data", &self.data))
                .with_disk(DiskSpec::new("image", &self.image));
            self.lab = Some(cmd::run::boot(&self.images, &config, &self.progress)?);
            self.progress.done();
        }
        self.lab.as_ref().context("no lab")
    }

    /// One boot, from its creation until it is off.
    pub(super) fn live(&mut self, host: Host, jobs: &str) -> Result<Life> {
        let spec = self.spec(host, jobs);
        let (show, deadline) = (self.show, self.deadline);
        let guest = self.lab(host)?.guest(&spec)?;
        guest.stream_to(by_line(move |line| show.line(line)));
        let exit = wait(&guest, deadline)?;
        let console = guest.console().text();
        let broke = |lab: &Lab| lab.broke(&guest, &self.elf);
        if exit != Exit::PowerOff && self.lab.as_ref().is_some_and(broke) {
            return Err(BrokenGuest.into());
        }
        ensure!(exit == Exit::PowerOff, "the guest ended with {exit:?}");
        let results = console.lines().filter_map(JobResult::parse);
        Ok(Life {
            results: results.collect::<Result<_>>()?,
            console,
        })
    }

    fn spec(&self, host: Host, jobs: &str) -> GuestSpec {
        let [data, image] = disks(host);
        let mut spec = GuestSpec::new("firn", self.elf.clone())
            .with_memory(self.fill + OWN_MIB)
            .with_cmdline(&format!("log=info {PATIENT} -- {jobs}"))
            .with_disk(GuestDisk::new("data", &data))
            .with_disk(GuestDisk::new("image", &image));
        if host == Host::HyperV {
            // Before we give up, so that the host says where its guest stands.
            let seconds = self.deadline.as_secs() * 9 / 10;
            spec.extra = Vec::from(["--deadline".into(), seconds.to_string()]);
        }
        if self.crosses && host == Host::HyperV {
            // An image goes where there are the instructions that its guest had.
            spec.extra.push("--compatible".into());
        }
        spec
    }

    /// Looks at the image disk's file.
    pub(super) fn expect_image(&self, wanted: State) -> Result<()> {
        let (_, state) = image_state(&self.image)?.context("there is no image on its disk")?;
        ensure!(state == wanted, "the image is {state}, not {wanted}");
        Ok(())
    }
}

/// Waits for the end; a refusal is one soon, not after the deadline.
fn wait(guest: &Guest, deadline: Duration) -> Result<Exit> {
    let begun = Instant::now();
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let error = match guest.wait_exit(left.min(LOOK)) {
            Ok(exit) => return Ok(exit),
            Err(error) => error,
        };
        if let Some(event) = Event::last(&guest.console().text(), "refused") {
            bail!(
                "the image was refused: {}; {}",
                event.text("what").unwrap_or_default(),
                event.text("hint").unwrap_or_default()
            );
        }
        if left <= LOOK {
            return Err(error);
        }
    }
}

/// What a person sees on the way.
#[derive(Clone, Copy)]
pub(super) struct Show {
    pub(super) json: bool,
}

impl Show {
    /// The host speaks.
    pub(super) fn say(self, text: &str) {
        match self.json {
            true => eprintln!("host: {text}"),
            false => println!("host: {text}"),
        }
    }

    /// The guest's console, without what it says to programs.
    pub(super) fn line(self, line: &str) {
        let to_programs = ["firn-ack ", "firn-result ", "firn-event "];
        if !self.json && !to_programs.iter().any(|mark| line.contains(mark)) {
            println!("{line}");
        }
    }
}
