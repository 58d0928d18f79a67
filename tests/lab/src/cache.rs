//! Where the lab keeps what it downloaded and built: outside the checkout,
//! shared by all clones of one user, guarded by a lock file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// How long to wait for another process that prepares the same cache.
const LOCK_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens (and makes) the cache folder: `$FIRN_LAB`, else
    /// `$XDG_CACHE_HOME/firn/lab`, else `~/.cache/firn/lab`.
    ///
    /// # Errors
    /// None of the variables is set, or the folder cannot be made.
    pub fn open() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        let folder = if let Some(folder) = set("FIRN_LAB") {
            PathBuf::from(folder)
        } else if let Some(cache) = set("XDG_CACHE_HOME") {
            Path::new(&cache).join("firn/lab")
        } else if let Some(home) = set("HOME") {
            Path::new(&home).join(".cache/firn/lab")
        } else {
            bail!("set FIRN_LAB (or HOME): the lab needs a folder of about 1 GiB for its packages");
        };
        let folder = std::path::absolute(folder)?;
        fs::create_dir_all(folder.join("runs"))
            .with_context(|| format!("making the lab's cache folder {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of `name` in the cache.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Waits for the cache's lock; it is held until the file is dropped.
    ///
    /// # Errors
    /// Another process still holds it after 15 minutes.
    pub fn lock(&self, waiting: &dyn Fn()) -> Result<File> {
        let path = self.path("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let start = Instant::now();
        let mut told = false;
        while file.try_lock().is_err() {
            if !std::mem::replace(&mut told, true) {
                waiting();
            }
            if start.elapsed() > LOCK_DEADLINE {
                bail!(
                    "another process has held {} for 15 minutes; end it and try again",
                    path.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(file)
    }

    /// Makes a folder for one run of a lab. It disappears when the value is
    /// dropped; folders of runs that died are swept here.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn run_folder(&self) -> Result<RunFolder> {
        let runs = self.path("runs");
        sweep(&runs);
        let folder = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&runs)
            .with_context(|| format!("making a folder in {}", runs.display()))?;
        let alive = File::create(folder.path().join("alive"))?;
        alive.lock()?;
        Ok(RunFolder {
            folder,
            _alive: alive,
        })
    }
}

/// The folder of one run: disk files, logs, sockets.
#[derive(Debug)]
pub struct RunFolder {
    folder: tempfile::TempDir,
    /// Locked as long as the run lives.
    _alive: File,
}

impl RunFolder {
    /// Path of `name` in the run's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Removes the folders of runs whose process is gone.
fn sweep(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let dead = File::open(entry.path().join("alive")).is_ok_and(|f| f.try_lock().is_ok());
        if dead {
            // Best effort: another sweeper may be quicker.
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
}

/// SHA-256 of `parts` one after another, in hexadecimal.
#[must_use]
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(sha256([bytes.as_slice()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_matches_the_published_vector() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256([b"a".as_slice(), b"bc"]), abc);
    }

    #[test]
    fn only_folders_of_dead_runs_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache {
            folder: folder.path().into(),
        };
        fs::create_dir(cache.path("runs")).unwrap();
        let living = cache.run_folder().unwrap();
        let dead = cache.path("runs").join("run-dead");
        fs::create_dir(&dead).unwrap();
        File::create(dead.join("alive")).unwrap();
        let second = cache.run_folder().unwrap();
        assert!(!dead.exists());
        assert!(living.path("alive").exists() && second.path("alive").exists());
    }
}
