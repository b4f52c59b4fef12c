//! What tests of several designs begin with.

use std::vec::Vec;
use vellum_core::{
    Attr, Direct, Gone, PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, Ref, Run, VirtAddr, Walk,
};
use vellum_global::{Asid, Key, Lowest, Space, Store};

mod stale;

pub(crate) use stale::{Stale, Written};

/// A frame that is only named.
pub(crate) const RAM: PhysAddr = PhysAddr::new(0x1_0000_0000);

/// The number of the last page, without the bits that extend its sign.
pub(crate) const LAST_PAGE: u64 = (1 << 45) - 1;

pub(crate) fn asid(n: u16) -> Asid {
    Asid::new(n).unwrap()
}

pub(crate) fn page(n: u64) -> VirtAddr {
    VirtAddr::new(n << PAGE_SHIFT)
}

/// The key of page `n` in space 1.
pub(crate) fn key(n: u64) -> Key {
    Key::new(asid(1), page(n))
}

/// A raw leaf in a frame of that number.
pub(crate) const fn leaf(frame: u64) -> u64 {
    frame << PAGE_SHIFT | 3
}

pub(crate) fn direct() -> Direct<impl FnMut(Gone)> {
    // SAFETY: nothing walks the tables of these tests but `walk`.
    unsafe { Direct::new(|_| {}) }
}

/// Maps page `n` somewhere.
pub(crate) fn map<S: Store>(space: &mut Space<'_, S>, n: u64) {
    space.map(Run::new(page(n), RAM, PAGE_SIZE, Attr::RW), &mut direct()).unwrap();
}

/// Replaces the raw entry of page `n` of space 1, refilling as often as needed; the old one.
pub(crate) fn exchange<'t, S: Store>(
    table: &'t S,
    n: u64,
    raw: u64,
    stock: &mut S::Stock<'t>,
) -> u64 {
    loop {
        match table.update(key(n), stock, |_| Ok::<u64, ()>(raw)) {
            Ok(old) => return old,
            Err(vellum_global::Refused::Need(need)) => table.refill(stock, need).unwrap(),
            Err(vellum_global::Refused::By(())) => unreachable!(),
        }
    }
}

/// The references of a walk to page `n`.
pub(crate) fn refs<S: Store>(table: &S, n: u64) -> Vec<Ref> {
    let mut refs = Vec::new();
    table.walk(key(n), &mut |r: Ref| refs.push(r));
    refs
}

/// The references of a walk in a space.
pub(crate) fn count_refs<S: Store>(space: &Space<'_, S>, n: u64) -> u64 {
    let mut refs = 0;
    space.walk(page(n), &mut |_: Ref| refs += 1).unwrap();
    refs
}

/// Every page of space 1, by a scan of all stripes.
pub(crate) fn scanned<S: Store>(table: &S) -> Vec<u64> {
    let mut pages = Vec::new();
    let mut stripe = 0;
    while stripe < table.count_stripes() {
        let mut rest = Some(vellum_global::Keys::all(asid(1)));
        while let Some(keys) = rest {
            let mut found = Lowest::new(keys);
            table.scan(stripe, &mut found);
            pages.extend(found.held().iter().map(|(key, _)| key.tag() & LAST_PAGE));
            rest = found.rest();
        }
        stripe += 1;
    }
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// Frames of an arena for that.
pub(crate) const FRAMES: usize = 256;

/// Looks page `n` up in a fresh table while that is changed: once for every moment of the look-up. What
/// is found is one of `known`.
///
/// `table` makes the table; `change` changes it.
macro_rules! whatever_comes_between {
    ($n:expr, $known:expr, |$memory:ident| $table:expr, |$shared:ident| $change:expr) => {
        vellum_testkit::pause::at_each_moment(|moment| {
            let arena = vellum_testkit::Arena::new($crate::testing::FRAMES);
            let pause = vellum_testkit::Pause::new();
            let $memory = vellum_testkit::Stopped(&arena, &pause);
            let table = $table;
            let ($shared, n) = (&table, $n);
            let (raw, came) = pause.at(moment, || table.walk(key(n), &mut ()), || $change);
            assert!($known.contains(&raw), "{raw:#x} of page {n}, changed at {moment:?}");
            came
        });
    };
}
pub(crate) use whatever_comes_between;
