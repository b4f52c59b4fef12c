//! Several areas: who is next, who is full, who leaves.

use super::*;
use crate::Options;
use crate::device::DeviceError;
use crate::fixtures::{Records, filled, formatted};
use crate::host::{Buffer, Faults, Faulty, MemoryDevice};
use std::collections::BTreeMap;
use std::vec::Vec;

fn area<D: BlockDevice>(device: D, records: &Records) -> Area<'_, D> {
    Area::open(device, records.slots(), Options::default()).unwrap()
}

fn area_of(store: Result<Place, StoreError>) -> usize {
    store.unwrap().area
}

#[test]
fn without_an_area_nothing_is_stored() {
    let areas = Areas::<MemoryDevice>::new();
    assert_eq!(areas.store(filled(1).bytes(), 0), Err(StoreError::Full));
    let nowhere = Place { area: 3, slot: 7 };
    assert!(!areas.share(nowhere) && !areas.release(nowhere) && !areas.close(3));
    assert_eq!(areas.load(nowhere, Buffer::new().bytes()), Err(LoadError::Free));
}

#[test]
fn the_highest_priority_is_filled_first_and_equals_in_turn() {
    let records = [11, 11, 11].map(Records::new);
    let devices = [11, 11, 11].map(|pages| formatted(pages, &[]));
    let mut areas = Areas::new();
    for ((device, records), priority) in devices.iter().zip(&records).zip([5, -3, 5]) {
        areas.add(area(device, records), priority).unwrap();
    }
    let order: Vec<usize> = (0..6).map(|i| area_of(areas.store(filled(i).bytes(), 0))).collect();
    assert_eq!(order, [0, 2, 0, 2, 0, 2]);
    let order: Vec<usize> = (6..30).map(|i| area_of(areas.store(filled(i).bytes(), 0))).collect();
    assert!(order[..14].iter().all(|&number| number != 1));
    assert!(order[14..].iter().all(|&number| number == 1), "those above are full");
    assert_eq!(areas.store(filled(30).bytes(), 0), Err(StoreError::Full));
    let mut listed = Vec::new();
    areas.each(|number, priority, usage| listed.push((number, priority, usage.used)));
    assert_eq!(listed, [(0, 5, 10), (1, -3, 10), (2, 5, 10)]);
}

#[test]
fn every_place_has_its_page_and_its_entry() {
    let records = [20, 900].map(Records::new);
    let devices = [20, 900].map(|pages| formatted(pages, &[]));
    let mut areas = Areas::new();
    for (device, records) in devices.iter().zip(&records) {
        areas.add(area(device, records), 0).unwrap();
    }
    let mut stored = BTreeMap::new();
    for i in 0..918 {
        let place = areas.store(filled(i).bytes(), 0).unwrap();
        assert_eq!(Place::of(place.entry()), Some(place));
        assert_eq!(stored.insert(place.entry(), i), None);
    }
    let back = Buffer::new();
    for (entry, i) in stored {
        let place = Place::of(entry).unwrap();
        areas.load(place, back.bytes()).unwrap();
        assert_eq!(back.to_vec(), filled(i).to_vec());
        assert!(areas.share(place) && areas.release(place) && areas.release(place));
        assert!(!areas.release(place));
    }
    assert_eq!(Place::of(u64::MAX), None);
    let last = Place { area: MOST_AREAS - 1, slot: u32::MAX };
    assert_eq!((Place::of(last.entry()), last.entry()), (Some(last), (1 << 37) - 1));
}

#[test]
fn an_area_leaves_only_when_it_is_closed_and_nothing_is_left_in_it() {
    let records = [10, 10].map(Records::new);
    let devices = [10, 10].map(|pages| formatted(pages, &[]));
    let mut areas = Areas::new();
    for (device, records) in devices.iter().zip(&records) {
        areas.add(area(device, records), 0).unwrap();
    }
    let first = areas.store(filled(1).bytes(), 0).unwrap();
    assert_eq!(first.area, 0);
    assert_eq!(areas.remove(0).unwrap_err(), RemoveError::Open);
    assert_eq!(areas.remove(2).unwrap_err(), RemoveError::Unknown);
    assert_eq!(areas.remove(99).unwrap_err(), RemoveError::Unknown);
    assert!(areas.close(0));
    assert_eq!(areas.remove(0).unwrap_err(), RemoveError::InUse(1));
    let places: Vec<usize> = (0..9).map(|i| area_of(areas.store(filled(i).bytes(), 0))).collect();
    assert_eq!(places, [1; 9]);
    assert_eq!(areas.store(filled(9).bytes(), 0), Err(StoreError::Full), "the other one is closed");
    let back = Buffer::new();
    assert_eq!(areas.load(first, back.bytes()), Ok(()), "what is there still comes back");
    assert!(areas.reopen(0) && areas.store(filled(9).bytes(), 0).is_ok());
    assert!(areas.close(0) && areas.release(first));
    let mut used = Vec::new();
    areas.area(0).unwrap().each_used(|slot, _| used.push(Place { area: 0, slot }));
    assert!(used.into_iter().all(|place| areas.release(place)));
    assert_eq!(areas.remove(0).unwrap().usage().used, 0);
    assert_eq!(areas.store(filled(9).bytes(), 0), Err(StoreError::Full));
    assert_eq!(areas.remove(0).unwrap_err(), RemoveError::Unknown);
}

#[test]
fn another_area_takes_what_a_dead_device_does_not() {
    let dead = Faults { write_error: u16::MAX, ..Faults::default() };
    let records = [100, 10].map(Records::new);
    let devices = [
        Faulty::new(formatted(100, &[]), dead, 1),
        Faulty::new(formatted(10, &[]), Faults::default(), 1),
    ];
    let mut areas = Areas::new();
    for ((device, records), priority) in devices.iter().zip(&records).zip([9, 0]) {
        areas.add(area(device, records), priority).unwrap();
    }
    assert_eq!(area_of(areas.store(filled(1).bytes(), 0)), 1);
    for i in 2..10 {
        assert_eq!(area_of(areas.store(filled(i).bytes(), 0)), 1);
    }
    let io = StoreError::Device(DeviceError::Io);
    assert_eq!(areas.store(filled(10).bytes(), 0), Err(io), "one is full, and one fails");
}

#[test]
fn there_are_not_more_than_thirty_two() {
    let records: Vec<Records> = core::iter::repeat_with(|| Records::new(2)).take(33).collect();
    let devices: Vec<_> = core::iter::repeat_with(|| formatted(2, &[])).take(33).collect();
    let mut areas = Areas::new();
    for ((device, records), number) in devices.iter().zip(&records).zip(0..) {
        match areas.add(area(device, records), 0) {
            Ok(added) => assert_eq!(added, number),
            Err(back) => assert_eq!((number, back.usage().slots), (MOST_AREAS, 1)),
        }
    }
}
