//! Disks of all kinds, and backends of all abilities.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Result, ensure};
use firn_boot_tests::{Scene, again, check_file};
use firn_jobs::verify_format::Pattern;
use firn_lab::{GuestDisk, Host, sha256_file};

#[test]
fn two_disks_at_once() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let ([a, b], disks) = scene.two_disks()?;
        let live = scene.boot("", &disks)?;
        let first = "verify disk=xvda size=16M seed=1";
        live.verify(first, a.file())?;
        live.verify("verify disk=xvdb size=16M seed=2", b.file())?;
        // The second must not have touched the first.
        live.done("verify disk=xvda size=16M seed=1 write=no")?;
        check_file(first, a.file())?;
        live.off()?;
        scene.finish()
    })
}

#[test]
fn a_read_only_disk_is_read_and_never_written() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let file = File::options().write(true).open(disk.file())?;
        let pattern = Pattern {
            seed: 7,
            generation: 1,
            block: 64 << 10,
        };
        let mut bytes = vec![0; 1 << 20];
        pattern.fill(0, &mut bytes);
        file.write_all_at(&bytes, 0)?;
        let before = sha256_file(disk.file())?;

        let live = scene.boot("", &[GuestDisk::new(disk.name(), "xvda").read_only()])?;
        ensure!(live.disk("xvda")?["read_only"] == true);
        live.done("verify disk=xvda size=1M seed=7 write=no")?;
        for job in [
            "verify disk=xvda size=1M",
            "write disk=xvda at=0 text=no",
            "load disk=xvda",
            "bench disk=xvda rw=randwrite",
            "discard disk=xvda at=0 size=1M",
        ] {
            let result = live.refused(job, "read-only")?;
            ensure!(result.text("where") == Some("xvda"), "{}", result.fields);
        }
        live.done("verify disk=xvda size=1M seed=7 write=no")?;
        live.off()?;
        ensure!(sha256_file(disk.file())? == before, "the file has changed");
        scene.finish()
    })
}

#[test]
fn sectors_of_4096_bytes() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(4096)?;
        let live = scene.boot("", &[GuestDisk::new(disk.name(), "xvda")])?;
        let told = live.disk("xvda")?;
        ensure!(told["logical_block"] == 4096, "{told}");
        ensure!(told["bytes"] == firn_boot_tests::DISK_BYTES, "{told}");
        live.verify("verify disk=xvda at=12k size=8M bs=4k seed=3", disk.file())?;
        live.verify(
            "verify disk=xvda at=16M size=16M bs=100k seed=4",
            disk.file(),
        )?;
        // The last block, by its number in units of 512 bytes.
        live.verify(
            "verify disk=xvda at=0xffff000 size=4k bs=4k seed=5",
            disk.file(),
        )?;
        for job in [
            "write disk=xvda at=512 text=x",
            "verify disk=xvda size=1M bs=512",
        ] {
            live.refused(job, "bad-argument")?;
        }
        live.off()?;
        scene.finish()
    })
}

/// Whatever the backend offers, this frontend can do without.
#[test]
fn a_frontend_that_may_use_nothing() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let options = "blk.ring-order=0 blk.segments=11 blk.persistent=no";
        let live = scene.boot(options, &[GuestDisk::new(disk.name(), "xvda")])?;
        live.check_features("xvda", "ring-pages=1 segments=11", false)?;
        live.verify_all_sizes("xvda", disk.file())?;
        live.off()?;
        scene.finish()
    })
}

#[test]
fn a_backend_that_offers_little() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::alone(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        scene
            .bench
            .lab
            .reload_blkback("max_ring_page_order=0 feature_persistent=0")?;
        let live = scene.boot("", &[GuestDisk::new(disk.name(), "xvda")])?;
        live.check_features("xvda", "ring-pages=1 segments=256", false)?;
        live.verify_all_sizes("xvda", disk.file())?;
        live.off()?;
        scene.bench.lab.reload_blkback("")?;
        scene.finish()
    })
}

#[test]
fn a_ring_of_16_pages_with_256_segments() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("", &[GuestDisk::new(disk.name(), "xvda")])?;
        let told = live.disk("xvda")?;
        live.check_features("xvda", "ring-pages=16 segments=256", true)?;
        ensure!(told["queue_depth"] == 512, "{told}");
        ensure!(told["max_transfer"] == 1 << 20, "{told}");
        live.verify_all_sizes("xvda", disk.file())?;
        live.verify(
            "verify disk=xvda at=64M size=512k bs=512 qd=512 seed=9",
            disk.file(),
        )?;
        live.off()?;
        scene.finish()
    })
}

#[test]
fn what_is_discarded_is_gone_from_the_file() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("", &[GuestDisk::new(disk.name(), "xvda")])?;
        ensure!(live.disk("xvda")?["discard"] == true);
        live.done("verify disk=xvda size=16M seed=1")?;
        let written = std::fs::metadata(disk.file())?.blocks();
        live.done("discard disk=xvda at=4M size=8M")?;
        live.refused("discard disk=xvda at=4M size=8M secure", "unsupported")?;
        live.off()?;
        let mut middle = vec![0xff; 8 << 20];
        File::open(disk.file())?.read_exact_at(&mut middle, 4 << 20)?;
        ensure!(middle.iter().all(|byte| *byte == 0), "still there");
        let now = std::fs::metadata(disk.file())?.blocks();
        ensure!(
            now + (8 << 20) / 512 <= written,
            "{now} of {written} blocks are still allocated"
        );
        // A block says where it is, so these lines name what was left alone.
        check_file("verify disk=xvda at=0 size=4M seed=1", disk.file())?;
        check_file("verify disk=xvda at=12M size=4M seed=1", disk.file())?;
        scene.finish()
    })
}

#[test]
fn a_disk_without_discard_says_so() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let plain = GuestDisk::new(disk.name(), "xvda").without_discard();
        let live = scene.boot("", &[plain])?;
        ensure!(live.disk("xvda")?["discard"] == false);
        live.refused("discard disk=xvda at=0 size=1M", "unsupported")?;
        live.off()?;
        scene.finish()
    })
}
