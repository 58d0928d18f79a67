//! What the host sends by the channels of its integration services.

use firn_hyperv::ic::{News, Service, answer};
use firn_hyperv::wire::ic::{BODY, Version};

/// Runs one input: which service, at which version, and its packet.
pub fn run(data: &[u8]) {
    let Some(([which, major, minor], packet)) = data.split_first_chunk::<3>() else {
        return;
    };
    let service = Service::ALL[usize::from(*which) % Service::ALL.len()];
    let version = Version::new((*major).into(), (*minor).into());
    let agreed = (*major != 0).then_some(version);
    let hibernates = which & 0x80 != 0;
    let Ok((news, reply)) = answer(service, agreed, hibernates, packet) else {
        return;
    };
    // The host finds what it sent, and where the answer ends.
    assert!(reply.len() >= packet.len() && reply.len() <= packet.len() + BODY);
    let piped = u32::from_le_bytes([reply[4], reply[5], reply[6], reply[7]]);
    assert_eq!(piped as usize + 8, reply.len());
    assert_eq!(reply[24], packet[24], "its own transaction");
    let told = matches!(news, News::Command(_) | News::Time { .. });
    assert!(
        !told || agreed.is_some(),
        "nothing is heeded without a version"
    );
}
