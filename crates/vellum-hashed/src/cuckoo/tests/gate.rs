//! Look-ups that are stopped before each of their reads, while a line moves.
//!
//! ```text
//!   reader    v ... read | ............ | read ... v, once more
//!   mover                | a line moves |
//! ```

use super::*;
use vellum_testkit::pause::at_each_moment;
use vellum_testkit::{Pause, Stopped};

type Table<'a> = Cuckoo<Stopped<'a>>;
type Lock<'t, 'a> = Locked<'t, Stopped<'a>, 3>;

/// Looks the first line up as often as that has accesses, each time in a table that `prepare` has
/// filled and that `change` changes at another of them. What is found is one of `allowed`.
fn interrupt(
    prepare: impl Fn(&Table<'_>),
    change: impl Fn(&Table<'_>, &Lock<'_, '_>) + Sync,
    allowed: &[u64],
) {
    at_each_moment(|moment| {
        let (arena, pause) = (Arena::new(64), Pause::new());
        let table = Cuckoo::new(Stopped(&arena, &pause)).unwrap();
        prepare(&table);
        let look = || get(&table, apart(0));
        let (found, came) = pause.at(moment, look, || change(&table, &table.lock()));
        assert!(allowed.contains(&found), "{found:#x}, changed at {moment:?}");
        came
    });
}

fn spot(table: &Table<'_>, n: u64) -> Spot {
    table.find(&table.sizes[0], Tag::of(apart(n))).unwrap()
}

/// Where a line would be in another way.
fn elsewhere(table: &Table<'_>, n: u64, way: usize) -> Spot {
    table.sizes[0].spot(Tag::of(apart(n)), way).unwrap()
}

#[test]
fn a_look_up_finds_a_line_that_is_kicked_meanwhile() {
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let put = |table: &Table<'_>| {
            set(table, apart(0), RAW).unwrap();
            let (at, wanted) = (spot(table, 0), elsewhere(table, 0, from));
            if at != wanted {
                table.lock().relocate(&table.sizes[0], at, wanted);
            }
        };
        let kick = |table: &Table<'_>, locked: &Lock<'_, '_>| {
            locked.relocate(&table.sizes[0], spot(table, 0), elsewhere(table, 0, to));
        };
        interrupt(put, kick, &[RAW]);
        // There and back: the line is again where the reader has passed by or will come to.
        let twice = |table: &Table<'_>, locked: &Lock<'_, '_>| {
            kick(table, locked);
            locked.relocate(&table.sizes[0], spot(table, 0), elsewhere(table, 0, from));
        };
        interrupt(put, twice, &[RAW]);
    }
}

/// Grows or shrinks every way until it has so many slots.
fn resize(table: &Table<'_>, locked: &Lock<'_, '_>, slots: u64) {
    for way in &table.sizes[0].each {
        way.set_target(slots);
    }
    while table.sizes[0].each.iter().any(|way| way.slots() != slots) {
        locked.step(&table.sizes[0], resize::SLOTS);
    }
}

#[test]
fn a_look_up_finds_a_line_that_migrates_meanwhile() {
    let put = |table: &Table<'_>| {
        set(table, apart(0), RAW).unwrap();
        for way in &table.sizes[0].each {
            let segment = way.missing().unwrap();
            way.install(segment, Way::alloc(&table.memory, segment, false).unwrap());
        }
    };
    let grow = |table: &Table<'_>, locked: &Lock<'_, '_>| {
        resize(table, locked, 2 * FIRST);
    };
    interrupt(put, grow, &[RAW]);
    let grown = |table: &Table<'_>| {
        put(table);
        grow(table, &table.lock());
    };
    interrupt(grown, |table, locked| resize(table, locked, FIRST), &[RAW]);
}

#[test]
fn a_look_up_never_takes_the_entry_of_another_line() {
    // A line that has a slot in common with the first, in the way where that is.
    let other =
        |table: &Table<'_>, at: Spot| (1..).find(|&n| elsewhere(table, n, at.way) == at).unwrap();
    let put = |table: &Table<'_>| _ = set(table, apart(0), RAW).unwrap();
    let exchange = |table: &Table<'_>, locked: &Lock<'_, '_>| {
        let ways = &table.sizes[0];
        let at = spot(table, 0);
        let n = other(table, at);
        // As `update` does both, whose lock is held here.
        {
            let _held = table.hold(Tag::of(apart(0)));
            ways.each[at.way].line(&table.memory, at.slot, |line| line.set_entry(0, 0));
        }
        locked.remove(ways, Tag::of(apart(0)));
        locked.insert(ways, Tag::of(apart(n)), 0, 2 * PAGE_SIZE + 3).unwrap();
        let now = spot(table, n);
        if now != at {
            locked.relocate(ways, now, at);
        }
    };
    interrupt(put, exchange, &[RAW, 0]);
}

/// A line that has lost its last entry stays for a moment, and may be given another under its stripe
/// alone. Whoever scans it by then has to be before that or after it, and not in the middle: so does a
/// large leaf look for pages that it would overlap.
#[test]
fn a_scan_takes_the_stripe_of_each_line_even_of_an_empty_one() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    set(&table, apart(0), RAW).unwrap();
    let tag = Tag::of(apart(0));
    let spot = table.find(&table.sizes[0], tag).unwrap();
    let moves = table.moves();
    table.moves.note(tag);
    for raw in [RAW, 0] {
        table.sizes[0].each[spot.way].line(&table.memory, spot.slot, |l| l.set_entry(0, raw));
        let begun = table.stripes.begin(table.stripe_of(tag));
        assert_eq!(scan(&table).len(), usize::from(raw != 0));
        assert!(!table.stripes.is_current(begun), "it was read without its stripe");
        let begun = table.stripes.begin(table.stripe_of(tag));
        assert!(table.scan_moved(moves, &mut Lowest::new(Keys::all(asid(1)))));
        assert!(!table.stripes.is_current(begun), "it was read without its stripe after a move");
    }
}
