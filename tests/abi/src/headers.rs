//! Where the public headers are.

use anyhow::{Result, bail};
use firn_lab::{Cache, Packages};
use std::path::{Path, PathBuf};

/// What tells where the headers are: a folder with `xen/xen.h` in it.
const VARIABLE: &str = "FIRN_XEN_HEADERS";

/// Xen's public headers.
#[derive(Clone, Debug)]
pub struct Headers {
    include: PathBuf,
}

impl Headers {
    /// Finds them: in `$FIRN_XEN_HEADERS` if that is set, else among the lab's
    /// packages (they are of the Xen that is booted), else in `/usr/include`.
    ///
    /// # Errors
    /// They are in none of these places. That is an error and no reason to skip
    /// a test: the error says how to get them.
    pub fn find() -> Result<Self> {
        if let Some(folder) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            return match Self::at(Path::new(&folder)) {
                Some(headers) => Ok(headers),
                None => bail!("{VARIABLE} is {folder:?}, but there is no xen/xen.h in it"),
            };
        }
        let lab = Cache::open()
            .ok()
            .and_then(|cache| Packages::unpacked(&cache));
        let lab = lab.map(|packages| packages.path("usr/include"));
        let places = [lab, Some(PathBuf::from("/usr/include"))];
        match places.iter().flatten().find_map(|place| Self::at(place)) {
            Some(headers) => Ok(headers),
            None => bail!(
                "Xen's public headers are missing: run `cargo xtask lab prepare`, or \
                 `apt-get install libxen-dev`, or set {VARIABLE} to a folder with xen/xen.h in it"
            ),
        }
    }

    fn at(include: &Path) -> Option<Self> {
        let include = include.to_owned();
        include
            .join("xen/xen.h")
            .exists()
            .then_some(Self { include })
    }

    /// The folder that C programs include `<xen/...>` from.
    #[must_use]
    pub fn include_folder(&self) -> &Path {
        &self.include
    }

    /// The text of a header below `xen/`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self, header: &str) -> Result<String> {
        Ok(std::fs::read_to_string(
            self.include.join("xen").join(header),
        )?)
    }
}
