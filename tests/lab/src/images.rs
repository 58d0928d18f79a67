//! What the lab's machines start from: Xen, Linux, and the first file systems
//! of dom0, of the KVM host and of a small Linux guest.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, sha256, sha256_file};
use crate::libs::{self, Libraries};
use crate::packages::Packages;
use crate::{modules, tree::Tree};

/// Changes whenever the recipe does: its own text and all it includes.
const RECIPE: [&[u8]; 9] = [
    include_bytes!("images.rs"),
    include_bytes!("modules.rs"),
    include_bytes!("libs.rs"),
    include_bytes!("tree.rs"),
    include_bytes!("init/dom0.sh"),
    include_bytes!("init/kvm.sh"),
    include_bytes!("init/common.sh"),
    include_bytes!("init/guest.sh"),
    include_bytes!("init/block-lab.sh"),
];

const XEN_BIN: &str = "usr/lib/xen-4.20/bin";
const XEN_TOOLS: &[&str] = &[
    "xl",
    "xenstored",
    "xenconsoled",
    "xen-init-dom0",
    "xenconsole",
    "libxl-save-helper",
    "xenctx",
];

/// The built images, ready to boot.
#[derive(Debug, Clone)]
pub struct Images {
    /// The packages that they are made of; QEMU runs from there.
    pub packages: Packages,
    folder: PathBuf,
}

/// One file that the lab uses, with its checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    path: PathBuf,
    sha256: String,
}

impl Images {
    /// Gets everything ready: downloads, unpacks and builds what is missing,
    /// and checks what is there against its recorded checksums.
    ///
    /// # Errors
    /// The network or the disk fails, or the machine has no apt.
    pub fn prepare(cache: &Cache, report: &dyn Fn(&str)) -> Result<Self> {
        let _lock = cache.lock(&|| report("waiting for another process that prepares the lab"))?;
        let packages = Packages::prepare(cache, report)?;
        let name = packages.root.to_string_lossy().into_owned();
        let recipe = sha256(RECIPE.into_iter().chain([name.as_bytes()]));
        let folder = cache.path(&format!("images-{}", &recipe[..12]));
        let images = Self { packages, folder };
        if images.folder.exists() {
            match images.verify() {
                Ok(()) => return Ok(images),
                Err(error) => report(&format!("building the lab's images again: {error:#}")),
            }
        } else {
            report("building the lab's images");
        }
        let partial = cache.path("images.partial");
        let _none = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        images.build(&partial)?;
        let _older = fs::remove_dir_all(&images.folder);
        fs::rename(&partial, &images.folder)?;
        images.write_manifest()?;
        Ok(images)
    }

    /// Xen itself, as an ELF file.
    #[must_use]
    pub fn xen(&self) -> PathBuf {
        self.folder.join("xen")
    }

    /// Linux, for dom0, the KVM host and guests.
    #[must_use]
    pub fn linux(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// dom0's first file system.
    #[must_use]
    pub fn dom0(&self) -> PathBuf {
        self.folder.join("dom0.cpio")
    }

    /// The KVM host's first file system.
    #[must_use]
    pub fn kvm(&self) -> PathBuf {
        self.folder.join("kvm.cpio")
    }

    /// The first file system of a small Linux PVH guest.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.folder.join("guest.cpio")
    }

    /// The same with fio, which is large: such a guest starts much slower.
    #[must_use]
    pub fn guest_with_fio(&self) -> PathBuf {
        self.folder.join("guest-fio.cpio")
    }

    fn build(&self, to: &Path) -> Result<()> {
        let version = self.packages.linux_version()?;
        let mut xen = Vec::new();
        GzDecoder::new(File::open(self.packages.path("boot/xen-4.20-amd64.gz"))?)
            .read_to_end(&mut xen)
            .context("unpacking Xen")?;
        fs::write(to.join("xen"), xen)?;
        let linux = self.packages.path(format!("boot/vmlinuz-{version}"));
        fs::copy(&linux, to.join("vmlinuz")).with_context(|| linux.display().to_string())?;
        let libs = Libraries::find(&self.packages.root)?;
        let builder = Builder {
            packages: &self.packages,
            libs: &libs,
            version: &version,
        };
        for (name, tree) in [
            ("dom0.cpio", builder.dom0()?),
            ("kvm.cpio", builder.kvm()?),
            ("guest.cpio", builder.guest()?),
            ("guest-fio.cpio", builder.guest_with_fio()?),
        ] {
            fs::write(to.join(name), tree.archive()?)?;
        }
        Ok(())
    }

    /// Every file that a lab's start depends on.
    fn used(&self) -> Vec<PathBuf> {
        vec![
            self.xen(),
            self.linux(),
            self.dom0(),
            self.kvm(),
            self.guest(),
            self.guest_with_fio(),
            self.packages.path("usr/bin/qemu-system-x86_64"),
        ]
    }

    fn write_manifest(&self) -> Result<()> {
        let checked = |path: PathBuf| {
            let sha256 = sha256_file(&path)?;
            Ok(Checked { path, sha256 })
        };
        let all: Result<Vec<_>> = self.used().into_iter().map(checked).collect();
        let text = serde_json::to_string_pretty(&all?)?;
        Ok(fs::write(self.folder.join("manifest.json"), text)?)
    }

    fn verify(&self) -> Result<()> {
        let text = fs::read_to_string(self.folder.join("manifest.json")).context("no manifest")?;
        let all: Vec<Checked> = serde_json::from_str(&text).context("manifest.json")?;
        for path in self.used() {
            let Some(known) = all.iter().find(|c| c.path == path) else {
                bail!("{} is not in the manifest", path.display());
            };
            if sha256_file(&path)? != known.sha256 {
                bail!("{} has changed", path.display());
            }
        }
        Ok(())
    }
}

/// Builds the file systems.
struct Builder<'a> {
    packages: &'a Packages,
    libs: &'a Libraries,
    version: &'a str,
}

impl Builder<'_> {
    /// What all have: busybox and modules.
    fn bare(&self, init: &str, modules: &[&str]) -> Result<Tree> {
        let mut tree = Tree::default();
        for folder in [
            "bin", "sbin", "etc/lab", "proc", "sys", "dev", "run", "tmp", "root", "var/lib",
        ] {
            tree.folder(folder);
        }
        tree.copy("bin/busybox", &self.packages.path("usr/bin/busybox"))?;
        tree.link("lib", "usr/lib");
        tree.file("init", 0o755, init);
        modules::add(&mut tree, &self.packages.root, self.version, modules)?;
        Ok(tree)
    }

    /// What programs that are not static need, too.
    fn add_loader(&self, tree: &mut Tree) -> Result<()> {
        let loader = "ld-linux-x86-64.so.2";
        tree.link(
            &format!("lib64/{loader}"),
            &format!("../{}/{loader}", libs::FOLDER),
        );
        // libgcc_s is loaded by name at run time (pthread_cancel), and the
        // agent is linked with it.
        for name in ["libc.so.6", loader, "libgcc_s.so.1", "libm.so.6"] {
            self.libs.add(tree, name)?;
        }
        Ok(())
    }

    /// A machine that is driven by the agent.
    fn driven(&self, init: &str, modules: &[&str]) -> Result<Tree> {
        let mut tree = self.bare(init, modules)?;
        self.add_loader(&mut tree)?;
        tree.file("etc/lab/common.sh", 0o644, include_str!("init/common.sh"));
        Ok(tree)
    }

    fn program(&self, tree: &mut Tree, from: &str, to: &str) -> Result<()> {
        let path = self.packages.path(from);
        tree.copy(to, &path)?;
        self.libs.add_needs_of(tree, &path)
    }

    fn dom0(&self) -> Result<Tree> {
        let modules = [
            "xen-blkback",
            "xen-gntdev",
            "xen-gntalloc",
            "xen-evtchn",
            "xen-privcmd",
            "xenfs",
            "loop",
            "null_blk",
            "brd",
            "virtio_pci",
            "virtio_blk",
            "virtio_console",
        ];
        let mut tree = self.driven(include_str!("init/dom0.sh"), &modules)?;
        for tool in XEN_TOOLS {
            let path = format!("{XEN_BIN}/{tool}");
            self.program(&mut tree, &path, &path)?;
        }
        for tool in [
            "", "-read", "-write", "-list", "-ls", "-rm", "-exists", "-watch", "-chmod",
        ] {
            let name = format!("bin/xenstore{tool}");
            self.program(&mut tree, &format!("usr/{name}"), &name)?;
        }
        // busybox's cannot make a disk smaller.
        self.program(&mut tree, "usr/sbin/losetup", "sbin/losetup")?;
        tree.copy("bin/bash", &self.packages.path("usr/bin/bash-static"))?;
        for entry in fs::read_dir(self.packages.path("etc/xen/scripts"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            tree.copy(&format!("etc/xen/scripts/{name}"), &entry.path())?;
        }
        tree.file(
            "etc/xen/scripts/block-lab",
            0o755,
            include_str!("init/block-lab.sh"),
        );
        for folder in ["var/lib/xen", "var/lib/xenstored", "var/log/xen"] {
            tree.folder(folder);
        }
        Ok(tree)
    }

    fn kvm(&self) -> Result<Tree> {
        let modules = [
            "kvm_amd",
            "loop",
            "null_blk",
            "brd",
            "virtio_pci",
            "virtio_blk",
            "virtio_console",
        ];
        let mut tree = self.driven(include_str!("init/kvm.sh"), &modules)?;
        let qemu = "bin/qemu-system-x86_64";
        self.program(&mut tree, &format!("usr/{qemu}"), qemu)?;
        for rom in [
            "pvh.bin",
            "linuxboot_dma.bin",
            "kvmvapic.bin",
            "multiboot_dma.bin",
        ] {
            let path = format!("usr/share/qemu/{rom}");
            tree.copy(&path, &self.packages.path(&path))?;
        }
        for bios in ["bios.bin", "bios-256k.bin", "bios-microvm.bin"] {
            let from = self.packages.path(format!("usr/share/seabios/{bios}"));
            tree.copy(&format!("usr/share/qemu/{bios}"), &from)?;
        }
        Ok(tree)
    }

    fn guest(&self) -> Result<Tree> {
        self.bare(include_str!("init/guest.sh"), &["xen-blkfront"])
    }

    fn guest_with_fio(&self) -> Result<Tree> {
        let mut tree = self.guest()?;
        self.add_loader(&mut tree)?;
        self.program(&mut tree, "usr/bin/fio", "bin/fio")?;
        Ok(tree)
    }
}
