use super::*;
use proptest::prelude::*;

/// The array as one would write it without a thought of speed: a list per set, oldest first.
struct Naive {
    sets: Vec<Vec<u64>>,
    ways: usize,
}

impl Naive {
    fn new(geometry: Geometry) -> Self {
        let sets = vec![Vec::new(); usize::from(geometry.sets())];
        Self { sets, ways: usize::from(geometry.ways()) }
    }

    fn set(&mut self, number: u64) -> &mut Vec<u64> {
        let count = self.sets.len() as u64;
        &mut self.sets[(number % count) as usize]
    }

    fn touch(&mut self, number: u64, tag: u64) -> bool {
        let set = self.set(number);
        let before = set.len();
        set.retain(|&t| t != tag);
        let hit = set.len() < before;
        if hit {
            set.push(tag);
        }
        hit
    }

    fn insert(&mut self, number: u64, tag: u64) -> Option<u64> {
        let ways = self.ways;
        let set = self.set(number);
        set.push(tag);
        (set.len() > ways).then(|| set.remove(0))
    }
}

#[derive(Clone, Debug)]
enum Op {
    Access(u64),
    RetainModulo(u64),
    RetainSet(u64, u64),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        60 => (1u64..80).prop_map(Op::Access),
        1 => (2u64..5).prop_map(Op::RetainModulo),
        2 => (1u64..80, 2u64..4).prop_map(|(n, m)| Op::RetainSet(n, m)),
        1 => Just(Op::Clear),
    ];
    proptest::collection::vec(op, 1..400)
}

/// Every shape that matters: direct-mapped, odd numbers of sets, ways beside and beyond the
/// eight that are compared at a time, fully associative.
fn geometries() -> impl Strategy<Value = Geometry> {
    prop_oneof![
        Just(Geometry::full(1)),
        Just(Geometry::full(48)),
        (1u16..20, 1u16..20).prop_map(|(sets, ways)| {
            Geometry::new(u32::from(sets) * u32::from(ways), ways).expect("a multiple")
        }),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_list_per_set(geometry in geometries(), ops in ops()) {
        let mut fast = LruSets::new(geometry);
        let mut naive = Naive::new(geometry);
        for op in ops {
            match op {
                Op::Access(n) => {
                    prop_assert_eq!(fast.contains(n, n), naive.set(n).contains(&n));
                    let hit = fast.touch(n, n);
                    prop_assert_eq!(hit, naive.touch(n, n));
                    if !hit {
                        prop_assert_eq!(fast.insert(n, n), naive.insert(n, n));
                    }
                }
                Op::RetainModulo(m) => {
                    fast.retain(|t| t % m != 0);
                    naive.sets.iter_mut().for_each(|s| s.retain(|t| t % m != 0));
                }
                Op::RetainSet(n, m) => {
                    fast.retain_set(n, |t| t % m != 0);
                    naive.set(n).retain(|t| t % m != 0);
                }
                Op::Clear => {
                    fast.clear();
                    naive.sets.iter_mut().for_each(Vec::clear);
                }
            }
            let mut present: Vec<u64> = fast.iter().collect();
            let mut expected: Vec<u64> = naive.sets.iter().flatten().copied().collect();
            present.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(present, expected);
        }
    }
}

#[test]
fn without_entries_nothing_is_kept() {
    let mut none = LruSets::new(Geometry::NONE);
    assert_eq!(none.insert(3, 7), None);
    assert!(!none.touch(3, 7));
    assert!(!none.contains(3, 7));
    none.retain(|_| true);
    none.retain_set(3, |_| true);
    assert_eq!(none.iter().count(), 0);
}

#[test]
fn zero_is_no_tag() {
    let mut sets = LruSets::new(Geometry::full(2));
    sets.insert(0, 5);
    assert_eq!(sets.insert(0, 0), None);
    assert_eq!(sets.iter().collect::<Vec<_>>(), [5]);
}

/// Prints have 16 bits: of so many tags a hundred share theirs with another.
#[test]
fn tags_with_the_same_print_are_told_apart() {
    let mut sets = LruSets::new(Geometry::full(4096));
    assert!((1..=4096).all(|tag| sets.insert(0, tag).is_none()));
    assert!((1..=4096).all(|tag| sets.contains(0, tag)));
    assert!((4097..9000).all(|tag| !sets.contains(0, tag)));
    assert!(sets.touch(0, 1) && sets.touch(0, 2));
    assert_eq!(sets.insert(0, 5000), Some(3), "the oldest that was not touched since");
}

#[test]
fn every_way_of_the_widest_set_is_found() {
    let mut sets = LruSets::new(Geometry::full(u16::MAX));
    for tag in 1..=100 {
        sets.insert(0, tag);
        assert!((1..=tag).all(|tag| sets.contains(0, tag)), "{tag}");
    }
}
