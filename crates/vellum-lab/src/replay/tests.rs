use super::*;
use crate::cache::CachePreset;
use crate::ram::with_ram;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use vellum_core::{
    Canonical, Change, Gather, Need, PAGE_SIZE, PhysAddr, RangeError, Run, Sink, Vpn, Walk,
};
use vellum_tlb::Preset;

/// A table that is a map, reads one entry a walk, and wants a refill for every other page.
#[derive(Default)]
struct MapTable {
    pages: RefCell<BTreeMap<u64, Entry>>,
    refills: Cell<u64>,
    /// Says that it took a page, and does not.
    forgets: bool,
    empty: bool,
}

impl Walk for MapTable {
    fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Span, Cause> {
        if !self.canonical().contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        let n = va.number().as_u64();
        let pa = PhysAddr::new(n * 8);
        sink.reference(Ref { pa, bytes: 8, span: 12, parallel: false });
        let entry = self.pages.borrow().get(&n).copied().unwrap_or(Entry::Hole);
        Ok(Span { va: va.number().addr(), len: PAGE_SIZE, entry })
    }

    fn touch(&self, _: VirtAddr, _: Attr, _: Attr) -> Entry {
        Entry::Hole
    }
}

impl PageTable for MapTable {
    type Stock = u64;
    type Detached = Infallible;
    const LEAVES: u64 = 1 << 12;
    const SOFT_BITS: u8 = 0;

    fn canonical(&self) -> Canonical {
        Canonical::signed(48)
    }

    fn table_bytes(&self) -> u64 {
        0
    }

    fn stock(&self) -> u64 {
        0
    }

    fn refill(&self, stock: &mut u64, need: Need) -> Result<(), OutOfFrames> {
        if self.empty {
            return Err(OutOfFrames { order: 3 });
        }
        self.refills.set(self.refills.get() + 1);
        *stock += u64::from(need.get());
        Ok(())
    }

    fn replace<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut u64,
        _: &mut G,
    ) -> Result<(), ReplaceError> {
        assert_eq!((len, expect), (PAGE_SIZE, Entry::Hole));
        assert!(va.is_aligned(12));
        *stock = stock.checked_sub(1).ok_or(ReplaceError::Need(Need::new(2)))?;
        if !self.forgets {
            let before = self.pages.borrow_mut().insert(va.number().as_u64(), new);
            assert_eq!(before, None);
        }
        Ok(())
    }

    fn map<G: Gather<Infallible>>(&mut self, _: Run, _: &mut G) -> Result<(), RangeError> {
        unreachable!("a replay maps by replace")
    }

    fn unmap<G: Gather<Infallible>>(
        &mut self,
        _: VirtAddr,
        _: u64,
        _: &mut G,
    ) -> Result<(), RangeError> {
        unreachable!("a replay unmaps nothing")
    }

    fn protect<G: Gather<Infallible>>(
        &mut self,
        _: VirtAddr,
        _: u64,
        _: Change,
        _: &mut G,
    ) -> Result<(), RangeError> {
        unreachable!("a replay protects nothing")
    }

    fn visit(
        &self,
        _: VirtAddr,
        _: u64,
        _: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        unreachable!("a replay visits nothing")
    }

    fn harvest<G: Gather<Infallible>>(
        &self,
        _: VirtAddr,
        _: u64,
        _: Attr,
        _: &mut G,
        _: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        unreachable!("a replay harvests nothing")
    }

    fn retire<G: Gather<Infallible>>(self, _: &mut G) {}
}

fn trace(pages: impl IntoIterator<Item = u64>) -> Trace {
    let events = pages.into_iter().map(|n| Event::new(Vpn::new(n).unwrap(), Kind::Read)).collect();
    Trace::from_events("t", events).unwrap()
}

fn run(traces: &[Trace], tables: &mut [MapTable], quantum: usize, asids: bool) -> Measured {
    try_run(traces, tables, quantum, asids).unwrap()
}

fn try_run(
    traces: &[Trace],
    tables: &mut [MapTable],
    quantum: usize,
    asids: bool,
) -> Result<Measured, ReplayError> {
    let machine = &MachineConfig {
        tlb: Preset::REFERENCE,
        walk_caches: Vec::new(),
        cache: CachePreset::DEFAULT,
    };
    let seen = AtomicU64::new(0);
    let progress = &|n| {
        seen.fetch_add(n, Ordering::Relaxed);
    };
    let job = Job { traces, machine, quantum, asids, promote: None, progress };
    let measured =
        with_ram(job.count_pages(), job.count_pages(), |_, data| replay(&job, tables, data))
            .unwrap()?;
    assert_eq!(seen.load(Ordering::Relaxed), job.count_events());
    Ok(measured)
}

#[test]
fn every_page_faults_once_and_every_miss_is_a_walk() {
    let sweep = trace((0..5000).chain(0..5000));
    let mut table = MapTable::default();
    let measured = run(&[sweep], core::slice::from_mut(&mut table), usize::MAX, true);
    assert_eq!((measured.faults, measured.switches), (5000, 0));
    assert_eq!(table.refills.get(), 2500, "each refill was good for two pages");
    let walks = measured.machine.walk_counts();
    assert_eq!(walks.refs.total(), 10_000, "the sweep is larger than the TLB");
    assert_eq!(measured.machine.tlb_counts().l2_misses, 10_000);
    assert_eq!((walks.refs.max(), walks.lines.max()), (1, 1));
    // 8 entries a line: the first of each misses, once; all 625 lines fit the cache.
    assert_eq!(walks.cache_misses, 625);
    assert_eq!(walks.cycles, 625 * 200 + 9_375 * 14);
}

#[test]
fn processes_take_turns_and_identifiers_keep_what_is_cached() {
    let traces = || [trace((0..50).cycle().take(1000)), trace((0..50).cycle().take(500))];
    let tables = || [MapTable::default(), MapTable::default()];
    let tagged = run(&traces(), &mut tables(), 100, true);
    // 10 turns and 5: they alternate ten times, then the first goes on alone.
    assert_eq!((tagged.switches, tagged.faults), (10, 100));
    assert_eq!(tagged.machine.tlb_counts().l2_misses, 100);
    let flushed = run(&traces(), &mut tables(), 100, false);
    assert_eq!((flushed.switches, flushed.faults), (10, 100));
    assert_eq!(flushed.machine.tlb_counts().l2_misses, 50 * (10 + 1));
}

#[test]
fn a_quantum_of_zero_is_one() {
    let traces = [trace([1, 2]), trace([3])];
    let mut tables = [MapTable::default(), MapTable::default()];
    assert_eq!(run(&traces, &mut tables, 0, true).switches, 2);
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let run = |page, table| try_run(&[trace([page])], &mut [table], 1, true).unwrap_err();
    let outside = run(1 << 40, MapTable::default());
    assert_eq!(outside, ReplayError::Walk(Cause::NonCanonical(VirtAddr::new(1 << 52))));
    let lost = run(1, MapTable { forgets: true, ..MapTable::default() });
    assert!(matches!(lost, ReplayError::Lost(span) if span.va.as_u64() == 0x1000), "{lost}");
    let empty = run(1, MapTable { empty: true, ..MapTable::default() });
    assert_eq!(empty, ReplayError::OutOfFrames(OutOfFrames { order: 3 }));
}
