//! The host's own look at the disk files after `verify` jobs. It believes no
//! report of the guest: what must be on the disk follows from the job line.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use firn_jobs::lang::{self, Extent, Job, Verify};
use firn_jobs::verify_format::Pattern;

/// Bytes read at a time; a multiple of every block size is not needed, whole
/// blocks are.
const CHUNK: u64 = 1 << 20;

/// Reads a job line; a mistake in it is told before anything is booted.
///
/// # Errors
/// The line has a mistake; the message is the guest's own.
pub fn parse(line: &str) -> Result<Vec<Job>> {
    lang::parse(line)
        .into_iter()
        .map(|job| job.map_err(|error| anyhow!("in the job line: {error}")))
        .collect()
}

/// The jobs whose blocks must still be on their disks after the whole line:
/// nothing that comes later writes to the same disk.
#[must_use]
pub fn lasting(jobs: &[Job]) -> Vec<&Verify> {
    let after = (1..).map(|next| jobs.get(next..).unwrap_or_default());
    let lasts = |(job, later): (&'_ Job, &[Job])| {
        let Job::Verify(verify) = job else {
            return false;
        };
        !later.iter().any(|job| may_write(job, verify))
    };
    let kept = jobs
        .iter()
        .zip(after)
        .filter(|(job, later)| lasts((job, later)));
    kept.filter_map(|(job, _)| match job {
        Job::Verify(verify) => Some(verify),
        _ => None,
    })
    .collect()
}

/// Whether `job` may write to where `verify` wrote.
fn may_write(job: &Job, verify: &Verify) -> bool {
    match job {
        Job::Verify(other) => other.disk == verify.disk && other.write && overlap(other, verify),
        Job::Bench(job) => job.disk == verify.disk,
        Job::Load(job) => job.disk == verify.disk,
        Job::Write(job) => job.disk == verify.disk,
        Job::Discard(job) => job.disk == verify.disk,
        Job::Ledger(job) => job.disk == verify.disk,
        Job::Image(job) => job.disk == verify.disk,
        Job::Freeze(job) => job.image.is_none_or(|disk| disk == verify.disk),
        _ => false,
    }
}

fn overlap(a: &Verify, b: &Verify) -> bool {
    let end = |v: &Verify| match v.size {
        Extent::Bytes(bytes) => v.at.0.saturating_add(bytes),
        Extent::All => u64::MAX,
    };
    a.at.0 < end(b) && b.at.0 < end(a)
}

/// Checks that `file` holds what the job must have written, and says so.
///
/// # Errors
/// The first wrong sector and how it is wrong; or the file is too short.
pub fn check_disk_file(file: &Path, job: &Verify) -> Result<String> {
    let shown = file.display();
    let disk = File::open(file).with_context(|| shown.to_string())?;
    let length = disk.metadata()?.len();
    let at = job.at.0;
    let size = match job.size {
        Extent::Bytes(bytes) => bytes,
        Extent::All => length.saturating_sub(at),
    };
    let block = u32::try_from(job.bs.0).context("the block size")?;
    if size == 0 || block == 0 || at.checked_add(size).is_none_or(|end| end > length) {
        bail!("{shown} has {length} bytes; the job claims {size} from {at} on");
    }
    let pattern = Pattern {
        seed: job.seed,
        generation: job.generation,
        block,
    };
    let step = CHUNK.next_multiple_of(u64::from(block));
    let mut buffer = vec![0; usize::try_from(step)?];
    for from in (0..size).step_by(usize::try_from(step)?) {
        let count = usize::try_from(step.min(size - from))?;
        disk.read_exact_at(&mut buffer[..count], at + from)?;
        pattern
            .check((at + from) / 512, &buffer[..count])
            .map_err(|wrong| anyhow!("{shown}: {wrong}"))?;
    }
    Ok(format!(
        "{} on {shown}: all {size} bytes from {at} on are what seed {} generation {} must have left",
        job.disk, job.seed, job.generation
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(line: &str) -> Verify {
        match parse(line).unwrap().pop() {
            Some(Job::Verify(verify)) => verify,
            other => panic!("{other:?}"),
        }
    }

    fn disk_with(job: &Verify) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pattern = Pattern {
            seed: job.seed,
            generation: job.generation,
            block: u32::try_from(job.bs.0).unwrap(),
        };
        let mut bytes = vec![0; 3 << 20];
        pattern.fill(
            job.at.0 / 512,
            &mut bytes[usize::try_from(job.at.0).unwrap()..],
        );
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn good_bytes_pass_and_a_flipped_one_is_named_by_sector() {
        let job = verify("verify xvda at=64k size=2M bs=24k seed=7 generation=3");
        let file = disk_with(&job);
        assert!(
            check_disk_file(file.path(), &job)
                .unwrap()
                .contains("2097152 bytes")
        );
        crate::disks::flip_byte(file.path(), 1_500_000).unwrap();
        let error = check_disk_file(file.path(), &job).unwrap_err().to_string();
        assert!(error.contains("sector 2929 is damaged"), "{error}");
    }

    #[test]
    fn another_seed_or_a_short_file_is_found() {
        let file = disk_with(&verify("verify xvda seed=7"));
        let check = |line| {
            check_disk_file(file.path(), &verify(line))
                .unwrap_err()
                .to_string()
        };
        assert!(check("verify xvda seed=8 size=1M").contains("from another run"));
        assert!(check("verify xvda seed=7 size=4M").contains("has 3145728 bytes"));
    }

    #[test]
    fn only_what_nothing_overwrites_must_last() {
        let count = |line| lasting(&parse(line).unwrap()).len();
        assert_eq!(count("verify xvda; poweroff"), 1);
        assert_eq!(count("verify xvda seed=1; verify xvda seed=2"), 1);
        assert_eq!(
            count("verify xvda size=1M; verify xvda at=1M size=1M; verify xvdb"),
            3
        );
        assert_eq!(count("verify xvda; discard xvda at=0 size=4k"), 0);
        assert_eq!(count("verify xvda; verify xvda write=no"), 2);
        assert_eq!(count("disks; poweroff"), 0);
    }

    #[test]
    fn a_mistake_in_the_line_is_told() {
        let error = parse("verfy xvda").unwrap_err().to_string();
        assert!(
            error.contains("in the job line") && error.contains("verfy"),
            "{error}"
        );
    }
}
