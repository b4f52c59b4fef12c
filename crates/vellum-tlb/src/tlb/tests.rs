use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const A: Asid = Asid::new(1).expect("not the global mark");
const B: Asid = Asid::new(2).expect("not the global mark");

fn tiny() -> Preset {
    Preset {
        name: "tiny",
        l1d: Geometry::new(4, 2).unwrap(),
        l1i: Geometry::full(3),
        l2: Geometry::new(12, 4).unwrap(),
        note: "",
    }
}

fn page(n: u64) -> VirtAddr {
    VirtAddr::new(n << 12)
}

fn access(tlb: &mut Tlb, va: VirtAddr, asid: Asid, port: Port, leaf: Leaf) -> Lookup {
    let found = tlb.lookup(va, asid, port);
    if found == Lookup::Miss {
        tlb.fill(va, asid, port, leaf);
    }
    found
}

/// An entry as one would write it down: size, number in that size, owner (`None`: everybody).
#[derive(Clone, Copy, Debug, PartialEq)]
struct NaiveEntry {
    shift: u8,
    number: u64,
    owner: Option<u16>,
}

impl NaiveEntry {
    fn serves(self, va: u64, asid: u16) -> bool {
        va >> self.shift == self.number && self.owner.is_none_or(|owner| owner == asid)
    }
}

/// Sets as lists, most recent first, and look-ups that ask every entry.
struct NaiveArray {
    sets: Vec<Vec<NaiveEntry>>,
    ways: usize,
}

impl NaiveArray {
    fn new(g: Geometry) -> Self {
        Self { sets: vec![Vec::new(); usize::from(g.sets())], ways: usize::from(g.ways()) }
    }

    fn find(&mut self, va: u64, asid: u16) -> Option<NaiveEntry> {
        for set in &mut self.sets {
            if let Some(i) = set.iter().position(|e| e.serves(va, asid)) {
                let entry = set.remove(i);
                set.insert(0, entry);
                return Some(entry);
            }
        }
        None
    }

    fn insert(&mut self, e: NaiveEntry) {
        let count = self.sets.len() as u64;
        let set = &mut self.sets[(e.number % count) as usize];
        set.insert(0, e);
        set.truncate(self.ways);
    }

    fn retain(&mut self, keep: impl Fn(&NaiveEntry) -> bool) {
        self.sets.iter_mut().for_each(|set| set.retain(&keep));
    }
}

struct NaiveTlb {
    first: [NaiveArray; 2],
    second: NaiveArray,
}

impl NaiveTlb {
    fn new(p: &Preset) -> Self {
        let first = [NaiveArray::new(p.l1d), NaiveArray::new(p.l1i)];
        Self { first, second: NaiveArray::new(p.l2) }
    }

    fn access(&mut self, va: u64, asid: u16, port: usize, e: NaiveEntry) -> Lookup {
        if self.first[port].find(va, asid).is_some() {
            return Lookup::First;
        }
        if let Some(found) = self.second.find(va, asid) {
            self.first[port].insert(found);
            return Lookup::Second;
        }
        self.second.insert(e);
        self.first[port].insert(e);
        Lookup::Miss
    }

    fn retain(&mut self, keep: impl Fn(&NaiveEntry) -> bool) {
        self.first.iter_mut().for_each(|array| array.retain(&keep));
        self.second.retain(keep);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Access { va: u64, asid: u16, fetch: bool },
    FlushAll,
    FlushNonGlobal,
    FlushAsid(u16),
    FlushPage { va: u64, asid: u16 },
}

/// Addresses of three 1 GiB regions: small pages in the first, 2 MiB in the second, one large leaf
/// in the third. Pages below 16 of the first region are global.
fn leaf_at(va: u64) -> (Leaf, u8) {
    match va >> 30 {
        0 => (Leaf { shift: 12, global: va >> 12 < 16 }, 12),
        1 => (Leaf { shift: 25, global: false }, 21),
        _ => (Leaf { shift: 39, global: true }, 30),
    }
}

fn addresses() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u64..40).prop_map(|n| n << 12 | 5),
        2 => (0u64..20).prop_map(|n| 1 << 30 | n << 20),
        1 => (0u64..4).prop_map(|n| 2 << 30 | n << 28),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        80 => (addresses(), 1u16..4, any::<bool>())
            .prop_map(|(va, asid, fetch)| Op::Access { va, asid, fetch }),
        1 => Just(Op::FlushAll),
        1 => Just(Op::FlushNonGlobal),
        2 => (1u16..4).prop_map(Op::FlushAsid),
        6 => (addresses(), 1u16..4).prop_map(|(va, asid)| Op::FlushPage { va, asid }),
    ];
    proptest::collection::vec(op, 1..500)
}

fn presets() -> impl Strategy<Value = Preset> {
    prop_oneof![Just(tiny()), proptest::sample::select(Preset::ALL)]
}

proptest! {
    #[test]
    fn behaves_as_lists_of_entries(preset in presets(), ops in ops()) {
        let mut tlb = Tlb::new(&preset);
        let mut naive = NaiveTlb::new(&preset);
        for op in ops {
            match op {
                Op::Access { va, asid, fetch } => {
                    let (leaf, shift) = leaf_at(va);
                    let owner = (!leaf.global).then_some(asid);
                    let entry = NaiveEntry { shift, number: va >> shift, owner };
                    let port = if fetch { Port::Fetch } else { Port::Data };
                    let expected = naive.access(va, asid, usize::from(fetch), entry);
                    let id = Asid::new(asid).unwrap();
                    let found = access(&mut tlb, VirtAddr::new(va), id, port, leaf);
                    prop_assert_eq!(found, expected);
                }
                Op::FlushAll => {
                    tlb.flush_all();
                    naive.retain(|_| false);
                }
                Op::FlushNonGlobal => {
                    tlb.flush_non_global();
                    naive.retain(|e| e.owner.is_none());
                }
                Op::FlushAsid(asid) => {
                    tlb.flush_asid(Asid::new(asid).unwrap());
                    naive.retain(|e| e.owner != Some(asid));
                }
                Op::FlushPage { va, asid } => {
                    tlb.flush_page(VirtAddr::new(va), Asid::new(asid).unwrap());
                    naive.retain(|e| !e.serves(va, asid));
                }
            }
        }
    }
}

#[test]
fn a_second_level_hit_does_not_count_as_a_walk() {
    let mut tlb = Tlb::new(&tiny());
    for n in 0..6 {
        access(&mut tlb, page(n), A, Port::Data, Leaf::PAGE_4K);
    }
    assert_eq!(tlb.lookup(page(0), A, Port::Data), Lookup::Second);
    assert_eq!(tlb.lookup(page(0), A, Port::Data), Lookup::First);
    assert_eq!(tlb.counts(), TlbCounts { l1d_misses: 7, l1i_misses: 0, l2_misses: 6 });
    tlb.reset_counts();
    assert_eq!(tlb.counts(), TlbCounts::default());
    assert_eq!(tlb.lookup(page(0), A, Port::Data), Lookup::First, "what is cached stays");
}

#[test]
fn the_second_level_may_forget_what_a_first_level_keeps() {
    let mut tlb = Tlb::new(&tiny());
    access(&mut tlb, page(0), A, Port::Fetch, Leaf::PAGE_4K);
    // Pages of the same second-level set (3 sets) push page 0 out there.
    for n in 1..=4 {
        access(&mut tlb, page(3 * n), A, Port::Data, Leaf::PAGE_4K);
    }
    assert_eq!(tlb.lookup(page(0), A, Port::Fetch), Lookup::First);
    assert_eq!(tlb.lookup(page(0), A, Port::Data), Lookup::Miss);
}

#[test]
fn address_spaces_do_not_see_each_other_but_for_global_pages() {
    let mut tlb = Tlb::new(Preset::by_name("skylake").unwrap());
    let global = Leaf { shift: 12, global: true };
    tlb.fill(page(1), A, Port::Data, Leaf::PAGE_4K);
    tlb.fill(page(2), A, Port::Data, global);
    assert_eq!(tlb.lookup(page(1), B, Port::Data), Lookup::Miss);
    assert_eq!(tlb.lookup(page(2), B, Port::Data), Lookup::First);
    tlb.flush_asid(A);
    assert_eq!(tlb.lookup(page(1), A, Port::Data), Lookup::Miss);
    assert_eq!(tlb.lookup(page(2), A, Port::Data), Lookup::First);
    tlb.flush_page(page(2), B);
    assert_eq!(tlb.lookup(page(2), A, Port::Data), Lookup::Miss);
}

#[test]
fn addresses_too_wide_for_a_tag_are_never_cached_nor_mistaken() {
    let mut tlb = Tlb::new(&tiny());
    let wide = VirtAddr::new(1 << 60 | 0x5000);
    tlb.fill(page(5), A, Port::Data, Leaf::PAGE_4K);
    assert_eq!(access(&mut tlb, wide, A, Port::Data, Leaf::PAGE_4K), Lookup::Miss);
    assert_eq!(tlb.lookup(wide, A, Port::Data), Lookup::Miss);
    tlb.flush_page(wide, A);
    assert_eq!(tlb.lookup(page(5), A, Port::Data), Lookup::First);
    let top = VirtAddr::new(0xffff_ffff_ffff_f000);
    assert_eq!(access(&mut tlb, top, A, Port::Data, Leaf::PAGE_4K), Lookup::Miss);
    assert_eq!(tlb.lookup(top, A, Port::Data), Lookup::First);
}

#[test]
fn the_last_identifier_is_not_an_address_space() {
    assert_eq!(Asid::new(u16::MAX), None);
    assert_eq!(Asid::new(u16::MAX - 1).map(Asid::as_u16), Some(u16::MAX - 1));
}

/// splitmix64 (Steele, Lea, Flood, OOPSLA 2014): a generator without the short cycles that would
/// spoil the uniform distribution.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Theory: under uniform random accesses to N pages, E entries hit E/N of them.
#[test]
fn uniform_random_accesses_hit_in_proportion() {
    let preset = Preset { l1d: Geometry::full(1), ..*Preset::by_name("skylake").unwrap() };
    let (pages, accesses) = (32_768, 2_000_000u64);
    let mut tlb = Tlb::new(&preset);
    let mut seed = 1;
    for _ in 0..100_000 {
        access(&mut tlb, page(splitmix64(&mut seed) % pages), A, Port::Data, Leaf::PAGE_4K);
    }
    tlb.reset_counts();
    for _ in 0..accesses {
        access(&mut tlb, page(splitmix64(&mut seed) % pages), A, Port::Data, Leaf::PAGE_4K);
    }
    let hit_rate = 1.0 - tlb.counts().l2_misses as f64 / accesses as f64;
    let theory = 1536.0 / pages as f64;
    // Standard deviation: sqrt(.0469 * .9531 / 2e6) = .00015.
    assert!((hit_rate - theory).abs() < 0.0006, "{hit_rate} against {theory}");
}

/// Theory: sweeping over one page more than fits, again and again, LRU never hits.
#[test]
fn a_cyclic_sweep_larger_than_the_tlb_never_hits() {
    let preset = *Preset::by_name("skylake").unwrap();
    let sweep = |pages: u64| {
        let mut tlb = Tlb::new(&preset);
        for _ in 0..5 {
            tlb.reset_counts();
            for n in 0..pages {
                access(&mut tlb, page(n), A, Port::Data, Leaf::PAGE_4K);
            }
        }
        tlb.counts().l2_misses
    };
    assert_eq!(sweep(1536), 0, "what fits stays");
    assert_eq!(sweep(1536 + 128), 1536 + 128, "one page too many for each set: nothing hits");
    // One page too many for one of the 128 sets: its 13 pages miss, the others hit.
    assert_eq!(sweep(1537), 13);
}

/// Hits among the accesses behind the first `warm` ones if what leaves is what will be used last of all
/// (Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal
/// 5(2), 1966): the most that any replacement can have.
fn best_hits(accesses: &[u64], entries: usize, warm: usize) -> usize {
    let mut held: Vec<u64> = Vec::new();
    let mut hits = 0;
    for (now, page) in accesses.iter().enumerate() {
        if held.contains(page) {
            hits += usize::from(now >= warm);
            continue;
        }
        if held.len() == entries {
            let next = |page: &u64| accesses[now..].iter().position(|later| later == page);
            let last = (0..entries).max_by_key(|&i| next(&held[i]).unwrap_or(usize::MAX)).unwrap();
            held.swap_remove(last);
        }
        held.push(*page);
    }
    hits
}

/// Theory: in a sweep over N pages, again and again, E entries hit none of them by LRU, and (E-1)/(N-1)
/// of them at best.
#[test]
#[cfg_attr(miri, ignore = "a model that looks ahead at every access")]
fn in_a_cyclic_sweep_the_best_replacement_hits_and_lru_does_not() {
    for (entries, pages) in [(8u16, 9u64), (8, 20), (16, 40), (32, 48)] {
        let accesses: Vec<u64> = (0..40 * pages).map(|n| n % pages).collect();
        let warm = 2 * pages as usize;
        let counted = (accesses.len() - warm) as f64;
        let best = best_hits(&accesses, usize::from(entries), warm) as f64 / counted;
        let theory = f64::from(entries - 1) / (pages - 1) as f64;
        assert!((best - theory).abs() < 0.01, "{best} against {theory}, {entries} of {pages}");
        let size = Geometry::full(entries);
        let mut tlb = Tlb::new(&Preset { l1d: size, l1i: size, l2: size, ..tiny() });
        let mut hit =
            |&n: &u64| access(&mut tlb, page(n), A, Port::Data, Leaf::PAGE_4K) != Lookup::Miss;
        assert!(!accesses.iter().any(&mut hit), "{entries} of {pages}");
    }
}
