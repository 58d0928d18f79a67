//! Images in a partition, and disks that are known by their partition table.

use crate::disk::Host;
use crate::guest::{Memory, Session, run};
use firn_block::DiskId;
use firn_image::{
    Area, BindError, Binding, DiskIdentity, Error, How, PARTITION_TYPE, PresentDisk, SavedDisk,
    Verdict, bind,
};
use gpt_disk_io::gpt_disk_types::{
    BlockSize, GptHeader, GptPartitionEntry, GptPartitionEntryArray, GptPartitionType, Guid, LbaLe,
    U32Le, guid,
};
use gpt_disk_io::{BlockIoAdapter, Disk};

const DISK: Guid = guid!("11111111-2222-3333-4444-555555555555");
const OTHER: Guid = guid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

/// A disk of 8 MiB with a partition of type `kind` from 1 MiB to 7 MiB.
fn partitioned(kind: Guid) -> Vec<u8> {
    let size = BlockSize::BS_512;
    let mut header = GptHeader {
        my_lba: LbaLe::from_u64(1),
        partition_entry_lba: LbaLe::from_u64(2),
        number_of_partition_entries: U32Le::from_u32(128),
        disk_guid: DISK,
        ..GptHeader::default()
    };
    let layout = header.get_partition_entry_array_layout();
    let layout = layout.expect("the usual layout");
    let mut storage = vec![0; 128 * 128];
    let mut entries = GptPartitionEntryArray::new(layout, size, &mut storage).expect("fits");
    *entries.get_partition_entry_mut(3).expect("the fourth") = GptPartitionEntry {
        partition_type_guid: GptPartitionType(kind),
        unique_partition_guid: DISK,
        starting_lba: LbaLe::from_u64(2048),
        ending_lba: LbaLe::from_u64(7 * 2048 - 1),
        ..GptPartitionEntry::default()
    };
    header.partition_entry_array_crc32 = entries.calculate_crc32();
    header.update_header_crc32();
    let mut data = vec![0; 8 << 20];
    let mut io = Disk::new(BlockIoAdapter::new(&mut data[..], size)).expect("a disk");
    let mut block = [0; 512];
    io.write_primary_gpt_header(&header, &mut block)
        .expect("written");
    io.write_gpt_partition_entry_array(&entries)
        .expect("written");
    drop(io);
    data
}

#[test]
fn an_image_in_a_partition_leaves_everything_around_it_alone() {
    let start = partitioned(PARTITION_TYPE);
    let host = Host::with(start.clone(), 1);
    let memory = Memory::random(600, 1);
    let mut session = Session::new(&host, 1);
    let (area, _) = run(session.look()).expect("readable");
    let expected = Area {
        first_sector: 2048,
        sectors: 6 * 2048,
        partition: Some(4),
    };
    assert_eq!(area, expected);
    run(session.freeze(&memory.0, &[], How::default())).expect("it fits");
    let into = Memory::new(600);
    run(session.load(&into.0, None)).expect("whole");
    assert!(into.bytes() == memory.bytes());
    let (before, after) = (start, host.data());
    assert!(before[..1 << 20] == after[..1 << 20], "what is in front");
    assert!(before[7 << 20..] == after[7 << 20..], "what is behind");
}

#[test]
fn a_partition_table_without_an_image_partition_is_somebody_elses() {
    let host = Host::with(partitioned(OTHER), 1);
    assert_eq!(run(Session::new(&host, 0).store.area()), Ok(None));
    let mut broken = partitioned(PARTITION_TYPE);
    broken[1024 + 3 * 128] ^= 1;
    let host = Host::with(broken, 1);
    let area = run(Session::new(&host, 0).store.area());
    assert!(matches!(area, Err(Error::Partitions(_))), "{area:?}");
}

#[test]
fn a_disk_is_known_by_its_table_or_else_by_its_ends() {
    let identify = |data: Vec<u8>, capacity: u64| {
        let host = Host::with(data, 1);
        run(Session::new(&host, 0).store.identify(capacity)).expect("readable")
    };
    let guid = DiskIdentity::Guid(DISK.to_bytes());
    assert_eq!(identify(partitioned(OTHER), 100), guid);

    let data: Vec<u8> = (0..1 << 18).map(|i: u32| (i * 7 / 512) as u8).collect();
    let sectors = (data.len() / 512) as u64;
    let print = identify(data.clone(), sectors);
    let mut grown = data.clone();
    grown.resize(1 << 20, 9);
    assert_eq!(identify(grown, sectors), print, "a grown disk is the same");
    for at in [0, 65_535, data.len() - 65_536, data.len() - 1] {
        let mut other = data.clone();
        other[at] ^= 1;
        assert_ne!(identify(other, sectors), print, "byte {at}");
    }
    let mut small = data;
    small.truncate(40_960);
    identify(small, 80);
}

fn saved(id: u32, identity: DiskIdentity) -> SavedDisk {
    SavedDisk {
        id: DiskId(id),
        capacity: 1000,
        logical_block: 512,
        read_only: false,
        identity,
    }
}

fn present(id: u32, guid: Option<[u8; 16]>, prints: &[u64]) -> PresentDisk {
    PresentDisk {
        id: DiskId(id),
        capacity: 1000,
        logical_block: 512,
        read_only: false,
        guid,
        prints: prints.iter().map(|print| Some(*print)).collect(),
    }
}

#[test]
fn disks_are_bound_by_what_they_are_and_not_by_name() {
    let disks = [
        saved(0, DiskIdentity::Guid([1; 16])),
        saved(1, DiskIdentity::Print(5)),
    ];
    let here = [
        present(7, None, &[9, 5]),
        present(3, Some([1; 16]), &[8, 8]),
    ];
    let binding = |saved, present| Binding {
        saved: DiskId(saved),
        present: DiskId(present),
    };
    assert_eq!(bind(&disks, &here), Ok(vec![binding(0, 3), binding(1, 7)]));
    // Twins: the one with the old name, or nobody.
    let twins = [present(4, None, &[5]), present(1, None, &[5])];
    assert_eq!(bind(&disks[1..], &twins), Ok(vec![binding(1, 1)]));
    let twins = [present(4, None, &[5]), present(6, None, &[5])];
    let ambiguous = BindError::Ambiguous(DiskId(1));
    assert_eq!(bind(&disks[1..], &twins), Err(ambiguous));
    // One disk is not two.
    let same = [
        saved(0, DiskIdentity::Print(5)),
        saved(1, DiskIdentity::Print(5)),
    ];
    assert!(bind(&same, &[present(0, None, &[5, 5])]).is_err());
}

#[test]
fn a_disk_that_changed_is_refused_by_name() {
    let disks = [saved(2, DiskIdentity::Guid([1; 16]))];
    let refused = |change: fn(&mut PresentDisk)| {
        let mut disk = present(2, Some([1; 16]), &[0]);
        change(&mut disk);
        bind(&disks, &[disk]).expect_err("it changed")
    };
    let id = DiskId(2);
    assert_eq!(refused(|d| d.guid = None), BindError::Missing(id));
    assert_eq!(
        refused(|d| d.capacity = 999),
        BindError::Shrunk {
            disk: id,
            present: id,
            was: 1000,
            is: 999
        }
    );
    let size = BindError::BlockSize {
        disk: id,
        was: 512,
        is: 4096,
    };
    assert_eq!(refused(|d| d.logical_block = 4096), size);
    assert_eq!(refused(|d| d.read_only = true), BindError::ReadOnly(id));
    // Too small to have the fingerprint at all.
    let disks = [saved(2, DiskIdentity::Print(1))];
    let mut small = present(2, None, &[]);
    small.capacity = 10;
    let shrunk = bind(&disks, &[small]);
    assert!(matches!(shrunk, Err(BindError::Shrunk { is: 10, .. })));
}

#[test]
fn a_disk_that_is_too_small_has_no_room_for_headers() {
    let host = Host::new(32 << 10);
    assert_eq!(run(Session::new(&host, 0).store.area()), Ok(None));
    let host = Host::new(64 << 10);
    let mut session = Session::new(&host, 0);
    assert_eq!(session.slots().verdict(), Verdict::Blank);
    let whole = Area {
        first_sector: 0,
        sectors: 128,
        partition: None,
    };
    assert!(run(session.store.format(whole)).is_err());
}
