//! What disks answer: inquiry and product data, capacities, units, sense data.

use firn_scsi::{Capacity, Condition, Inquiry, Luns, Sense, mode, vpd};

/// Runs one input: the bytes are every answer, one after the other.
pub fn run(data: &[u8]) {
    if let Ok(sense) = Sense::parse(data) {
        let _ = Condition::of(sense).to_string();
    }
    if let Ok(luns) = Luns::parse(data) {
        assert!(luns.units.is_sorted() && luns.units.len() <= data.len() / 8);
    }
    for capacity in [Capacity::parse_10(data), Capacity::parse_16(data).map(Some)] {
        if let Ok(Some(capacity)) = capacity {
            let block = u64::from(capacity.block);
            assert!(capacity.blocks.checked_mul(block).is_some());
            assert!(capacity.physical >= capacity.block);
        }
    }
    let _ = (
        Inquiry::parse(data),
        vpd::supported(data),
        vpd::serial(data),
    );
    let _ = (vpd::limits(data), vpd::is_solid_state(data));
    let _ = (vpd::provisioning(data), mode::is_write_protected(data));
    if let Ok(Some(name)) = vpd::identification(data) {
        assert!(name.bytes.len() < data.len());
    }
}
