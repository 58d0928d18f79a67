//! What dom0 says when a guest is destroyed while blkback connects, in the
//! words of the real kernel: forgiven when the lab was it, and only then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use firn_boot_tests::{Bench, Scene, again};
use firn_lab::{GuestDisk, GuestSpec, Host};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_destroy_in_the_middle_of_a_connect_is_forgiven() -> Result<()> {
    again(Host::Xen, || {
        // Nobody else may see what is not forgiven yet.
        let scene = Scene::alone(Host::Xen)?;
        let (lab, disk) = (&scene.bench.lab, scene.bench.disk(512)?);
        let mark = lab.mark_logs()?;
        let spec = GuestSpec::new("firn", Bench::elf())
            .with_disk(GuestDisk::new(disk.name(), "xvda"))
            .paused();
        let guest = lab.guest(&spec)?;
        let domain = guest.domain().context("a guest of Xen")?;
        // The frontend is ready, and the keys that blkback then reads are not
        // there: so it finds them once a destroy has removed them.
        let state = format!("/local/domain/{domain}/device/vbd/51712/state");
        lab.run(&format!("xenstore-write {state} 3"))?;
        let start = Instant::now();
        let complaints = loop {
            let said = lab.complaints_since(&mark)?;
            if said.last().is_some_and(|line| line.contains("end trace")) {
                break said;
            }
            if start.elapsed() > SOON {
                bail!("blkback did not fail as expected: {said:#?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        let error = format!("vbd vbd-{domain}-51712: 22 reading /local/domain/{domain}/");
        ensure!(complaints[0].contains(&error), "{complaints:#?}");
        let of_disconnect = |line: &String| line.contains("xen_blkif_disconnect");
        ensure!(complaints.iter().any(of_disconnect), "{complaints:#?}");

        guest.destroy()?;
        let left = lab.complaints_since(&mark)?;
        ensure!(left.is_empty(), "{}", left.join("\n"));
        scene.finish()
    })
}
