//! Each fit on memory that is known by heart; `model` has the sequences that are not.
//!
//! ```text
//!   comb   .....P.........P...P.......P      holes of 5, 9, 3 and 7 bytes, partitions of 1
//!          0    5 6       15  19      27
//! ```

mod model;

use super::{
    BaseLimit, Compaction, Fit, FitError, LimitFault, Partition, PartitionError, Partitions,
    Record, TableError, records_for,
};
use proptest::prelude::*;
use std::vec::Vec;
use vellum_core::{PhysAddr, VirtAddr};

const BASE: u64 = 0x4_0000;
const GRANULE: u64 = 16;
const UNITS: usize = 96;

fn table(fit: Fit, records: &mut [Record]) -> Partitions<'_> {
    let len = UNITS as u64 * GRANULE;
    Partitions::new(PhysAddr::new(BASE), len, GRANULE, fit, records).unwrap()
}

/// A table of single bytes from 0 on.
fn bytes(fit: Fit, len: u64, records: &mut [Record]) -> Partitions<'_> {
    Partitions::new(PhysAddr::new(0), len, 1, fit, records).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn translation_stays_within_the_limit(base in 0..1u64 << 60, limit in 1..1u64 << 60, va: u64) {
        let registers = BaseLimit::new(base, limit);
        for va in [va, va % limit, limit - 1, limit] {
            let expected = if va < limit {
                Ok(PhysAddr::new(base + va))
            } else {
                Err(LimitFault { va: VirtAddr::new(va), limit })
            };
            prop_assert_eq!(registers.translate(VirtAddr::new(va)), expected);
        }
    }
}

/// The comb above: the table, and its partitions with those that are holes now.
fn comb(fit: Fit, records: &mut [Record]) -> (Partitions<'_>, Vec<Partition>) {
    let mut table = bytes(fit, 28, records);
    let parts: Vec<Partition> =
        [5, 1, 9, 1, 3, 1, 7, 1].into_iter().map(|len| table.alloc(len).unwrap()).collect();
    for &hole in parts.iter().step_by(2) {
        table.free(hole).unwrap();
    }
    (table, parts)
}

#[test]
fn each_fit_takes_the_hole_that_gives_it_its_name() {
    for (fit, places) in [
        (Fit::First, [0, 6, 9]),
        (Fit::Next, [0, 6, 9]),
        (Fit::Best, [16, 0, 20]),
        (Fit::Worst, [6, 20, 9]),
    ] {
        let mut records = [Record::EMPTY; 20];
        let (mut table, _) = comb(fit, &mut records);
        for place in places {
            let partition = table.alloc(3).unwrap();
            assert_eq!(table.get(partition).unwrap().base(), PhysAddr::new(place), "{fit:?}");
        }
    }
}

#[test]
fn next_fit_goes_on_where_first_fit_begins_anew() {
    let place = |fit| {
        let mut records = [Record::EMPTY; 20];
        let (mut table, _) = comb(fit, &mut records);
        table.alloc(8).unwrap();
        let partition = table.alloc(2).unwrap();
        table.get(partition).unwrap().base().as_u64()
    };
    assert_eq!((place(Fit::First), place(Fit::Next)), (0, 16));
}

#[test]
fn room_is_made_where_least_is_in_the_way() {
    let mut records = [Record::EMPTY; 20];
    let mut table = bytes(Fit::First, 40, &mut records);
    let parts: Vec<Partition> =
        [4, 9, 4, 2, 4, 17].into_iter().map(|len| table.alloc(len).unwrap()).collect();
    for hole in [0, 2, 4] {
        table.free(parts[hole]).unwrap();
    }
    let mut moved = Vec::new();
    let done = table.make_room(8, |m| moved.push((m.partition, m.from, m.to))).unwrap();
    assert_eq!((done.moves, done.bytes), (1, 2));
    assert_eq!(moved, [(parts[3], PhysAddr::new(17), PhysAddr::new(13))]);
    assert_eq!(table.stats().largest, 8);
    assert_eq!(table.make_room(12, |_| ()).unwrap().bytes, 9 + 2, "all holes are needed");
}

#[test]
fn of_two_places_that_are_as_cheap_the_lower_is_made_room_in() {
    let mut records = [Record::EMPTY; 20];
    let mut table = bytes(Fit::First, 18, &mut records);
    let parts: Vec<Partition> =
        [4, 2, 4, 2, 4, 2].into_iter().map(|len| table.alloc(len).unwrap()).collect();
    for hole in [0, 2, 4] {
        table.free(parts[hole]).unwrap();
    }
    let done = table.make_room(8, |m| assert_eq!(m.partition, parts[1])).unwrap();
    assert_eq!((done.moves, done.bytes), (1, 2));
}

#[test]
fn an_allocation_that_lacks_a_record_does_not_move_next_fit_on() {
    let mut records = [Record::EMPTY; 7];
    let mut table = bytes(Fit::Next, 28, &mut records);
    // Holes of 5, 9, 10 and 1 between partitions of 1, and the last was allocated from last.
    let parts: Vec<Partition> =
        [5, 1, 9, 1, 10, 1].into_iter().map(|len| table.alloc(len).unwrap()).collect();
    for hole in [0, 2, 4] {
        table.free(parts[hole]).unwrap();
    }
    assert_eq!(table.blocks().count(), 7, "every record is in use");
    assert_eq!(table.alloc(8), Err(FitError::NoRecord { records: 7 }), "from 9 bytes at 6");
    let exact = table.alloc(1).unwrap();
    assert_eq!(table.get(exact).unwrap().base(), PhysAddr::new(27), "it goes on from the top");
}

#[test]
fn free_memory_in_pieces_is_told_from_too_little() {
    let mut records = [Record::EMPTY; 20];
    let (mut table, _) = comb(Fit::First, &mut records);
    let pieces = table.alloc(10).unwrap_err();
    assert_eq!(pieces, FitError::NoHole { wanted: 10, free: 24, largest: 9 });
    assert!(pieces.is_fragmentation());
    assert_eq!(table.stats().fragmentation_permille(), 625);
    assert!(table.alloc(24).unwrap_err().is_fragmentation(), "all that is free");
    let much = table.alloc(25).unwrap_err();
    assert!(!much.is_fragmentation(), "{much}");
    assert_eq!(table.compact(|_| ()).bytes, 4);
    assert_eq!(table.stats().fragmentation_permille(), 0);
    assert!(table.alloc(24).is_ok());
    assert_eq!(table.stats().fragmentation_permille(), 0, "nothing is free");
}

#[test]
fn sizes_near_the_largest_number_are_refused_and_not_wrapped() {
    let mut records = [Record::EMPTY; 3];
    let mut table = table(Fit::Best, &mut records);
    for wanted in [u64::MAX, u64::MAX - GRANULE, 1 << 63] {
        let (free, largest) = (UNITS as u64 * GRANULE, UNITS as u64 * GRANULE);
        assert_eq!(table.alloc(wanted), Err(FitError::NoHole { wanted, free, largest }));
        let room = table.make_room(wanted, |_| ());
        assert_eq!(room, Err(FitError::NoHole { wanted, free, largest }));
    }
    assert_eq!(table.alloc(0), Err(FitError::ZeroSize));
    let all = table.alloc(UNITS as u64 * GRANULE - GRANULE + 1).unwrap();
    assert_eq!(table.get(all).unwrap().limit(), UNITS as u64 * GRANULE, "rounded up");
}

#[test]
fn a_table_reaches_the_last_address() {
    let mut records = [Record::EMPTY; 5];
    let base = PhysAddr::new(u64::MAX - 99);
    let mut table = Partitions::new(base, 100, 1, Fit::First, &mut records).unwrap();
    let parts = [30, 30, 40].map(|len| table.alloc(len).unwrap());
    assert_eq!(
        table.get(parts[2]).unwrap().translate(VirtAddr::new(39)),
        Ok(PhysAddr::new(u64::MAX))
    );
    table.free(parts[0]).unwrap();
    assert_eq!(table.compact(|_| ()).bytes, 70);
    assert_eq!(table.stats().largest, 30);
}

#[test]
fn a_table_that_cannot_be_is_refused() {
    let new = |base, len, granule, records: &mut [Record]| {
        Partitions::new(PhysAddr::new(base), len, granule, Fit::First, records).map(|_| ())
    };
    let one = &mut [Record::EMPTY];
    assert_eq!(new(0, 100, 1, &mut []), Err(TableError::NoRecords));
    for granule_bytes in [0, 3, 48] {
        let error = Err(TableError::Granule { granule_bytes });
        assert_eq!(new(0, 100, granule_bytes, one), error);
    }
    let base = PhysAddr::new(u64::MAX - 9);
    assert_eq!(new(u64::MAX - 9, 11, 1, one), Err(TableError::Range { base, len_bytes: 11 }));
    assert_eq!(new(u64::MAX - 9, 10, 1, one), Ok(()));
}

#[test]
fn a_memory_without_a_whole_granule_has_no_hole() {
    let mut records = [Record::EMPTY; 2];
    let base = PhysAddr::new(0);
    let mut table = Partitions::new(base, 15, 16, Fit::Next, &mut records).unwrap();
    assert_eq!(table.blocks().count(), 0);
    let error = FitError::NoHole { wanted: 1, free: 0, largest: 0 };
    assert_eq!(table.alloc(1), Err(error));
    assert_eq!(table.compact(|_| ()), Compaction::default());
}

#[test]
fn handles_of_a_table_before_or_of_another_are_refused() {
    let mut records = [Record::EMPTY; 4];
    let mut first = bytes(Fit::First, 10, &mut records);
    let old = first.alloc(1).unwrap();
    let mut second = bytes(Fit::First, 10, &mut records);
    assert_eq!(second.free(old), Err(PartitionError::Freed));
    let new = second.alloc(1).unwrap();
    assert_eq!(second.free(old), Err(PartitionError::Freed));
    assert_ne!(old, new);

    let mut others = [Record::EMPTY; 9];
    let mut other = bytes(Fit::First, 10, &mut others);
    let foreign = [(); 5].map(|()| other.alloc(1).unwrap())[4];
    assert_eq!(second.free(foreign), Err(PartitionError::Unknown), "beyond its records");
    assert_eq!(other.get(new), Err(PartitionError::Unknown), "a life that is yet to come");
    assert_eq!(second.stats().partitions, 1);
}

#[test]
fn records_for_is_enough_for_as_many_partitions() {
    const MOST: usize = 10;
    let mut records = [Record::EMPTY; records_for(MOST)];
    let mut table = bytes(Fit::First, 1000, &mut records);
    // Holes below, between and above ten partitions: one more could be the first to lack a record.
    let parts: Vec<Partition> = (0..MOST).map(|_| table.alloc(10).unwrap()).collect();
    for &hole in parts.iter().step_by(2) {
        table.free(hole).unwrap();
    }
    for _ in 0..MOST / 2 {
        table.alloc(11).unwrap();
    }
    assert_eq!(table.stats().partitions, MOST as u64);
}
