//! The `reference` TLB on the embedded traces, against the counts of an independent simulator.
//!
//! ```text
//!   set = page number mod sets; true LRU; the second level is touched only on a first-level miss;
//!   a second-level hit fills the first level; a walk fills both; no back-invalidation
//! ```

use vellum_lab::embedded::EMBEDDED;
use vellum_lab::trace::Kind;
use vellum_tlb::{Asid, Leaf, Lookup, Port, Preset, Tlb, TlbCounts};

/// What the independent simulator found: name, pages, L1D, L1I and L2 misses.
const EXPECTED: [(&str, u64, u64, u64, u64); 4] = [
    ("perl-hash", 8_912, 310_051, 34, 99_222),
    ("python-graph", 6_372, 300_805, 47, 24_958),
    ("cc1", 1_715, 382_460, 116_284, 4_364),
    ("sqlite3", 1_003, 6_499, 31, 1_003),
];

#[test]
fn misses_are_those_of_an_independent_simulator() {
    assert_eq!(EMBEDDED.len(), EXPECTED.len());
    for (embedded, (name, pages, l1d_misses, l1i_misses, l2_misses)) in
        EMBEDDED.iter().zip(EXPECTED)
    {
        let trace = embedded.read(None).unwrap();
        let mut tlb = Tlb::new(Preset::by_name("reference").unwrap());
        let asid = Asid::default();
        let start = std::time::Instant::now();
        for event in &trace.events {
            let port = if event.kind() == Kind::Fetch { Port::Fetch } else { Port::Data };
            if tlb.lookup(event.va(), asid, port) == Lookup::Miss {
                tlb.fill(event.va(), asid, port, Leaf::PAGE_4K);
            }
        }
        let rate = trace.events.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
        eprintln!("{name}: {rate:.0} million events/s");
        assert_eq!(
            (trace.name.as_str(), trace.events.len(), trace.pages),
            (name, 24_000_000, pages)
        );
        assert_eq!(tlb.counts(), TlbCounts { l1d_misses, l1i_misses, l2_misses }, "{name}");
    }
}
