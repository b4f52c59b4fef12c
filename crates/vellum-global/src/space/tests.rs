//! What is particular to a space of a global table; what every table promises is tested where the
//! designs are.

use super::*;
use crate::{Asids, Lowest, Refused};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::vec::Vec;
use vellum_core::{Batch, Direct, Flush, Gone, Invalidate, PhysAddr};

mod large;

/// Four maps, each behind a lock; counts what is asked of it.
#[derive(Default)]
struct Maps {
    stripes: [Mutex<BTreeMap<Key, u64>>; 4],
    asids: Asids,
    walks: AtomicU64,
    scans: AtomicU64,
    /// Every few calls give the processor to another thread, between any two steps of an operation.
    restless: bool,
    calls: AtomicU64,
    /// [`ARMED`]: the next update stays between its work and its return, as one that is interrupted.
    linger: AtomicU64,
}

const ARMED: u64 = 1;
const LINGERING: u64 = 2;

impl Maps {
    fn stripe(&self, key: Key) -> &Mutex<BTreeMap<Key, u64>> {
        &self.stripes[(key.hash() & 3) as usize]
    }

    fn rest(&self) {
        if self.restless && self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(5) {
            std::thread::yield_now();
        }
    }

    fn calls(&self) -> (u64, u64) {
        (self.walks.swap(0, Ordering::Relaxed), self.scans.swap(0, Ordering::Relaxed))
    }
}

impl Store for Maps {
    type Stock<'t> = ();

    const LEAVES: u64 = Size::ALL_LEAVES;

    fn stock(&self) {}

    fn refill(&self, (): &mut (), _: Need) -> Result<(), OutOfFrames> {
        Ok(())
    }

    fn walk<S: Sink>(&self, key: Key, _: &mut S) -> u64 {
        self.walks.fetch_add(1, Ordering::Relaxed);
        let raw = self.stripe(key).lock().unwrap().get(&key).copied().unwrap_or(0);
        self.rest();
        raw
    }

    fn update<E>(
        &self,
        key: Key,
        (): &mut (),
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        self.rest();
        let mut map = self.stripe(key).lock().unwrap();
        let old = map.get(&key).copied().unwrap_or(0);
        match f(old).map_err(Refused::By)? {
            0 => map.remove(&key),
            new => map.insert(key, new),
        };
        drop(map);
        let (held, free) = (Ordering::AcqRel, Ordering::Relaxed);
        if self.linger.compare_exchange(ARMED, LINGERING, held, free).is_ok() {
            while self.linger.load(Ordering::Acquire) == LINGERING {
                std::thread::yield_now();
            }
        }
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        4
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        self.scans.fetch_add(1, Ordering::Relaxed);
        for (&key, &raw) in self.stripes[stripe as usize].lock().unwrap().iter() {
            found.offer(key, raw);
        }
    }

    fn count_entries(&self) -> u64 {
        self.stripes.iter().map(|map| map.lock().unwrap().len() as u64).sum()
    }

    fn table_bytes(&self) -> u64 {
        0
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

const RAM: PhysAddr = PhysAddr::new(0x10_0000);

fn asid(n: u16) -> Asid {
    Asid::new(n).unwrap()
}

fn page(n: u64) -> VirtAddr {
    VirtAddr::new(n * PAGE_SIZE)
}

fn direct(sink: impl FnMut(Gone)) -> Direct<impl FnMut(Gone)> {
    // SAFETY: nothing walks these tables.
    unsafe { Direct::new(sink) }
}

fn map_pages(space: &mut Space<'_, Maps>, pages: &[u64], attr: Attr) {
    for &n in pages {
        let frame = RAM.wrapping_add(n % 0x1_0000_0000 * PAGE_SIZE);
        let run = Run::new(page(n), frame, PAGE_SIZE, attr);
        space.map(run, &mut direct(|_| {})).unwrap();
    }
}

fn visited(space: &Space<'_, Maps>, first: u64, pages: u64) -> Vec<u64> {
    let mut told = Vec::new();
    space
        .visit(page(first), pages * PAGE_SIZE, &mut |span| {
            let first = span.va.number().as_u64();
            told.extend(first..first + span.len / PAGE_SIZE);
            ControlFlow::Continue(())
        })
        .unwrap();
    told
}

/// Whose identifier must not be free while translations are being flushed.
struct Tlb<'a>(&'a Maps, Asid);

// SAFETY: nothing here caches a translation.
unsafe impl Invalidate for Tlb<'_> {
    fn flush(&self, _: &[Flush]) {
        assert!(self.0.asids.claim(self.1).is_err(), "released before the flush");
    }
}

#[test]
fn an_identifier_is_free_only_after_the_flush() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(3)).unwrap();
    map_pages(&mut space, &[1, 2, 9], Attr::RW);
    assert!(matches!(Space::open(&maps, asid(3)), Err(AsidError::Taken(_))));
    let mut gone = 0;
    let sink = |item| match item {
        Gone::Run(run) => gone += run.len / PAGE_SIZE,
        other => panic!("{other:?}"),
    };
    // SAFETY: nothing caches translations of the space.
    let mut gather: Batch<_, _, Infallible, 8> = unsafe { Batch::new(Tlb(&maps, asid(3)), sink) };
    space.retire(&mut gather);
    gather.finish();
    assert!(Space::open(&maps, asid(3)).is_ok());
    assert_eq!((gone, maps.count_entries()), (3, 0));
}

#[test]
fn a_handle_that_is_dropped_keeps_its_identifier() {
    let maps = Maps::default();
    {
        let mut space = Space::open(&maps, asid(3)).unwrap();
        map_pages(&mut space, &[1], Attr::RW);
    }
    assert!(Space::open(&maps, asid(3)).is_err(), "its pages are still there");
}

#[test]
fn retiring_takes_no_other_space_along() {
    let maps = Maps::default();
    let spaces = [0, 1, 2].map(|n| {
        let mut space = Space::open(&maps, asid(n)).unwrap();
        map_pages(&mut space, &[0, 7, (1 << 44) - 1], Attr::RW);
        space
    });
    let [first, middle, last] = spaces;
    let mut gone = 0;
    middle.retire(&mut direct(|_| gone += 1));
    assert_eq!((gone, first.count_entries(), last.count_entries()), (3, 3, 3));
    assert_eq!(visited(&first, 0, 1 << 44), [0, 7, (1 << 44) - 1]);
    assert_eq!(visited(&last, 0, 1 << 44), [0, 7, (1 << 44) - 1]);
}

#[test]
fn a_misfit_far_up_leaves_an_exact_prefix() {
    // Many times, as the stripe in which the lowest misfit lies may happen to be the first.
    for lowest in 70_000..70_016 {
        let maps = Maps::default();
        let mut space = Space::open(&maps, asid(1)).unwrap();
        map_pages(&mut space, &[10, 5000, 90_000], Attr::READ);
        map_pages(&mut space, &[lowest, 80_000, 80_001, 80_002, 80_003], Attr::NONE);
        let (change, len) = (Change::setting(Attr::WRITE), 100_000 * PAGE_SIZE);
        let result = space.protect(page(0), len, change, &mut direct(|_| {}));
        let done = lowest * PAGE_SIZE;
        assert_eq!(result, Err(RangeError { cause: Cause::Unencodable(Attr::WRITE), done }));
        let rights = |n| match space.walk(page(n), &mut ()).unwrap().entry {
            Entry::Leaf(_, attr) => attr,
            other => panic!("{other:?}"),
        };
        assert_eq!([10, 5000, 90_000].map(rights), [Attr::RW, Attr::RW, Attr::READ]);
    }
}

#[test]
fn an_empty_space_costs_nothing_to_go_through() {
    let maps = Maps::default();
    let mut full = Space::open(&maps, asid(1)).unwrap();
    map_pages(&mut full, &(0..50).collect::<Vec<_>>(), Attr::RW);
    let mut empty = Space::open(&maps, asid(2)).unwrap();
    let _ = maps.calls();
    empty.unmap(page(0), PAGE_SIZE << 30, &mut direct(|_| {})).unwrap();
    assert_eq!(visited(&empty, 0, 1 << 30), []);
    empty.retire(&mut direct(|_| {}));
    assert_eq!(maps.calls(), (0, 0));
}

#[test]
fn a_visit_looks_up_where_pages_are_dense_and_passes_where_they_are_not() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    // Many pages in a row, far above the start of the range.
    let count: u64 = if cfg!(miri) { 130 } else { 4000 };
    let dense: Vec<_> = (1_000_000..1_000_000 + count).collect();
    map_pages(&mut space, &dense, Attr::RW);
    let _ = maps.calls();
    assert_eq!(visited(&space, 0, 1 << 40), dense);
    let (walks, scans) = maps.calls();
    // One pass to find them; look-ups of two stretches as long as the table, the second of which
    // finds too little; one pass that finds nothing more. Four scans are a pass.
    assert_eq!((scans, walks), (8, 2 * (count + 1)));
    let sparse: Vec<_> = (0..count).map(|n| (2_000_000 + n) << 20).collect();
    let mut other = Space::open(&maps, asid(2)).unwrap();
    map_pages(&mut other, &sparse, Attr::RW);
    let _ = maps.calls();
    assert_eq!(visited(&other, 0, 1 << 44), sparse);
    let (walks, scans) = maps.calls();
    assert_eq!((walks, scans), (0, 4 * count.div_ceil(Lowest::ROOM as u64)));
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(128))]

    #[test]
    fn a_visit_tells_of_every_page_in_order(
        clusters in prop::collection::vec(
            (0..1u64 << 22, 1..if cfg!(miri) { 20 } else { 90u64 }, 1..30u64),
            1..if cfg!(miri) { 3 } else { 8 },
        ),
        first in 0..1u64 << 22,
        pages in 1..1u64 << 22,
    ) {
        let maps = Maps::default();
        let mut space = Space::open(&maps, asid(1)).unwrap();
        let mut model = std::collections::BTreeSet::new();
        for (start, count, step) in clusters {
            model.extend((0..count).map(|n| start + n * step));
        }
        map_pages(&mut space, &model.iter().copied().collect::<Vec<_>>(), Attr::RW);
        let expected: Vec<_> = model.range(first..first + pages).copied().collect();
        prop_assert_eq!(visited(&space, first, pages), expected);
        prop_assert_eq!(space.count_entries(), model.len() as u64);
        let mut gone = 0;
        space.unmap(page(first), pages * PAGE_SIZE, &mut direct(|_| gone += 1)).unwrap();
        model.retain(|n| !(first..first + pages).contains(n));
        prop_assert_eq!(visited(&space, 0, 1 << 24), model.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(space.count_entries(), model.len() as u64);
    }
}

/// Puts a frame at page `n`, or nothing.
fn put(space: &Space<'_, Maps>, n: u64, expect: Entry, new: Entry) {
    let (mut stock, mut gather) = (space.stock(), direct(|_| {}));
    space.replace(page(n), PAGE_SIZE, expect, new, &mut stock, &mut gather).unwrap();
}

#[test]
fn a_page_is_visited_while_another_install_is_interrupted() {
    let maps = Maps::default();
    let space = Space::open(&maps, asid(1)).unwrap();
    let leaf = Entry::Leaf(RAM, Attr::RW);
    maps.linger.store(ARMED, Ordering::Release);
    std::thread::scope(|scope| {
        scope.spawn(|| put(&space, 1, Entry::Hole, leaf));
        while maps.linger.load(Ordering::Acquire) != LINGERING {
            std::thread::yield_now();
        }
        put(&space, 2, Entry::Hole, leaf);
        put(&space, 1, leaf, Entry::Hole);
        let seen = visited(&space, 0, 1 << 30);
        maps.linger.store(0, Ordering::Release);
        assert_eq!(seen, [2], "mapped throughout");
    });
    assert_eq!(space.count_entries(), 1);
    space.retire(&mut direct(|_| {}));
}
