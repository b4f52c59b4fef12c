//! Frame entries, aliases, theory and threads of the inverted table; what every table promises is
//! in `tests/conformance.rs`.

use super::*;
use std::thread;
use std::vec::Vec;
use vellum_core::{
    Attr, Change, Direct, Gone, PageTable, Ref, ReplaceError, Run, Soft, VirtAddr, Walk,
};
use vellum_testkit::pause::at_each_moment;
use vellum_testkit::{Arena, Pause, Stopped};

/// The first of the frames that have entries: they are only named, and not the arena's.
const FIRST: u64 = 0x10_0000;

fn asid(n: u16) -> Asid {
    Asid::new(n).unwrap()
}

fn page(n: u64) -> VirtAddr {
    VirtAddr::new(n << PAGE_SHIFT)
}

fn frame(n: u64) -> PhysAddr {
    Pfn::new(FIRST + n).unwrap().addr()
}

fn leaf(n: u64) -> Entry {
    Entry::Leaf(frame(n), Attr::RW)
}

fn direct() -> Direct<impl FnMut(Gone)> {
    // SAFETY: nothing walks the tables of these tests but `walk`.
    unsafe { Direct::new(|_| {}) }
}

fn table(arena: &Arena, frames: u64) -> Inverted<&Arena> {
    Inverted::new(arena, Pfn::new(FIRST).unwrap(), frames).unwrap()
}

fn map<S: Store>(space: &mut Space<'_, S>, n: u64, to: u64) {
    space.map(Run::new(page(n), frame(to), PAGE_SIZE, Attr::RW), &mut direct()).unwrap();
}

fn unmap<S: Store>(space: &mut Space<'_, S>, n: u64) {
    space.unmap(page(n), PAGE_SIZE, &mut direct()).unwrap();
}

fn replace<M: Memory>(
    space: &Space<'_, Inverted<M>>,
    n: u64,
    expect: Entry,
    new: Entry,
) -> Result<(), ReplaceError> {
    let mut stock = space.stock();
    space.replace_refilling(page(n), PAGE_SIZE, expect, new, &mut stock, &mut direct())
}

fn at<S: Store>(space: &Space<'_, S>, n: u64) -> Entry {
    space.walk(page(n), &mut ()).unwrap().entry
}

/// 1 anchor and 1 + a/2 entries, if no frame is mapped twice.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of look-ups")]
fn references_are_those_of_theory() {
    let (frames, mapped) = (1 << 15, 1 << 14);
    let arena = Arena::new(1024);
    let table = table(&arena, frames);
    assert_eq!(table.count_anchors(), frames);
    let mut space = table.space(asid(1)).unwrap();
    (0..mapped).for_each(|n| map(&mut space, n * 3, n));
    let mut refs = 0;
    for n in 0..mapped {
        space.walk(page(n * 3), &mut |_: Ref| refs += 1).unwrap();
    }
    let mean = f64::from(refs) / mapped as f64;
    // a = 1/2. Three standard deviations of the mean are .012.
    assert!((mean - 2.25).abs() < 0.012, "{mean}");
    assert_eq!(table.count_aliases(), 0);
}

#[test]
fn mapping_a_frame_for_the_first_time_takes_no_memory() {
    let arena = Arena::new(8);
    let table = table(&arena, 100);
    assert_eq!((table.count_anchors(), arena.frames_in_use()), (128, 3));
    assert_eq!(table.table_bytes(), 3 * PAGE_SIZE);
    arena.limit_allocations(Some(0));
    let mut space = table.space(asid(1)).unwrap();
    let all = Run::new(page(50), frame(0), 100 * PAGE_SIZE, Attr::RW);
    space.map(all, &mut direct()).unwrap();
    assert_eq!((table.count_entries(), table.count_aliases()), (100, 0));
    let mut read = Vec::new();
    space.walk(page(60), &mut |r: Ref| read.push(r)).unwrap();
    let hit = read.last().unwrap();
    assert_eq!((hit.pa, hit.bytes), (table.frames.at.wrapping_add(10 * ENTRY_BYTES), 24));
    space.unmap(all.va, all.len, &mut direct()).unwrap();
    space.map(all, &mut direct()).unwrap();
    assert_eq!(table.count_aliases(), 0, "entries were not given back");
}

#[test]
fn a_shared_page_costs_a_node_and_gives_it_back() {
    let arena = Arena::new(16);
    let table = table(&arena, 64);
    let mut parent = table.space(asid(1)).unwrap();
    let mut child = table.space(asid(2)).unwrap();
    let run = Run::new(page(0), frame(8), 20 * PAGE_SIZE, Attr::RW);
    parent.map(run, &mut direct()).unwrap();
    let cow = Change::clearing(Attr::WRITE);
    let to = (&mut child, &mut direct());
    parent.share(run.va, run.len, cow, &mut direct(), to, &mut |_| {}).unwrap();
    assert_eq!((table.count_entries(), table.count_aliases()), (40, 20));
    for n in 0..20 {
        let shared = Entry::Leaf(frame(8 + n), Attr::READ);
        assert_eq!((at(&parent, n), at(&child, n)), (shared, shared));
    }
    parent.retire(&mut direct());
    assert_eq!((table.count_entries(), table.count_aliases()), (20, 20));
    child.retire(&mut direct());
    assert_eq!((table.count_entries(), table.count_aliases()), (0, 0));
    assert_eq!((table.pool.count_frames(), arena.frames_in_use()), (1, 4));
    // SAFETY: nobody else is here.
    unsafe { table.reclaim() };
    assert_eq!((table.pool.count_frames(), arena.frames_in_use()), (0, 3));
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn an_entry_whose_owner_went_is_free_and_an_alias_moves_in_when_it_changes() {
    let arena = Arena::new(16);
    let table = table(&arena, 64);
    let mut space = table.space(asid(1)).unwrap();
    map(&mut space, 0, 5);
    map(&mut space, 1, 5);
    map(&mut space, 2, 5);
    assert_eq!(table.count_aliases(), 2);
    unmap(&mut space, 0);
    assert_eq!(table.count_aliases(), 2, "the owner was no alias");
    // Nothing changes by this, so nothing moves.
    space.touch(page(1), Attr::RW, Attr::NONE);
    assert_eq!(table.count_aliases(), 2);
    space.touch(page(1), Attr::RW, Attr::ACCESSED);
    assert_eq!(table.count_aliases(), 1);
    map(&mut space, 3, 5);
    assert_eq!(table.count_aliases(), 2);
    let accessed = Entry::Leaf(frame(5), Attr::RW | Attr::ACCESSED);
    assert_eq!([1, 2, 3].map(|n| at(&space, n)), [accessed, leaf(5), leaf(5)]);
}

#[test]
fn another_frame_means_another_entry() {
    let arena = Arena::new(16);
    let table = table(&arena, 64);
    let mut space = table.space(asid(1)).unwrap();
    arena.limit_allocations(Some(0));
    map(&mut space, 0, 5);
    assert_eq!(replace(&space, 0, leaf(5), leaf(6)), Ok(()), "from entry to entry");
    map(&mut space, 1, 5);
    arena.limit_allocations(None);
    assert_eq!(replace(&space, 1, leaf(5), leaf(6)), Ok(()), "from entry to node");
    assert_eq!(table.count_aliases(), 1);
    assert_eq!(replace(&space, 1, leaf(6), leaf(7)), Ok(()), "from node to entry");
    assert_eq!(table.count_aliases(), 0);
    map(&mut space, 2, 7);
    map(&mut space, 3, 6);
    assert_eq!(table.count_aliases(), 2);
    assert_eq!(replace(&space, 2, leaf(7), leaf(6)), Ok(()), "from node to the same node");
    assert_eq!(table.count_aliases(), 2);
    let now = [0, 1, 2, 3].map(|n| at(&space, n));
    assert_eq!(now, [leaf(6), leaf(7), leaf(6), leaf(6)]);
    assert_eq!(table.count_entries(), 4);
}

#[test]
fn what_has_no_frame_here_needs_a_node() {
    let arena = Arena::new(16);
    let table = table(&arena, 64);
    let space = table.space(asid(1)).unwrap();
    let device = Entry::Leaf(PhysAddr::new(0xfee0_0000), Attr::RW);
    let below = Entry::Leaf(Pfn::new(FIRST - 1).unwrap().addr(), Attr::RW);
    let soft = Entry::Soft(Soft::new(frame(3).as_u64() >> 2).unwrap());
    for new in [device, below, leaf(64), soft] {
        let mut stock = space.stock();
        let lacking =
            space.replace(page(1), PAGE_SIZE, Entry::Hole, new, &mut stock, &mut direct());
        assert!(matches!(lacking, Err(ReplaceError::Need(_))), "{new:?}");
        assert_eq!(replace(&space, 1, Entry::Hole, new), Ok(()));
        assert_eq!((at(&space, 1), table.count_aliases()), (new, 1));
        assert_eq!(replace(&space, 1, new, Entry::Hole), Ok(()));
        assert_eq!((table.count_entries(), table.count_aliases()), (0, 0));
    }
}

#[test]
fn a_want_of_a_node_changes_nothing() {
    let arena = Arena::new(16);
    let table = table(&arena, 64);
    let mut space = table.space(asid(1)).unwrap();
    map(&mut space, 0, 5);
    let soft = Entry::Soft(Soft::new(77).unwrap());
    let mut stock = space.stock();
    let swapped_out = space.replace(page(0), PAGE_SIZE, leaf(5), soft, &mut stock, &mut direct());
    assert!(matches!(swapped_out, Err(ReplaceError::Need(_))));
    assert_eq!((at(&space, 0), table.count_entries(), table.count_aliases()), (leaf(5), 1, 0));
    space.refill(&mut stock, Need::new(1)).unwrap();
    let swapped_out = space.replace(page(0), PAGE_SIZE, leaf(5), soft, &mut stock, &mut direct());
    assert_eq!((swapped_out, at(&space, 0), table.count_aliases()), (Ok(()), soft, 1));
    arena.limit_allocations(Some(0));
    assert_eq!(replace(&space, 0, soft, leaf(5)), Ok(()), "swapping in takes no memory");
    assert_eq!(table.count_aliases(), 0);
}

#[test]
fn a_frame_whose_entry_would_be_at_address_zero_makes_do_with_a_node() {
    let arena = Arena::at(PhysAddr::new(0), 16);
    let table = table(&arena, 64);
    assert_eq!(table.frames.at, PhysAddr::new(0));
    let mut space = table.space(asid(1)).unwrap();
    (0..4).for_each(|n| map(&mut space, n, n));
    assert_eq!(table.count_aliases(), 1);
    assert_eq!([0, 1, 2, 3].map(|n| at(&space, n)), [leaf(0), leaf(1), leaf(2), leaf(3)]);
}

#[test]
fn a_table_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(8);
    for allocations in 0..3 {
        arena.limit_allocations(Some(allocations));
        assert!(Inverted::new(&arena, Pfn::new(0).unwrap(), 64).is_err());
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(None);
    for frames in [1 << 40, 1 << 59, 1 << 62, 1 << 63, u64::MAX] {
        assert!(Inverted::new(&arena, Pfn::new(0).unwrap(), frames).is_err(), "{frames:#x}");
        assert_eq!(arena.frames_in_use(), 0);
    }
    let empty = Inverted::new(&arena, Pfn::new(0).unwrap(), 0).unwrap();
    assert_eq!(empty.count_anchors(), 1);
}

#[test]
fn spaces_contend_for_frames_and_chains() {
    let (threads, rounds, frames) = if cfg!(miri) { (2, 6, 4) } else { (4, 2000, 16) };
    let arena = Arena::new(256);
    // Fewer anchors than pages, so that chains are long and threads meet in them.
    let table = table(&arena, frames);
    thread::scope(|scope| {
        for me in 0..threads {
            let table = &table;
            scope.spawn(move || {
                let space = table.space(asid(me)).unwrap();
                for round in 0..rounds {
                    let (n, other) = (round % frames, (round + u64::from(me)) % frames);
                    assert_eq!(replace(&space, n, Entry::Hole, leaf(other)), Ok(()));
                    assert_eq!(at(&space, n), leaf(other));
                    assert_eq!(replace(&space, n, leaf(other), leaf(n)), Ok(()));
                    let soft = Entry::Soft(Soft::new(round + 1).unwrap());
                    assert_eq!(replace(&space, n, leaf(n), soft), Ok(()));
                    assert_eq!(replace(&space, n, soft, Entry::Hole), Ok(()));
                }
                space.retire(&mut direct());
            });
        }
    });
    assert_eq!((table.count_entries(), table.count_aliases()), (0, 0));
    // Every entry was given back: all frames can be mapped without a node.
    let mut space = table.space(asid(9)).unwrap();
    space.map(Run::new(page(0), frame(0), frames * PAGE_SIZE, Attr::RW), &mut direct()).unwrap();
    assert_eq!(table.count_aliases(), 0);
}

/// Pages of different chains take turns with the entries of few frames, while others look them up: a
/// page that stays is never missed, and nobody is given what another page has.
#[test]
fn look_ups_beside_changes_see_their_own_page() {
    let rounds = if cfg!(miri) { 12 } else { 100_000 };
    let (frames, pages) = (4, 12);
    let arena = Arena::new(64);
    let table = table(&arena, frames);
    // Of the pages of a frame each has rights of its own.
    let of = |n: u64| {
        let attr = [Attr::RW, Attr::READ, Attr::RX][(n / frames % 3) as usize];
        Entry::Leaf(frame(n % frames), attr)
    };
    let space = table.space(asid(1)).unwrap();
    let stays = 0;
    assert_eq!(replace(&space, stays, Entry::Hole, of(stays)), Ok(()));
    let done = core::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let (space, done) = (&space, &done);
        scope.spawn(move || {
            for round in 0..rounds {
                // Each comes at every other turn, so that entries of frames change hands.
                let n = 1 + round * 5 % (pages - 1);
                let now = at(space, n);
                let then = if now == Entry::Hole { of(n) } else { Entry::Hole };
                assert_eq!(replace(space, n, now, then), Ok(()));
            }
            done.store(true, Ordering::Relaxed);
        });
        for reader in 0..2 {
            scope.spawn(move || {
                let mut n = reader;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(at(space, stays), of(stays), "the page that stays");
                    let found = at(space, n);
                    assert!([Entry::Hole, of(n)].contains(&found), "{found:?} of page {n}");
                    n = (n + 1) % pages;
                }
            });
        }
    });
    space.retire(&mut direct());
}

/// The raw entry of a page that maps a frame: that of no other page.
fn raw(n: u64, to: u64) -> u64 {
    let attr = [Attr::RW, Attr::READ, Attr::RX, Attr::RW | Attr::USER][(n % 4) as usize];
    pte::encode(Entry::Leaf(frame(to), attr), PAGE_SHIFT).unwrap()
}

fn key(n: u64) -> Key {
    Key::new(asid(1), page(n))
}

/// Sets the raw entry of a page; nodes that this leaves go into the stock.
fn put<'t, M: Memory>(table: &'t Inverted<M>, n: u64, raw: u64, stock: &mut Nodes<'t, M>) {
    while let Err(refused) = table.update(key(n), stock, |_| Ok::<_, ()>(raw)) {
        let Refused::Need(need) = refused else { panic!("{refused:?}") };
        table.refill(stock, need).unwrap();
    }
}

/// Pages of the chains of two anchors, of four: three of the one, of which the last is the first of its
/// chain, and one of the other.
fn two_chains() -> ([u64; 3], u64) {
    let of = |anchor| (0..).filter(move |&n| n % 4 != 3 && key(n).hash() % 4 == anchor);
    let mut pages = [0, 1, 2].map(|rights| of(0).find(|n| n % 4 == rights).unwrap());
    pages.sort_unstable();
    let mut others = (0..).filter(|&n| n % 4 == 3 && key(n).hash() % 4 == 1);
    (pages, others.next().unwrap())
}

/// What becomes of the element of a page, while it or another page of its chain is looked up.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The page goes, and another one maps its frame.
    Goes,
    /// The page goes, and what held it is free: a node is in its pool, with a number where its link was.
    GoesForGood,
    /// The page maps another frame, and another page the first one.
    Leaves,
}

/// Looks a page up at each moment of such a change; frame `of[i]` is that of page i.
fn while_an_element_changes_hands(looked: usize, changed: usize, of: [u64; 3], fate: Fate) {
    let (pages, other) = two_chains();
    let n = pages[looked];
    let then = match fate {
        Fate::Goes | Fate::GoesForGood => 0,
        Fate::Leaves => raw(pages[changed], 3),
    };
    at_each_moment(|moment| {
        let (arena, pause) = (Arena::new(16), Pause::new());
        let memory = Stopped(&arena, &pause);
        let table = Inverted::new(memory, Pfn::new(FIRST).unwrap(), 4).unwrap();
        let mut stock = table.stock();
        for (n, to) in pages.into_iter().zip(of) {
            put(&table, n, raw(n, to), &mut stock);
        }
        drop(stock);
        let (found, came) = pause.at(
            moment,
            || table.walk(key(n), &mut ()),
            || {
                let mut stock = table.stock();
                put(&table, pages[changed], then, &mut stock);
                if !matches!(fate, Fate::GoesForGood) {
                    // It takes the frame's entry, or the node that the stock was given.
                    put(&table, other, raw(other, of[changed]), &mut stock);
                    assert_eq!(stock.count(), 0, "the element is not used again");
                }
            },
        );
        let was = raw(n, of[looked]);
        assert!(
            found == was || looked == changed && found == then,
            "{found:#x} of page {looked}, not {was:#x}, when {changed} {fate:?} at {moment:?}"
        );
        came
    });
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of tables; threads under Miri are above")]
fn a_look_up_is_right_whenever_an_element_changes_hands() {
    for (looked, changed) in (0..3).flat_map(|looked| [(looked, 0), (looked, 1), (looked, 2)]) {
        for fate in [Fate::Goes, Fate::Leaves] {
            // Each in its frame's entry.
            while_an_element_changes_hands(looked, changed, [0, 1, 2], fate);
        }
        // The second and the third in nodes, so that the first is the owner.
        for fate in [Fate::Goes, Fate::GoesForGood] {
            while_an_element_changes_hands(looked, changed, [0, 0, 0], fate);
        }
    }
}
