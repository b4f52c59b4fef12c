//! Every contender does what the rows take for granted.

use super::instructions;
use super::map::{self, Ask, Map, OURS, Span, Visit};
use super::rows::{Act, Regions};
use super::{ROWS, ours, peers};

#[test]
fn help_explains_every_row() {
    let told = include_str!("rows.txt").lines().filter_map(|line| line.split_whitespace().next());
    assert!(told.eq(ROWS));
}

#[test]
fn every_contender_passes_a_turn_of_each_size() {
    struct Turns<'a>(&'a Regions, usize);
    impl Visit for Turns<'_> {
        fn visit<M: Map>(&mut self) {
            self.0.turn::<M>(&mut |act| {
                self.1 += 1;
                act();
            });
        }
    }
    for count in [2, 10, 300] {
        let mut turns = Turns(&Regions::new(count), 0);
        map::all(&mut turns);
        assert_eq!(turns.1, Act::ALL.len() * instructions::names().len());
    }
}

#[test]
fn a_region_in_the_way_is_refused_by_all_but_the_one_that_overwrites() {
    fn refused<M: Map>() -> u64 {
        let span = |start, end| Span { start, end, value: 1 };
        let mut map = M::new();
        map.insert(&[span(0x4000, 0x8000), span(0x7000, 0x9000), span(0x3000, 0x5000)])
    }
    assert_eq!(refused::<ours::Ours>(), 2);
    assert_eq!(refused::<peers::BTree>(), 2);
    assert_eq!(refused::<peers::Nodit>(), 2);
    assert_eq!(refused::<peers::Areas>(), 2);
    assert_eq!(refused::<peers::RangeMap>(), 0);
}

#[test]
fn a_map_that_loses_a_region_is_noticed() {
    struct Loses(peers::BTree);
    impl Map for Loses {
        const NAME: &'static str = "loses";
        const GAPS_ARE_SCANNED: bool = true;
        const REMOVALS_ARE_SCANNED: bool = false;

        fn new() -> Self {
            Self(peers::BTree::new())
        }

        fn insert(&mut self, regions: &[Span]) -> u64 {
            self.0.insert(&regions[1..])
        }

        fn find(&self, addresses: &[u64]) -> u64 {
            self.0.find(addresses)
        }

        fn lowest(&self, asks: &[Ask]) -> u64 {
            self.0.lowest(asks)
        }

        fn highest(&self, asks: &[Ask]) -> Option<u64> {
            self.0.highest(asks)
        }

        fn pair(&mut self, regions: &[Span]) -> u64 {
            self.0.pair(regions)
        }
    }
    let regions = Regions::new(50);
    let turn = std::panic::catch_unwind(|| regions.turn::<Loses>(&mut |act| act()));
    let message = *turn.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("loses finds something else"), "{message}");
}

#[test]
fn ours_is_the_first_contender() {
    let names = instructions::names();
    assert_eq!((names.len(), names[0]), (5, OURS));
    assert!(instructions::child("nobody:10", "1").unwrap_err().contains("`nobody`"));
    assert!(instructions::child("vellum:10", "x").unwrap_err().contains("`x`"));
}
