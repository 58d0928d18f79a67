//! What Xen knows of a guest that does not go on: a test that waits in vain
//! has one chance to look.

use std::time::Duration;

use crate::client::Client;

/// The end of Xen's log so far; then has Xen write the state of its domains,
/// event channels and vCPUs to it, and cuts out what was written.
const LOOK: &str = "xl list; xl dmesg -c | tail -n 40; \
    for key in q e v; do xl debug-keys $key; done; sleep 1; xl dmesg";

/// Lines worth keeping: the domain's own, and the vCPUs' registers.
const LINES: usize = 200;

/// Xen's view of the domains now, as text for an error message.
pub(crate) fn view(client: &Client) -> String {
    match client.exec(&["sh", "-c", LOOK], Duration::from_secs(30)) {
        Ok(output) => {
            let lines: Vec<_> = output.stdout.lines().collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        }
        Err(error) => format!("Xen could not be asked: {error:#}"),
    }
}
