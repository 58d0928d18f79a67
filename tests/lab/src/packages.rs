//! The Debian packages that the lab and boot media are made of: downloaded with
//! the machine's own apt (which checks the archive's signature) into a folder of
//! their own, and unpacked there. Nothing is installed and no root is needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::cache::{Cache, sha256, sha256_file};

/// The suite; the lab's image recipe knows its file names.
pub const SUITE: &str = "trixie";

/// Packages that are fetched together and unpacked into a folder of their own.
struct Set {
    /// Its folder begins with this.
    name: &'static str,
    /// What they are for.
    of: &'static str,
    /// What is asked of apt; dependencies come along.
    packages: &'static [&'static str],
}

/// What the lab is made of.
const LAB: Set = Set {
    name: "packages",
    of: "the lab's",
    packages: LAB_PACKAGES,
};

/// What boot media are made of and tried with. Apart from the lab's, so that
/// nobody who wants only the one has to fetch the other.
const MEDIA: Set = Set {
    name: "media",
    of: "the boot media's",
    packages: &[
        "grub-common",
        "grub-efi-amd64-bin",
        "grub-pc-bin",
        "ovmf",
        "qemu-utils",
    ],
};

const LAB_PACKAGES: &[&str] = &[
    "xen-hypervisor-4.20-amd64",
    "xen-utils-4.20",
    "linux-image-amd64",
    "busybox-static",
    "bash-static",
    "kmod",
    "libgcc-s1",
    "qemu-system-x86",
    "seabios",
    "fio",
    // Headers for the ABI check.
    "libxen-dev",
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LIBS: &str = "usr/lib/x86_64-linux-gnu";

/// The unpacked packages.
#[derive(Debug, Clone)]
pub struct Packages {
    /// The folder that they are unpacked in, laid out like a root folder.
    pub root: PathBuf,
}

impl Set {
    fn prepare(&self, cache: &Cache, report: &dyn Fn(&str)) -> Result<Packages> {
        if let Some(packages) = self.unpacked(cache) {
            return Ok(packages);
        }
        let folder = self.folder(cache);
        let partial = cache.path(&format!("{}.partial", self.name));
        let _none = fs::remove_dir_all(&partial);
        report(&format!(
            "downloading {} Debian packages ({SUITE})",
            self.of
        ));
        download(&partial, self.packages)?;
        report("unpacking the packages");
        let list = unpack(&partial)?;
        let at = Packages {
            root: partial.join("root"),
        };
        at.complete()?;
        fs::remove_dir_all(partial.join("debs"))?;
        fs::remove_dir_all(partial.join("apt"))?;
        fs::write(partial.join("packages.txt"), list)?;
        let _older = fs::remove_dir_all(&folder);
        fs::rename(&partial, &folder)?;
        let root = folder.join("root");
        Ok(Packages { root })
    }

    fn unpacked(&self, cache: &Cache) -> Option<Packages> {
        let folder = self.folder(cache);
        let root = folder.join("root");
        folder
            .join("packages.txt")
            .exists()
            .then_some(Packages { root })
    }

    /// Where the packages of today's list go.
    fn folder(&self, cache: &Cache) -> PathBuf {
        let recipe = sha256(self.packages.iter().flat_map(|p| [p.as_bytes(), b" "]));
        cache.path(&format!("{}-{}", self.name, &recipe[..12]))
    }
}

impl Packages {
    /// The lab's packages; downloads and unpacks them unless that is done already.
    ///
    /// # Errors
    /// apt is missing or has no Debian mirror, a download fails, the disk is full.
    pub(crate) fn prepare(cache: &Cache, report: &dyn Fn(&str)) -> Result<Self> {
        LAB.prepare(cache, report)
    }

    /// The packages of boot media: GRUB, OVMF and `qemu-img`; downloads and
    /// unpacks them unless that is done already.
    ///
    /// # Errors
    /// apt is missing or has no Debian mirror, a download fails, the disk is full.
    pub fn of_media(cache: &Cache, report: &dyn Fn(&str)) -> Result<Self> {
        let _lock = cache.lock(&|| report("waiting for another process that prepares the lab"))?;
        MEDIA.prepare(cache, report)
    }

    /// The lab's packages, if they are there already: downloads nothing.
    #[must_use]
    pub fn unpacked(cache: &Cache) -> Option<Self> {
        LAB.unpacked(cache)
    }

    /// Path of a file in the unpacked root.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The version of the unpacked Linux, as its modules folder is called.
    ///
    /// # Errors
    /// There is not exactly one.
    pub fn linux_version(&self) -> Result<String> {
        let folder = self.path("usr/lib/modules");
        let mut names = fs::read_dir(&folder)
            .with_context(|| folder.display().to_string())?
            .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        match (names.pop(), names.pop()) {
            (Some(name), None) => Ok(name),
            _ => bail!("{}: expected one Linux version", folder.display()),
        }
    }

    /// A command that runs the unpacked `program` with the unpacked libraries:
    /// the machine's own may be older.
    #[must_use]
    pub fn command(&self, program: &str, as_name: &str) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        vec![
            text(self.path(format!("{LIBS}/ld-linux-x86-64.so.2"))),
            "--library-path".into(),
            text(self.path(LIBS)),
            "--argv0".into(),
            as_name.into(),
            text(self.path(program)),
        ]
    }

    /// Runs the unpacked `program` to its end; gives what it said.
    ///
    /// # Errors
    /// It cannot be started or fails; the error shows the end of what it said.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let mut argv = self.command(program, name);
        argv.extend(args.iter().map(|a| (*a).to_owned()));
        run(&argv)
    }

    /// What the packages' own installation scripts would do, as far as needed.
    fn complete(&self) -> Result<()> {
        let lib = self.path("lib");
        if !lib.exists() {
            std::os::unix::fs::symlink("usr/lib", &lib)?;
        }
        if !self.path("usr/lib/modules").exists() {
            return Ok(());
        }
        let mut depmod = self.command("usr/bin/kmod", "depmod");
        depmod.extend(["-b".into(), self.root.to_string_lossy().into_owned()]);
        depmod.push(self.linux_version()?);
        run(&depmod).context("listing the kernel's modules")?;
        Ok(())
    }
}

/// Runs a command; an error shows the end of what it said.
fn run(argv: &[String]) -> Result<String> {
    let output = cmd(&argv[0], &argv[1..])
        .stderr_to_stdout()
        .stdin_null()
        .stdout_capture()
        .unchecked()
        .run()
        .with_context(|| format!("cannot start {}", argv[0]))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let lines: Vec<_> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        bail!("{} ended with {}:\n{tail}", argv.join(" "), output.status);
    }
    Ok(said)
}

/// The Debian mirror that the machine's own apt uses.
fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    for entry in fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
    {
        files.push(entry?.path());
    }
    files.sort();
    let texts: Vec<_> = files
        .iter()
        .filter_map(|f| fs::read_to_string(f).ok())
        .collect();
    texts.iter().find_map(|t| mirror_in(t)).context(
        "no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d: \
         the lab is made of Debian packages, so it needs a machine whose apt knows a Debian archive",
    )
}

/// The first archive in the text of a sources file: a URL whose path ends in
/// `/debian` (both formats of apt spell it so).
fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.starts_with("http") && word.ends_with("/debian"))
        .map(str::to_owned)
}

fn apt(folder: &Path, args: &[&str]) -> Result<String> {
    let apt = folder.join("apt");
    let mut argv = vec!["apt-get".to_owned()];
    for option in [
        format!("Dir={}", apt.display()),
        format!("Dir::State::status={}/status", apt.display()),
        format!("Dir::Cache::archives={}", folder.join("debs").display()),
        "Debug::NoLocking=1".into(),
        "APT::Sandbox::User=".into(),
        "Acquire::Retries=3".into(),
    ] {
        argv.extend(["-o".into(), option]);
    }
    argv.extend(args.iter().map(|a| (*a).to_owned()));
    run(&argv)
}

fn download(folder: &Path, packages: &[&str]) -> Result<()> {
    let mirror = mirror()?;
    for part in [
        "apt/etc/apt/preferences.d",
        "apt/var/lib/apt/lists/partial",
        "apt/var/cache/apt/archives/partial",
        "debs/partial",
        "root",
    ] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("apt/status"), "")?;
    fs::write(
        folder.join("apt/etc/apt/sources.list"),
        format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n"),
    )?;
    apt(folder, &["-qq", "update"]).context("reading the package lists")?;
    let mut install = vec!["-qq", "install", "-y", "--no-install-recommends"];
    install.push("--download-only");
    install.extend(packages);
    apt(folder, &install).context("downloading the packages")?;
    Ok(())
}

/// Unpacks every package; gives the list of them with their checksums.
fn unpack(folder: &Path) -> Result<String> {
    let mut debs: Vec<_> = fs::read_dir(folder.join("debs"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    debs.sort();
    let root = folder.join("root").to_string_lossy().into_owned();
    let mut list = String::new();
    for deb in &debs {
        let path = deb.to_string_lossy().into_owned();
        run(&["dpkg-deb".into(), "-x".into(), path, root.clone()])?;
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        list += &format!("{}  {name}\n", sha256_file(deb)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn both_formats_of_apt_sources_are_read() {
        let old =
            "# deb http://no.example/debian x main\ndeb http://a.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).unwrap(), "http://a.example/debian");
        let new = "Types: deb\n# http://s.example/archive/debian/2025\nURIs: https://b.example/debian\nSuites: x\n";
        assert_eq!(mirror_in(new).unwrap(), "https://b.example/debian");
        assert!(mirror_in("deb http://c.example/debian-security x main").is_none());
        assert!(mirror_in("deb http://c.example/ubuntu x main").is_none());
    }
}
