//! Tables that grow and shrink, with memory and without.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of pages")]
fn the_table_grows_with_its_entries_and_loses_none() {
    let arena = Arena::new(1024);
    let table = Htab::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let pages = 4 * room(LEAST);
    for n in 0..pages {
        map(&mut space, n * 77);
        let entries = n + 1;
        // Growth begins at half of the slots, and is through long before the next is due.
        assert!(entries <= table.count_groups() * 5 + 8, "{table:?}");
        assert!(table.origin().is_some() || entries > table.count_groups() * 4);
    }
    assert_eq!(table.count_groups(), 4 * GROUPS);
    assert!((0..pages).all(|n| space.translate(page(n * 77)).is_some()));
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    check(&table);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn growth_takes_a_bounded_step_for_a_few_entries() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    fill(&table, 0..room(LEAST) + 1);
    assert_eq!(table.state(), (LEAST, 0));
    let mut stock = table.stock();
    for n in 0..100 {
        exchange(&table, room(LEAST) + 1 + n, leaf(1), &mut stock);
        let moved = u64::from(STEPS_AT_MOST) * (1 + n / u64::from(CREDIT));
        assert_eq!(table.state(), (LEAST, moved));
    }
}

const STEPS_AT_MOST: u32 = 4;

#[test]
#[cfg_attr(miri, ignore = "thousands of pages")]
fn without_memory_chains_get_longer_and_nothing_fails() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let mut stock = table.stock();
    fill(&table, 0..room(LEAST));
    arena.limit_allocations(Some(0));
    for n in 0..100 {
        exchange(&table, room(LEAST) + n, leaf(1), &mut stock);
    }
    assert_eq!(table.state(), (LEAST, 0));
    arena.limit_allocations(None);
    exchange(&table, room(LEAST) + 100, leaf(1), &mut stock);
    assert_eq!(table.state(), (LEAST, 0), "not at every entry");
    for n in 101..GROUPS / 4 + 10 {
        exchange(&table, room(LEAST) + n, leaf(1), &mut stock);
    }
    assert!(table.state().1 > 0, "{table:?}");
    check(&table);
}

#[test]
fn a_table_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(FRAMES);
    for granted in 0..3 {
        arena.limit_allocations(Some(granted));
        assert!(Htab::new(&arena).is_err());
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(Some(3));
    assert!(Htab::new(&arena).is_ok());
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn half_a_table_is_no_table() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let before = arena.frames_in_use();
    arena.limit_allocations(Some(1));
    assert!(table.add_table(LEAST + 1, false).is_err());
    assert_eq!((arena.frames_in_use(), table.has(LEAST + 1)), (before, false));
}

#[test]
#[cfg_attr(miri, ignore = "a thousand pairs")]
fn replaced_tables_stay_until_nobody_can_look_there() {
    let arena = Arena::new(512);
    let table = Htab::new(&arena).unwrap();
    fill(&table, [1, 2, 3]);
    let old = 64 + 2 + table.pool.count_frames();
    for _ in 0..GROUPS / 2 {
        assert_eq!(table.origin().is_some(), table.state().1 == 0);
        step(&table);
    }
    assert_eq!(table.origin().unwrap().1, 19);
    let before = arena.frames_in_use();
    // SAFETY: nobody is here.
    unsafe { table.reclaim() };
    assert_eq!(before - arena.frames_in_use(), old);
    assert_eq!(scanned(&table), [1, 2, 3]);
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
}

#[test]
#[cfg_attr(miri, ignore = "a thousand pairs")]
fn shrinking_to_a_size_that_it_had_leaks_nothing() {
    let arena = Arena::new(512);
    let mut table = Htab::new(&arena).unwrap();
    fill(&table, [1, 2, 3]);
    (0..GROUPS / 2).for_each(|_| step(&table));
    assert_eq!(table.count_groups(), 2 * GROUPS);
    table.shrink();
    assert_eq!((table.count_groups(), scanned(&table)), (GROUPS, std::vec![1, 2, 3]));
    assert_eq!(arena.frames_in_use(), 67);
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "passes over large tables")]
fn shrinking_keeps_what_is_left() {
    let left = 6000;
    let arena = Arena::new(2048);
    let mut table = Htab::with_capacity(&arena, room(LEAST + 3)).unwrap();
    // In the middle of growth, and with chains.
    fill(&table, 0..left);
    let crowded: Vec<_> = pages_of(7).filter(|&n| n >= left).take(40).collect();
    fill(&table, crowded.iter().copied());
    (0..5).for_each(|_| step(&table));
    let all = scanned(&table);
    assert_eq!(all.len() as u64, left + 40);
    table.shrink();
    assert_eq!(table.count_groups(), GROUPS);
    assert_eq!(scanned(&table), all);
    for n in all {
        assert_eq!(table.walk(key(n), &mut ()), leaf(n & 0xffff), "page {n}");
    }
    check(&table);
    assert!(table.count_overflow() >= 24, "all of those are of one pair again");
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    assert_eq!(arena.frames_in_use(), 67 + table.pool.count_frames());
}

#[test]
#[cfg_attr(miri, ignore = "passes over large tables")]
fn shrinking_without_memory_changes_nothing() {
    for granted in 0..3 {
        let arena = Arena::new(1024);
        let mut table = Htab::with_capacity(&arena, room(LEAST + 1)).unwrap();
        // Only the smaller table has chains, of more nodes than a frame has.
        let crowded: Vec<_> = (0..64).flat_map(|g| pages_of(g).take(30)).collect();
        fill(&table, crowded.iter().copied());
        let before = (arena.frames_in_use(), table.census());
        arena.limit_allocations(Some(granted));
        table.shrink();
        assert_eq!((table.count_groups(), table.census()), (2 * GROUPS, before.1));
        assert!(arena.frames_in_use() <= before.0);
        check(&table);
        arena.limit_allocations(None);
        table.shrink();
        assert_eq!((table.count_groups(), table.count_entries()), (GROUPS, 64 * 30));
        check(&table);
    }
}
