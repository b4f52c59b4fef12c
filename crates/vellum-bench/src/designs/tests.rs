//! Every contender does what the rows take for granted.

use super::instructions::{self, Counted};
use super::map::{self, Map, Page, Visit, YARDSTICK, entry, is_ours};
use super::rows::{Order, Pages};
use super::{ROWS, lines};
use vellum_core::{Attr, Entry, PAGE_SHIFT, pte};

/// As few as a build without optimisation does at once.
const FEW: usize = 1 << 10;

#[test]
fn help_explains_every_row() {
    let told = include_str!("rows.txt").lines().filter_map(|line| line.split_whitespace().next());
    assert!(told.eq(ROWS));
}

#[test]
fn an_entry_is_a_leaf_with_a_frame_of_its_own() {
    let leaf = |n| match pte::decode(entry(n), PAGE_SHIFT) {
        Entry::Leaf(pa, attr) if attr.contains(Attr::RW) => Some(pa.as_u64()),
        _ => None,
    };
    assert_eq!(leaf(7).zip(leaf(0)).map(|(a, b)| a - b), Some(7 << 12));
}

#[test]
fn every_contender_passes_a_turn_of_each_kind() {
    struct Turns<'a>(&'a Pages, usize);
    impl Visit for Turns<'_> {
        fn visit<M: Map>(&mut self) {
            self.0.turn::<M>(&mut |act| {
                self.1 += 1;
                act();
            });
        }
    }
    for order in Order::ALL {
        let pages = Pages::new(order, FEW);
        let mut turns = Turns(&pages, 0);
        map::all(&mut turns);
        assert_eq!(turns.1, 4 * instructions::names().len());
    }
}

#[test]
#[should_panic = "failed with 1024 pages"]
fn a_map_that_loses_a_page_is_noticed() {
    struct Forgets(Vec<(Page, u64)>);
    impl Map for Forgets {
        const NAME: &'static str = "forgets";

        fn new(_: usize) -> Self {
            Self(Vec::new())
        }

        fn insert(&mut self, pages: &[Page]) -> u64 {
            self.0.extend(pages.iter().copied().zip((0..).map(entry)));
            let _ = self.0.remove(5);
            pages.len() as u64
        }

        fn look_up(&self, pages: &[Page]) -> u64 {
            let find = |page: &Page| self.0.iter().find(|(key, _)| key == page);
            pages.iter().filter_map(find).map(|(_, raw)| raw).fold(0, |a, b| a.wrapping_add(*b))
        }

        fn delete(&mut self, pages: &[Page]) -> u64 {
            let sum = self.look_up(pages);
            self.0.clear();
            sum
        }

        fn lines(&self, _: &[Page]) -> Option<u64> {
            None
        }
    }
    Pages::new(Order::Consecutive, FEW).turn::<Forgets>(&mut |act| act());
}

#[test]
fn ours_are_told_from_peers_by_name() {
    let (ours, peers): (Vec<_>, Vec<_>) =
        instructions::names().into_iter().partition(|name| is_ours(name));
    assert_eq!((ours.len(), peers.len(), peers[0]), (8, 3, YARDSTICK));
}

#[test]
fn only_tables_have_walkers_and_each_reads_a_line_at_least() {
    let lines = lines::all(&Pages::new(Order::Random, FEW));
    assert!(lines.iter().map(|(name, _)| *name).eq(instructions::names().into_iter().skip(3)));
    for (name, [hit, miss]) in lines {
        assert!((1.0..8.0).contains(&hit) && (1.0..20.0).contains(&miss), "{name} {hit} {miss}");
    }
}

#[test]
fn what_is_counted_is_found_by_its_word() {
    for (order, name) in Order::ALL.into_iter().zip(instructions::names()) {
        let counted = Counted { order, name };
        assert_eq!(Counted::parse(&counted.word()), Some(counted));
    }
    assert!(instructions::child("random:nobody", "1").unwrap_err().contains("`random:nobody`"));
    assert!(instructions::child("random:chained", "x").unwrap_err().contains("`x`"));
}
