use super::*;
use std::vec::Vec;
use vellum_core::order_bytes;
use vellum_testkit::Arena;

/// Buckets of the first segment, where heads are of one word.
const FIRST: u64 = Directory::<&Arena>::FIRST;

fn segments_hold_heads_of<const WORDS: u64>() {
    type Of<'a, const WORDS: u64> = Directory<&'a Arena, WORDS>;
    let mut next = 0;
    for segment in Of::<WORDS>::FIRST_SEGMENT..=Of::<WORDS>::LAST_SEGMENT {
        let (first, order) = Of::<WORDS>::extent(segment);
        let heads = order_bytes(order) / (WORDS * WORD);
        assert_eq!((first, first % heads), (next, 0), "segment {segment}");
        next += heads;
        assert_eq!([first, next - 1].map(Of::<WORDS>::segment), [segment; 2]);
    }
    assert_eq!(next, 2 * MOST);
    let arena = Arena::new(64);
    let directory = Directory::<_, WORDS>::new(&arena, 1000).unwrap();
    let heads: Vec<_> = (0..directory.count()).map(|bucket| directory.head(bucket)).collect();
    let mut sorted = heads.clone();
    sorted.sort();
    assert!(sorted.windows(2).all(|pair| pair[1].as_u64() - pair[0].as_u64() >= WORDS * WORD));
    assert!(heads.iter().all(|&at| arena.is_in_use(at)));
    assert_eq!(heads[1].as_u64() - heads[0].as_u64(), WORDS * WORD);
}

#[test]
fn segments_hold_every_bucket_once() {
    segments_hold_heads_of::<1>();
    segments_hold_heads_of::<4>();
}

#[test]
fn a_bucket_that_splits_goes_to_itself_and_the_new_one() {
    let (buckets, step) = if cfg!(miri) { (20, 977) } else { (200, 7) };
    for n in 1..buckets {
        for hash in (0..100_000).step_by(step) {
            let (before, after) = (bucket_of(hash, n), bucket_of(hash, n + 1));
            assert!(before < n && (after == before || after == n));
            assert!(after != n || before == parent(n), "moved from a whole bucket");
        }
    }
}

#[test]
fn a_bucket_has_the_low_bits_of_its_hashes() {
    for n in (FIRST..20 * FIRST).step_by(if cfg!(miri) { 977 } else { 13 }) {
        for hash in (0..1 << 20).step_by(if cfg!(miri) { 49_999 } else { 4999 }) {
            assert_eq!(bucket_of(hash, n) % FIRST, hash % FIRST);
        }
    }
}

/// Calls `grow`, and returns the buckets that it added.
fn grow(directory: &Directory<&Arena>, items: u64, steps: u64) -> Vec<u64> {
    let mut added = Vec::new();
    directory.grow(&AtomicU64::new(items), steps, |n| {
        added.push(n);
        directory.publish(n);
    });
    added
}

#[test]
fn growth_is_as_far_as_is_due_and_allowed() {
    let arena = Arena::new(8);
    let directory = Directory::<_>::new(&arena, 0).unwrap();
    assert_eq!(grow(&directory, FIRST, 9), []);
    assert_eq!(grow(&directory, FIRST + 4, 9), (FIRST..FIRST + 4).collect::<Vec<_>>());
    assert_eq!(grow(&directory, FIRST + 9, 2), [FIRST + 4, FIRST + 5]);
    assert_eq!((directory.count(), arena.frames_in_use()), (FIRST + 6, 2));
    assert_eq!(directory.table_bytes(), 2 * PAGE_SIZE);
}

#[test]
fn growth_is_tried_again_when_memory_may_be_back() {
    let arena = Arena::new(8);
    let directory = Directory::<_>::new(&arena, 0).unwrap();
    arena.limit_allocations(Some(0));
    assert_eq!(grow(&directory, FIRST + 1, 1), []);
    arena.limit_allocations(None);
    assert_eq!(grow(&directory, FIRST + 2, 1), [], "not at every item");
    assert_eq!(grow(&directory, FIRST + 1 + FIRST / 16, 1), [FIRST]);
}

#[test]
fn one_grows_at_a_time() {
    let arena = Arena::new(8);
    let directory = Directory::<_>::new(&arena, 0).unwrap();
    directory.grow(&AtomicU64::new(FIRST + 9), 1, |n| {
        assert_eq!(grow(&directory, FIRST + 9, 1), [], "while bucket {n} is added");
        directory.publish(n);
    });
    assert_eq!(directory.count(), FIRST + 1);
}

#[test]
fn shrinking_joins_from_the_last_and_frees() {
    let arena = Arena::new(16);
    let mut directory = Directory::<_>::new(&arena, 4 * FIRST).unwrap();
    assert_eq!(arena.frames_in_use(), 4);
    let joined = core::cell::RefCell::new(Vec::new());
    directory.shrink(FIRST + 1, |directory, last| {
        assert_eq!(directory.count(), last + 1);
        joined.borrow_mut().push(last);
        true
    });
    assert!(joined.take().into_iter().eq((2 * FIRST..4 * FIRST).rev()));
    assert_eq!((directory.count(), arena.frames_in_use()), (2 * FIRST, 2));
    directory.shrink(0, |_, last| last != FIRST + 5);
    assert_eq!((directory.count(), arena.frames_in_use()), (FIRST + 6, 2), "a bucket that stays");
    assert_eq!(grow(&directory, FIRST + 7, 9), [FIRST + 6]);
    directory.shrink(1 << 20, |_, last| panic!("{last} is needed"));
    assert_eq!(directory.count(), FIRST + 7);
}

#[test]
fn one_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(64);
    for granted in 0..4 {
        arena.limit_allocations(Some(granted));
        assert!(Directory::<_>::new(&arena, 4096).is_err());
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(None);
    assert_eq!(Directory::<_>::new(&arena, 4096).unwrap().count(), 4096);
    assert_eq!(arena.frames_in_use(), 0);
}
