//! Workloads and leaves of 2 MiB, against what theory says of them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use vellum_core::Vpn;
use vellum_lab::cache::CachePreset;
use vellum_lab::designs::{self, DESIGNS, Design};
use vellum_lab::experiment::DesignError;
use vellum_lab::machine::MachineConfig;
use vellum_lab::ram::Meter;
use vellum_lab::replay::{Job, Measured, Policy, Promotions, Replay};
use vellum_lab::trace::{Event, Kind, Trace};
use vellum_lab::workload::Workload;
use vellum_tlb::{Preset, WALK_CACHE_X86};

/// Entries of the reference TLB's second level.
const ENTRIES: u64 = 1536;

fn replay(
    design: &Design,
    traces: &[Trace],
    touched: Option<u16>,
) -> Result<(Measured, Meter), DesignError> {
    let machine = &MachineConfig {
        tlb: Preset::REFERENCE,
        walk_caches: WALK_CACHE_X86.to_vec(),
        cache: CachePreset::DEFAULT,
    };
    let promote = touched.map(|touched| Policy { touched });
    let job = Job { traces, machine, quantum: usize::MAX, asids: true, promote, progress: &|_| {} };
    design.measure(&Replay { job: &job }).map(|(measured, meter, _)| (measured, meter))
}

fn workload(text: &str) -> Vec<Trace> {
    text.parse::<Workload>().unwrap().run(None).unwrap()
}

/// A sweep over so many pages, so often.
fn sweep(pages: u64, times: usize) -> [Trace; 1] {
    let event = |n| Event::new(Vpn::new(n).unwrap(), Kind::Read);
    let events = (0..times).flat_map(|_| 0..pages).map(event).collect();
    [Trace::from_events("sweep", events).unwrap()]
}

/// Theory: uniform accesses to N pages hit E/N of the time, and with p PDEs cached read
/// 2 - p/(N/512) entries a walk. The sweep that makes the table reads about one.
#[test]
fn random_updates_cost_what_theory_says() {
    let traces = workload("gups:128M");
    let (pages, updates) = (32_768, 4e6);
    assert_eq!(traces[0].pages, pages);
    let (measured, ..) = replay(designs::by_name("radix4").unwrap(), &traces, None).unwrap();
    let walks = measured.machine.walk_counts().refs.total() as f64 - pages as f64;
    let hits = 1.0 - walks / updates;
    let theory = ENTRIES as f64 / pages as f64;
    assert!((hits - theory).abs() < 0.0006, "{hits} against {theory}");
    let refs = (measured.machine.walk_counts().refs.sum() as f64 - pages as f64) / walks;
    let theory = 2.0 - 32.0 / (pages / 512) as f64;
    assert!((refs - theory).abs() < 0.002, "{refs} against {theory}");
}

/// Theory: LRU keeps nothing of a cyclic sweep over more pages than there are entries, and all of
/// one over fewer.
#[test]
fn a_cyclic_sweep_hits_always_or_never() {
    let radix4 = designs::by_name("radix4").unwrap();
    for pages in [ENTRIES / 2, ENTRIES, ENTRIES * 4 / 3, ENTRIES * 4] {
        let (measured, ..) = replay(radix4, &sweep(pages, 5), None).unwrap();
        // A set of 12 ways holds its pages as long as they are 12.
        let expected = if pages <= ENTRIES { pages } else { 5 * pages };
        assert_eq!(measured.machine.tlb_counts().l2_misses, expected, "{pages} pages");
    }
}

#[test]
fn a_region_of_which_enough_was_touched_becomes_one_leaf() {
    const REGIONS: u64 = 4;
    for (touched, faults) in [(1, 1), (64, 64), (512, 512)] {
        let mut counts = Vec::new();
        for design in DESIGNS {
            let (measured, meter) = match replay(design, &sweep(REGIONS * 512, 3), Some(touched)) {
                Ok(done) => done,
                Err(DesignError::Unsupported { reason, .. }) => {
                    assert!(reason.contains("2 MiB"), "{}: {reason}", design.name);
                    continue;
                }
                Err(e) => panic!("{}: {e}", design.name),
            };
            let promotions = Promotions { count: REGIONS, pages_filled: REGIONS * (512 - faults) };
            assert_eq!((measured.promotions, measured.faults), (promotions, REGIONS * faults));
            // From then on four entries of the TLB hold everything.
            assert_eq!(measured.machine.tlb_counts().l2_misses, REGIONS * faults);
            if design.name == "radix4" {
                assert_eq!(meter.now, 3 * 4096, "no table of 4 KiB leaves is left");
            }
            counts.push(measured.machine.tlb_counts());
        }
        assert!(counts.len() >= 2, "both trees have such leaves");
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    }
}

#[test]
fn a_region_that_is_touched_here_and_there_stays_as_it_is() {
    let event = |n| Event::new(Vpn::new(n).unwrap(), Kind::Write);
    // 63 pages of each of 8 regions.
    let pages = (0..8).flat_map(|region| (0..63).map(move |n| region * 512 + 8 * n));
    let traces = [Trace::from_events("t", pages.map(event).collect()).unwrap()];
    let radix4 = designs::by_name("radix4").unwrap();
    let (kept, _) = replay(radix4, &traces, Some(64)).unwrap();
    assert_eq!((kept.promotions, kept.faults), (Promotions::default(), 8 * 63));
    let (off, meter) = replay(radix4, &traces, None).unwrap();
    assert_eq!(off.machine.walk_counts().refs, kept.machine.walk_counts().refs);
    assert_eq!(meter.now, (3 + 8) * 4096);
    let (all, _) = replay(radix4, &traces, Some(63)).unwrap();
    assert_eq!(all.promotions, Promotions { count: 8, pages_filled: 8 * 449 });
}

/// Without identifiers every turn of a process begins with an empty TLB.
#[test]
fn processes_in_turn_find_what_they_left_only_by_identifiers() {
    let traces = workload("processes:3");
    let machine = &MachineConfig {
        tlb: Preset { l2: vellum_tlb::Geometry::new(1536, 12).unwrap(), ..Preset::REFERENCE },
        walk_caches: Vec::new(),
        cache: CachePreset::DEFAULT,
    };
    let misses = |asids| {
        let job = Job {
            traces: &traces,
            machine,
            quantum: 5000,
            asids,
            promote: None,
            progress: &|_| {},
        };
        let (measured, ..) =
            designs::by_name("radix4").unwrap().measure(&Replay { job: &job }).unwrap();
        (measured.machine.tlb_counts().l2_misses, measured.switches)
    };
    // Three times 128 pages fit, so that each is walked for once.
    let (tagged, switches) = misses(true);
    assert_eq!(tagged, 3 * 128);
    let (flushed, same) = misses(false);
    assert_eq!(same, switches);
    // 5,000 events are 2,500 updates: all of 128 pages in nearly every turn.
    let turns = (switches + 1) as f64;
    assert!((flushed as f64 / turns - 128.0).abs() < 0.5, "{flushed} in {turns} turns");
}
