//! An area on devices that are honest, and on others.

use super::*;
use crate::fixtures::{Records, filled, formatted};
use crate::host::{Buffer, Faults, Faulty, FileDevice, MemoryDevice};
use std::collections::BTreeMap;
use std::vec::Vec;

#[test]
fn what_is_stored_comes_back_until_its_last_share_goes() {
    let device = formatted(40, &[5]);
    let records = Records::new(40);
    let area = Area::open(&device, records.slots(), Options::default()).unwrap();
    assert_eq!(area.usage(), AreaUsage { slots: 38, used: 0, bad: 1 });
    let stored: Vec<u32> = (0..38).map(|i| area.store(filled(i).bytes(), 0).unwrap()).collect();
    assert!(!stored.contains(&0) && !stored.contains(&5));
    assert_eq!(area.store(filled(99).bytes(), 0), Err(StoreError::Full));
    let back = Buffer::new();
    for (i, &slot) in (0..).zip(&stored) {
        area.load(slot, back.bytes()).unwrap();
        assert_eq!(back.to_vec(), filled(i).to_vec());
    }
    assert!(area.share(stored[3]) && area.release(stored[3]));
    assert_eq!(area.load(stored[3], back.bytes()), Ok(()));
    assert!(area.release(stored[3]));
    assert_eq!(area.load(stored[3], back.bytes()), Err(LoadError::Free));
    assert!(!area.release(stored[3]) && !area.share(stored[3]));
    assert_eq!(area.usage(), AreaUsage { slots: 38, used: 37, bad: 1 });
    let mut used = Vec::new();
    area.each_used(|slot, shares| used.push((slot, shares)));
    assert_eq!(used.len(), 37);
    assert!(used.iter().all(|&(_, shares)| shares == 1));
}

#[test]
fn an_area_is_not_opened_if_its_header_or_its_records_do_not_fit() {
    let open = |device: &MemoryDevice| {
        let records = Records::new(40);
        Area::open(device, records.slots(), Options::default()).map(|_| ()).unwrap_err()
    };
    let none = open(&MemoryDevice::new(40));
    assert_eq!(none, OpenError::Header(HeaderError::NoSignature));
    assert_eq!(open(&MemoryDevice::new(0)), OpenError::Device(DeviceError::OutOfRange(0)));
    assert_eq!(open(&formatted(41, &[])), OpenError::Slots { needed: 41, lent: 40 });
}

#[cfg(feature = "tags")]
#[test]
fn a_page_that_another_slot_was_given_is_not_believed() {
    let device = formatted(10, &[]);
    let records = Records::new(10);
    let area = Area::open(&device, records.slots(), Options::default()).unwrap();
    let [first, second] = [1, 2].map(|i| area.store(filled(i).bytes(), 0).unwrap());
    let (page, back) = (Buffer::new(), Buffer::new());
    device.read(first.into(), page.bytes()).unwrap();
    device.write(second.into(), page.bytes()).unwrap();
    assert_eq!(area.load(second, back.bytes()), Err(LoadError::Tag));
    assert_eq!(area.load(first, back.bytes()), Ok(()), "nobody else notices");
}

#[test]
fn slots_that_cannot_be_written_are_bad_and_a_dead_device_is_given_up() {
    let faults = Faults { write_error: 16_384, ..Faults::default() };
    let device = Faulty::new(formatted(2000, &[]), faults, 1);
    let records = Records::new(2000);
    let area = Area::open(&device, records.slots(), Options::default()).unwrap();
    let mut stored = BTreeMap::new();
    for i in 0..1000 {
        stored.insert(area.store(filled(i).bytes(), 0).unwrap(), i);
    }
    let usage = area.usage();
    assert_eq!(usage.bad as u64, device.count_faults());
    assert_eq!((usage.used, usage.slots + usage.bad), (1000, 1999));
    assert!(usage.bad > 200);
    let back = Buffer::new();
    for (&slot, &i) in &stored {
        area.load(slot, back.bytes()).unwrap();
        assert_eq!(back.to_vec(), filled(i).to_vec());
    }

    let dead = Faulty::new(formatted(100, &[]), Faults { write_error: 65_535, ..faults }, 1);
    let records = Records::new(100);
    let area = Area::open(&dead, records.slots(), Options::default()).unwrap();
    let given_up = StoreError::Device(DeviceError::Io);
    assert_eq!(area.store(filled(0).bytes(), 0), Err(given_up));
    assert_eq!(area.usage(), AreaUsage { slots: 99 - MOST_TRIES, used: 0, bad: MOST_TRIES });
}

/// Lost and torn writes, changed bits, failed calls: what comes back without an error is what went out.
#[cfg(feature = "tags")]
#[test]
fn no_page_that_comes_back_is_another_s() {
    let faults = Faults {
        read_error: 2000,
        bit_flip: 2000,
        write_error: 500,
        lost_write: 2000,
        torn_write: 2000,
    };
    let device = Faulty::new(formatted(3000, &[]), faults, 7);
    let records = Records::new(3000);
    let area = Area::open(&device, records.slots(), Options { key: 42, discards: true }).unwrap();
    let mut stored: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut right, mut found_out) = (0, 0);
    let rounds = if cfg!(miri) { 500 } else { 100_000 };
    for i in 1..=rounds {
        // Many slots are used again and again, so that a lost write leaves an older page behind.
        if stored.len() < 200 {
            if let Ok(slot) = area.store(filled(i).bytes(), 0) {
                assert_eq!(stored.insert(slot, i), None);
            }
        }
        if i % 2 == 0 {
            let (slot, contents) = stored.pop_first().unwrap();
            let back = Buffer::new();
            match area.load(slot, back.bytes()) {
                Ok(()) => {
                    right += 1;
                    assert_eq!(back.to_vec(), filled(contents).to_vec());
                }
                Err(LoadError::Tag) => found_out += 1,
                Err(error) => assert_eq!(error, LoadError::Device(DeviceError::Io)),
            }
            assert!(area.release(slot));
        }
    }
    assert!(right > found_out && found_out > rounds / 100, "{right} {found_out}");
}

#[test]
fn a_cluster_that_is_free_again_is_discarded() {
    let device = formatted(2000, &[]);
    let records = Records::new(2000);
    let area = Area::open(&device, records.slots(), Options { key: 0, discards: true }).unwrap();
    let stored: Vec<u32> = (0..1200).map(|_| area.store(filled(3).bytes(), 0).unwrap()).collect();
    for &slot in &stored {
        assert!(area.release(slot));
    }
    let page = Buffer::new();
    device.read(700, page.bytes()).unwrap();
    assert_eq!(page.to_vec(), Buffer::new().to_vec(), "of a whole cluster");
    device.read(400, page.bytes()).unwrap();
    assert_eq!(page.to_vec(), filled(3).to_vec(), "the header's cluster is never free as a whole");
}

#[test]
fn a_file_of_the_host_is_an_area() {
    let name = std::format!("vellum-swap-area-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let device = FileDevice::create(&path, 64).unwrap();
    format(&device, &Header::new(64, [9; 16], [0; 16], &[]).unwrap()).unwrap();
    assert!(FileDevice::create(&path, 64).is_err(), "nothing is overwritten");
    drop(device);
    let device = FileDevice::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let records = Records::new(64);
    let area = Area::open(device, records.slots(), Options::default()).unwrap();
    let slots: Vec<u32> = (0..63).map(|i| area.store(filled(i).bytes(), 0).unwrap()).collect();
    let back = Buffer::new();
    for (i, slot) in (0..).zip(slots) {
        area.load(slot, back.bytes()).unwrap();
        assert_eq!(back.to_vec(), filled(i).to_vec());
    }
    assert_eq!(area.device().read(64, back.bytes()), Err(DeviceError::OutOfRange(64)));
}

#[test]
fn pages_go_out_and_come_back_on_many_threads() {
    let device = formatted(700, &[]);
    let records = Records::new(700);
    let area = Area::open(&device, records.slots(), Options { key: 5, discards: true }).unwrap();
    let rounds: u64 = if cfg!(miri) { 10 } else { 5_000 };
    std::thread::scope(|scope| {
        for cpu in 0..3u64 {
            let area = &area;
            scope.spawn(move || {
                let back = Buffer::new();
                for round in 0..rounds {
                    let number = cpu << 32 | round;
                    let at = usize::try_from(cpu).unwrap();
                    let slot = area.store(filled(number).bytes(), at).unwrap();
                    assert!(area.share(slot) && area.release(slot));
                    area.load(slot, back.bytes()).unwrap();
                    assert_eq!(back.to_vec(), filled(number).to_vec());
                    assert!(area.release(slot));
                }
            });
        }
    });
    assert_eq!(area.usage(), AreaUsage { slots: 699, used: 0, bad: 0 });
}
