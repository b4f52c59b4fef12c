//! Random sequences of operations, on the table and on the oracle, compared after each step.

use super::{
    Design, Nodes, Recorder, WINDOW, check_contents, check_flushes, config, on, page_bytes,
    recording, table, windows,
};
use crate::oracle::Oracle;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vellum_core::{
    Attr, Cause, Change, Entry, MemoryType, PAGE_SIZE, PageTable, PhysAddr, RangeError,
    ReplaceError, Run, Soft, Span, VirtAddr,
};

/// One step. Places are a window, a page in it, and a count of pages.
#[derive(Clone, Debug)]
pub enum Op {
    /// `map` of a run of frames from this number on.
    Map(Place, u64, Attr),
    /// `unmap`.
    Unmap(Place),
    /// `protect`.
    Protect(Place, Change),
    /// `replace` of the first page; where the flag is off, with an expectation that is wrong.
    Replace(Place, bool, New),
    /// `harvest`.
    Harvest(Place, Attr),
    /// `touch` of the first page.
    Touch(Place, Attr, Attr),
}

/// A stretch of pages: window, first page, count.
#[derive(Clone, Copy, Debug)]
pub struct Place(usize, u64, u64);

/// What a replace installs.
#[derive(Clone, Copy, Debug)]
pub enum New {
    /// Nothing.
    Hole,
    /// A soft entry of this value.
    Soft(u64),
    /// Another frame.
    Frame(u64, Attr),
    /// The same frame with other attributes, if a leaf is there.
    Same(Attr),
}

/// Attributes that the design has an encoding for: all of them but what it refuses.
pub fn attrs<D: Design>() -> impl Strategy<Value = Attr> {
    any::<u32>()
        .prop_map(|bits| D::portable(Attr::from_bits(bits)))
        .prop_filter("no encoding", |&attr| D::encodes(attr))
}

fn changes<D: Design>() -> impl Strategy<Value = Change> {
    prop_oneof![
        attrs::<D>().prop_map(|attr| Change::to(attr, Attr::RWX | Attr::USER)),
        Just(Change::clearing(Attr::WRITE)),
        Just(Change::setting(Attr::WRITE)),
        Just(Change { set: Attr::SOFT[1], clear: Attr::DIRTY }),
        Just(Change::memory(MemoryType::WriteCombining)),
        (0u8..16).prop_map(Change::key),
    ]
}

fn places() -> impl Strategy<Value = Place> {
    (0usize..8, 0..WINDOW, 1..WINDOW / 2)
        .prop_map(|(window, first, count)| Place(window, first, count.min(WINDOW - first)))
}

fn news<D: Design>() -> impl Strategy<Value = New> {
    prop_oneof![
        Just(New::Hole),
        (1u64..1 << <D::Table<'_>>::SOFT_BITS.min(20)).prop_map(New::Soft),
        (0u64..64, attrs::<D>()).prop_map(|(frame, attr)| New::Frame(frame, attr)),
        attrs::<D>().prop_map(New::Same),
    ]
}

fn ops<D: Design>() -> impl Strategy<Value = Op> {
    let status = prop::sample::select(vec![Attr::ACCESSED, Attr::DIRTY, Attr::STATUS, Attr::NONE]);
    let rights = prop::sample::select(vec![Attr::READ, Attr::RW, Attr::READ | Attr::USER]);
    prop_oneof![
        4 => (places(), 0u64..64, attrs::<D>()).prop_map(|(p, f, a)| Op::Map(p, f, a)),
        2 => places().prop_map(Op::Unmap),
        2 => (places(), changes::<D>()).prop_map(|(p, c)| Op::Protect(p, c)),
        3 => (places(), prop::bool::weighted(0.8), news::<D>()).prop_map(|(p, b, n)| Op::Replace(p, b, n)),
        1 => (places(), status.clone()).prop_map(|(p, a)| Op::Harvest(p, a)),
        1 => (places(), rights, status).prop_map(|(p, r, s)| Op::Touch(p, r, s)),
    ]
}

/// Sequences in a few windows at the ends of the space leave table and oracle equal.
pub fn operations_match_the_oracle<D: Design>() {
    run_sequences::<D>(config(96), |table| windows(table));
}

/// The same with windows so far apart that a range between them is larger than any table.
pub fn operations_far_apart_match_the_oracle<D: Design>() {
    run_sequences::<D>(config(24), |table| {
        let (va, len) = super::halves(table.canonical())[0];
        (0..8).map(|i| va.wrapping_add(len / 8 * i)).collect()
    });
}

fn run_sequences<D: Design>(
    config: proptest::test_runner::Config,
    windows: impl Fn(&D::Table<'_>) -> Vec<VirtAddr>,
) {
    let length = if cfg!(miri) { 1..12 } else { 1..40 };
    let sequences = prop::collection::vec(ops::<D>(), length);
    TestRunner::new(config)
        .run(&sequences, |ops| {
            on::<D>(|arena, shared| {
                let mut table = table::<D>(shared);
                let windows = windows(&table);
                let mut oracle = Oracle::of(&table);
                for op in &ops {
                    let before = oracle.clone();
                    let nodes = Nodes::on_the_way(&table, &before);
                    let recorder = Recorder::default();
                    let unit = page_bytes::<D::Table<'_>>();
                    let frames = arena.first().addr();
                    let world = World { windows: &windows, frames, unit };
                    world.apply::<D, _>(&mut table, &mut oracle, &recorder, op);
                    let flushes = recorder.take_flushes();
                    check_flushes(&before, &oracle, &flushes);
                    nodes.check(arena, &flushes);
                    check_contents(&table, &oracle);
                    if ops.len() % 4 == 0 {
                        let bytes = arena.frames_in_use() * PAGE_SIZE;
                        assert_eq!(table.table_bytes(), bytes, "every frame in use is the table's");
                    }
                }
                let recorder = Recorder::default();
                recording(&recorder, |g| table.retire(g));
                let left: Vec<_> = oracle.iter().collect();
                let gone = oracle.pages_of(&recorder.take_gone());
                assert_eq!(gone, left, "what retiring gave back");
            });
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

struct World<'w> {
    windows: &'w [VirtAddr],
    /// The first of the frames that are mapped; they are numbers only.
    frames: PhysAddr,
    /// Bytes of a page.
    unit: u64,
}

impl World<'_> {
    fn range(&self, place: Place) -> (VirtAddr, u64) {
        let Place(window, first, count) = place;
        let window = self.windows[window % self.windows.len()];
        (window.wrapping_add(first * self.unit), count * self.unit)
    }

    fn frame(&self, n: u64) -> PhysAddr {
        self.frames.wrapping_add(n * self.unit)
    }

    fn apply<D: Design, T: PageTable>(
        &self,
        table: &mut T,
        oracle: &mut Oracle,
        recorder: &Recorder,
        op: &Op,
    ) {
        match *op {
            Op::Map(place, frame, attr) => {
                let (va, len) = self.range(place);
                let run = Run::new(va, self.frame(frame), len, attr);
                let result = recording(recorder, |g| table.map(run, g));
                map_as_expected(oracle, run, result);
                assert_eq!(recorder.take_gone(), [], "mapping lets nothing go");
            }
            Op::Unmap(place) => {
                let (va, len) = self.range(place);
                assert_eq!(recording(recorder, |g| table.unmap(va, len, g)), Ok(()));
                let gone = oracle.pages_of(&recorder.take_gone());
                assert_eq!(gone, oracle.unmap(va, len));
            }
            Op::Protect(place, change) => {
                let (va, len) = self.range(place);
                let result = recording(recorder, |g| table.protect(va, len, change, g));
                let done = oracle.protect(va, len, change, D::encodes);
                match result {
                    Ok(()) => assert_eq!(done, len),
                    Err(RangeError { cause: Cause::Unencodable(_), done: at }) => {
                        assert_eq!(at, done)
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Op::Replace(place, right, new) => {
                let (va, _) = self.range(place);
                self.replace(table, oracle, recorder, va, right, new);
            }
            Op::Harvest(place, clear) => {
                let (va, len) = self.range(place);
                let mut told = Vec::new();
                let mut note = |span: Span| {
                    told.extend(oracle.pages_of_span(span.va, span.len, span.entry));
                };
                recording(recorder, |g| table.harvest(va, len, clear, g, &mut note)).unwrap();
                told.sort_by_key(|&(va, _)| va);
                assert_eq!(told, harvest(oracle, va, len, clear));
            }
            Op::Touch(place, need, bits) => {
                let (va, _) = self.range(place);
                let before = oracle.get(va);
                assert_eq!(table.touch(va.wrapping_add(5), need, bits), before);
                match before {
                    Entry::Leaf(pa, attr) if attr.contains(need) => {
                        oracle.set(va, Entry::Leaf(pa, attr | bits));
                    }
                    _ => {}
                }
            }
        }
    }

    fn replace<T: PageTable>(
        &self,
        table: &T,
        oracle: &mut Oracle,
        recorder: &Recorder,
        va: VirtAddr,
        right: bool,
        new: New,
    ) {
        let old = oracle.get(va);
        let new = match (new, old) {
            (New::Hole, _) => Entry::Hole,
            (New::Soft(value), _) => Entry::Soft(Soft::new(value).expect("not 0")),
            (New::Frame(n, attr), _) => Entry::Leaf(self.frame(n), attr),
            (New::Same(attr), Entry::Leaf(pa, _)) => Entry::Leaf(pa, attr),
            (New::Same(_), other) => other,
        };
        let wrong = Entry::Leaf(self.frame(1000), Attr::READ);
        let expect = if right { without_status(old) } else { wrong };
        let mut stock = table.stock();
        let result = recording(recorder, |g| {
            table.replace_refilling(va, self.unit, expect, new, &mut stock, g)
        });
        if !right {
            assert_eq!(result, Err(ReplaceError::Changed(old)));
            return;
        }
        assert_eq!(result, Ok(()));
        let (kept, gone) = match (old, new) {
            (Entry::Leaf(a, old), Entry::Leaf(b, new)) if a == b => {
                (Entry::Leaf(b, new | (old & Attr::STATUS)), None)
            }
            (Entry::Soft(a), Entry::Soft(b)) if a == b => (new, None),
            (Entry::Hole, _) => (new, None),
            _ => (new, Some((va, old))),
        };
        oracle.set(va, kept);
        assert_eq!(oracle.pages_of(&recorder.take_gone()), Vec::from_iter(gone));
    }
}

/// The entry as somebody has it who read it before hardware set a bit.
fn without_status(entry: Entry) -> Entry {
    match entry {
        Entry::Leaf(pa, attr) => Entry::Leaf(pa, attr - Attr::STATUS),
        other => other,
    }
}

fn harvest(oracle: &mut Oracle, va: VirtAddr, len: u64, clear: Attr) -> Vec<(VirtAddr, Entry)> {
    let had = |&(_, entry): &(VirtAddr, Entry)| match entry {
        Entry::Leaf(_, attr) => attr.intersects(clear),
        _ => false,
    };
    let told: Vec<_> = oracle.range(va, len).filter(had).collect();
    for &(va, entry) in &told {
        if let Entry::Leaf(pa, attr) = entry {
            oracle.set(va, Entry::Leaf(pa, attr - clear));
        }
    }
    told
}

/// Brings the oracle to where a `map` says it is, and looks that this is right: all of the run, or
/// the part before a conflict that is really there.
pub fn map_as_expected(oracle: &mut Oracle, run: Run, result: Result<(), RangeError>) {
    let conflict = oracle.range(run.va, run.len).next();
    match (result, conflict) {
        (Ok(()), None) => oracle.map(run, run.len),
        (Err(RangeError { cause: Cause::Mapped(span), done }), Some((first, entry))) => {
            assert!(span.va <= first && first.as_u64() - span.va.as_u64() < span.len, "{span:?}");
            assert!(entry.same_but_status(at(span, first)), "{span:?} is not {entry:?}");
            assert!(done <= first.as_u64() - run.va.as_u64(), "{done:#x} bytes would overlap");
            oracle.map(run, done);
        }
        (result, conflict) => panic!("map said {result:?}, and in the way was {conflict:?}"),
    }
}

/// The entry of the page at `va` in a span that covers it.
fn at(span: Span, va: VirtAddr) -> Entry {
    match span.entry {
        Entry::Leaf(pa, attr) => Entry::Leaf(pa.wrapping_add(va.as_u64() - span.va.as_u64()), attr),
        other => other,
    }
}
