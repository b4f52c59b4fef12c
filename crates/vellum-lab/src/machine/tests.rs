use super::*;
use vellum_core::PhysAddr;
use vellum_tlb::WALK_CACHE_X86;

fn machine(walk_caches: &[WalkCacheSize]) -> Machine {
    Machine::new(&MachineConfig {
        tlb: Preset::REFERENCE,
        walk_caches: walk_caches.to_vec(),
        cache: CachePreset::DEFAULT,
    })
}

fn entry(pa: u64, span: u8) -> Ref {
    Ref { pa: PhysAddr::new(pa), bytes: 8, span, parallel: false }
}

fn walk(machine: &mut Machine, va: u64, refs: &[Ref]) {
    let (va, asid) = (VirtAddr::new(va), Asid::default());
    assert!(!machine.translate(va, asid, Port::Data));
    machine.walked(va, asid, Port::Data, Leaf::PAGE_4K, refs);
    assert!(machine.translate(va, asid, Port::Data));
}

#[test]
fn a_walk_is_charged_after_what_the_walk_caches_skip() {
    let mut machine = machine(WALK_CACHE_X86);
    let tree = [entry(0x1000, 39), entry(0x2000, 30), entry(0x3000, 21), entry(0x4000, 12)];
    walk(&mut machine, 0, &tree);
    assert_eq!(machine.walk_counts().refs.max(), 4);
    assert_eq!(machine.walk_counts().cycles, 4 * 200);
    // The neighbour's PTE is in the line that was just read.
    walk(&mut machine, 0x1000, &[tree[0], tree[1], tree[2], entry(0x4008, 12)]);
    let counts = machine.walk_counts();
    assert_eq!(counts.cycles, 4 * 200 + 14);
    assert_eq!((counts.refs.total(), counts.cache_misses), (2, 4));
    assert!((counts.refs.mean() - 2.5).abs() < 1e-12);
    assert_eq!(machine.tlb_counts().l2_misses, 2);
}

#[test]
fn a_line_counts_once_a_walk_and_every_reference_costs() {
    let mut machine = machine(&[]);
    walk(&mut machine, 0, &[entry(0x1000, 12), entry(0x1008, 12), entry(0x2000, 12)]);
    let counts = machine.walk_counts();
    assert_eq!((counts.refs.max(), counts.lines.max(), counts.cache_misses), (3, 2, 2));
    assert_eq!(counts.cycles, 200 + 14 + 200);
}

#[test]
fn references_in_parallel_cost_the_slowest() {
    let mut machine = machine(&[]);
    let together = |pa| Ref { parallel: true, ..entry(pa, 12) };
    walk(&mut machine, 0, &[entry(0x1000, 12)]);
    walk(&mut machine, 0x1000, &[entry(0x1000, 12), together(0x5000), together(0x1008)]);
    assert_eq!(machine.walk_counts().cycles, 200 + 200);
    walk(&mut machine, 0x2000, &[together(0x1000), together(0x5000), entry(0x5008, 12)]);
    assert_eq!(machine.walk_counts().cycles, 200 + 200 + 14 + 14, "a group may open the walk");
}

#[test]
fn a_reference_that_straddles_waits_for_the_slower_line() {
    let mut machine = machine(&[]);
    walk(&mut machine, 0, &[entry(0x1000, 12)]);
    let node = Ref { bytes: 24, ..entry(0x1030, 12) };
    walk(&mut machine, 0x1000, &[node]);
    let counts = machine.walk_counts();
    assert_eq!((counts.cycles, counts.lines.max(), counts.cache_misses), (400, 2, 2));
}

#[test]
fn long_chains_are_counted_in_full() {
    let mut machine = machine(&[]);
    let chain: Vec<Ref> = (0..50).map(|n| entry(0x1000 + 64 * n, 12)).collect();
    walk(&mut machine, 0, &[&chain[..], &chain[..]].concat());
    let counts = machine.walk_counts();
    assert_eq!((counts.refs.max(), counts.lines.max(), counts.cache_misses), (100, 50, 50));
}

#[test]
fn a_flush_takes_translations_and_interior_entries() {
    let mut machine = machine(WALK_CACHE_X86);
    let tree = [entry(0x1000, 39), entry(0x2000, 30), entry(0x3000, 21), entry(0x4000, 12)];
    walk(&mut machine, 0, &tree);
    machine.flush_non_global();
    walk(&mut machine, 0, &tree);
    assert_eq!(machine.walk_counts().refs.percentile(1), 4, "no reference was skipped");
    assert_eq!(machine.walk_counts().cache_misses, 4, "the data cache is not flushed");
}
