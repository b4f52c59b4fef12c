//! What theory says about the designs, and what an independent simulator counted.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use vellum_core::Vpn;
use vellum_lab::cache::CachePreset;
use vellum_lab::designs;
use vellum_lab::embedded::EMBEDDED;
use vellum_lab::machine::MachineConfig;
use vellum_lab::replay::Job;
use vellum_lab::report::Run;
use vellum_lab::trace::{Event, Kind, Trace};
use vellum_tlb::{Preset, WALK_CACHE_X86, WalkCacheSize};

fn machine(walk_caches: &[WalkCacheSize]) -> MachineConfig {
    MachineConfig {
        tlb: Preset::REFERENCE,
        walk_caches: walk_caches.to_vec(),
        cache: CachePreset::DEFAULT,
    }
}

fn run(design: &str, trace: Trace, machine: &MachineConfig) -> Run {
    let traces = &[trace];
    let job =
        Job { traces, machine, quantum: usize::MAX, asids: true, promote: None, progress: &|_| {} };
    designs::by_name(design).unwrap().run(&job).unwrap().run
}

fn reads(pages: impl IntoIterator<Item = u64>) -> Trace {
    let event = |n| Event::new(Vpn::new(n).unwrap(), Kind::Read);
    Trace::from_events("t", pages.into_iter().map(event).collect()).unwrap()
}

/// splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
fn random(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |n: u64| {
        let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    })
}

/// Tables of a 4-level tree that maps these pages: the root, and one for each touched region of
/// 512, 512^2 and 512^3 pages.
fn radix4_bytes(pages: &[u64]) -> u64 {
    let regions = |shift: u32| {
        let mut regions: Vec<u64> = pages.iter().map(|n| n >> shift).collect();
        regions.sort_unstable();
        regions.dedup();
        regions.len() as u64
    };
    4096 * (1 + regions(9) + regions(18) + regions(27))
}

/// Found by an independent simulator, misses and table bytes.
#[test]
fn radix4_on_the_embedded_traces_is_exact() {
    let expected = [
        ("perl-hash", 99_222, 110_592),
        ("python-graph", 24_958, 114_688),
        ("cc1", 4_364, 147_456),
        ("sqlite3", 1_003, 53_248),
    ];
    for (embedded, (name, walks, bytes)) in EMBEDDED.iter().zip(expected) {
        let run = run("radix4", embedded.read(None).unwrap(), &machine(WALK_CACHE_X86));
        assert_eq!((run.trace.as_str(), run.events), (name, 24_000_000));
        assert_eq!(run.walk.map(|w| w.count), Some(walks), "{name}");
        assert_eq!(run.tlb.map(|t| t.l2_misses), Some(walks), "{name}");
        assert_eq!(run.table.map(|t| (t.bytes, t.largest_contiguous_bytes)), Some((bytes, 4096)));
        assert_eq!(run.faults, Some(run.pages));
    }
}

#[test]
fn radix_takes_a_frame_for_each_touched_region() {
    for (pages, mask) in [(3000, (1 << 35) - 1), (3000, (1 << 20) - 1), (500, 0x7fff)] {
        let pages: Vec<u64> = random(3).take(pages).map(|z| z & mask).collect();
        let expected = radix4_bytes(&pages);
        let four = run("radix4", reads(pages.iter().copied()), &machine(&[]));
        let five = run("radix5", reads(pages), &machine(&[]));
        assert_eq!(four.table.map(|t| t.bytes), Some(expected));
        assert_eq!(five.table.map(|t| t.bytes), Some(expected + 4096), "one more root");
        assert_eq!(four.walk.map(|w| (w.refs_mean, w.refs_max)), Some((4.0, 4)));
        assert_eq!(five.walk.map(|w| (w.refs_mean, w.refs_max)), Some((5.0, 5)));
    }
}

/// Theory: with p PDEs cached and all upper levels hitting, uniform random walks over N pages read
/// 2 - p/(N/512) entries; the TLB hits E/N of the accesses.
#[test]
fn uniform_random_accesses_cost_what_theory_says() {
    let pages = 1u64 << 17;
    let trace = reads((0..pages).chain(random(5).map(|z| z % pages).take(2_000_000)));
    let events = trace.events.len() as u64;
    let run = run("radix4", trace, &machine(WALK_CACHE_X86));
    let walk = run.walk.unwrap();
    // The first sweep reads about one entry a walk; take it out of the mean.
    let swept = pages as f64;
    let refs = (walk.refs_mean * walk.count as f64 - swept) / (walk.count as f64 - swept);
    let theory = 2.0 - 32.0 / (pages / 512) as f64;
    assert!((refs - theory).abs() < 0.002, "{refs} against {theory}");
    let misses = (walk.count - pages) as f64 / (events - pages) as f64;
    let theory = 1.0 - 1536.0 / pages as f64;
    assert!((misses - theory).abs() < 0.0005, "{misses} against {theory}");
}

/// Two references, one behind the walk caches: a cached root entry stands for 1 GiB. And a root of
/// 4 MiB, and 2 MiB for each touched GiB.
#[test]
fn a_flattened_tree_reads_two_entries_or_one() {
    let pages: Vec<u64> = random(3).take(3000).map(|z| z & 0xf_ffff).collect();
    let without = run("radix-flattened", reads(pages.iter().copied()), &machine(&[]));
    assert_eq!(without.walk.map(|w| (w.refs_mean, w.refs_max)), Some((2.0, 2)));
    assert_eq!(without.table.map(|t| t.bytes), Some((4 << 20) + 4 * (2 << 20)));
    let with = run("radix-flattened", reads(pages), &machine(WALK_CACHE_X86)).walk.unwrap();
    let once = with.refs_mean * with.count as f64 - with.count as f64;
    assert!((once - 4.0).abs() < 1e-6, "the root is read once for each GiB, not {once} times");
}

#[test]
fn flat_reads_one_entry_of_one_block_or_says_what_it_would_take() {
    let small = run("flat", reads([0, 5, 0xf_ffff]), &machine(&[]));
    assert_eq!(small.walk.map(|w| (w.refs_mean, w.refs_max)), Some((1.0, 1)));
    assert_eq!(small.table.map(|t| t.largest_contiguous_bytes), Some(8 << 20));
    for (page, bytes) in [(0x10_0000, 256 << 30), (0x7_ffff_ffff, 256 << 30), (1 << 35, 128 << 40)]
    {
        let wide = run("flat", reads([0, page]), &machine(&[]));
        assert!(wide.unsupported.is_some() && wide.walk.is_none());
        let table = wide.table.unwrap();
        assert_eq!((table.bytes, table.largest_contiguous_bytes), (bytes, bytes));
    }
}

#[test]
fn an_address_that_a_design_cannot_translate_makes_a_row_that_says_so() {
    let wide = 1 << 40; // bit 52 of the address
    let four = run("radix4", reads([1, wide]), &machine(&[]));
    assert!(four.unsupported.is_some_and(|reason| reason.contains("0x10000000000000")));
    assert!(four.walk.is_none() && four.table.is_none());
    let five = run("radix5", reads([1, wide]), &machine(&[]));
    assert_eq!(five.walk.map(|w| w.count), Some(2));
    // The upper half of the space is as good as the lower.
    let kernel = run("radix4", reads([(1 << 52) - 1, 5]), &machine(&[]));
    assert_eq!(kernel.walk.map(|w| w.count), Some(2));
}

/// References of the walks behind the first touch of each page, when `pages` pages all over the
/// space are then read at random, and bytes of table for each page. The walk that comes right after
/// a page was installed reads `installed` on average.
fn hashed(design: &str, pages: usize, installed: f64) -> (f64, f64) {
    let set: Vec<u64> = random(11).map(|z| z & 0x7_ffff_ffff).take(pages).collect();
    let picks = random(13).map(|z| set[(z % pages as u64) as usize]).take(40 * pages);
    let run = run(design, reads(set.iter().copied().chain(picks)), &machine(WALK_CACHE_X86));
    let (walk, table) = (run.walk.unwrap(), run.table.unwrap());
    let first = run.pages as f64;
    let refs =
        (walk.refs_mean * walk.count as f64 - installed * first) / (walk.count as f64 - first);
    (refs, table.bytes_per_page)
}

/// Theory: a look-up that hits reads 1 + a/2 nodes, the bucket among them, at a load of a entries a
/// bucket.
#[test]
fn a_chained_hash_reads_half_the_load_more_than_one_node() {
    // A new page is in the bucket, or the first behind it: two of three buckets are taken at a load
    // of 1, where growth keeps it. One of 41 walks is such a one, so the third digit does not count.
    let (refs, bytes) = hashed("hashed-chained", 1 << 15, 1.63);
    assert!((refs - 1.5).abs() < 0.02, "load 1: {refs}");
    // 32 bytes of bucket, and 24 of node for each that found it taken: 1/e of them.
    let expected = 32.0 + 24.0 * (-1f64).exp();
    assert!((bytes - expected).abs() < 0.3, "{bytes}");
}

/// Theory: an anchor, and 1 + a/2 entries at a load of a mapped frames an anchor.
#[test]
fn an_inverted_table_reads_an_anchor_and_half_the_load_more_than_one_entry() {
    let (refs, bytes) = hashed("inverted", 1 << 15, 2.0);
    assert!((refs - 2.5).abs() < 0.02, "load 1: {refs}");
    assert!((bytes - 40.125).abs() < 0.1, "32 a frame, 8 an anchor, and a frame of locks: {bytes}");
    // 20 Ki frames under 32 Ki anchors.
    let (refs, _) = hashed("inverted", 20 << 10, 2.0);
    assert!((refs - (2.0 + 0.625 / 2.0)).abs() < 0.02, "load .625: {refs}");
}

/// A walk cache holds interior entries of a tree; a hash has none.
#[test]
fn walk_caches_do_nothing_for_a_hash() {
    let pages: Vec<u64> = random(17).map(|z| z & 0xff_ffff).take(5000).collect();
    for design in ["hashed-chained", "inverted"] {
        let with = run(design, reads(pages.iter().copied()), &machine(WALK_CACHE_X86));
        let without = run(design, reads(pages.iter().copied()), &machine(&[]));
        assert_eq!(with.walk, without.walk, "{design}");
    }
}
