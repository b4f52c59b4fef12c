use super::*;
use crate::{Attr, PAGE_SIZE, PhysAddr};
use core::cell::RefCell;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::{vec, vec::Vec};

/// Everything that happens, in order.
#[derive(Debug, PartialEq)]
enum Event {
    Flushed(Vec<Flush>),
    Got(Gone),
    Discarded,
}

struct Log<'a>(&'a RefCell<Vec<Event>>);

// SAFETY: no CPU is involved.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Invalidate for Log<'_> {
    fn flush(&self, flushes: &[Flush]) {
        self.0.borrow_mut().push(Event::Flushed(flushes.to_vec()));
    }
}

struct Part(Run);

impl Reap for Part {
    fn reap(self, sink: &mut impl FnMut(Gone)) {
        sink(Gone::Run(self.0));
    }
}

fn page(n: u64) -> VirtAddr {
    VirtAddr::new(n * PAGE_SIZE)
}

fn run(va: u64, pa: u64) -> Run {
    Run::new(page(va), PhysAddr::new(pa * PAGE_SIZE), PAGE_SIZE, Attr::RW)
}

fn new_batch<S: FnMut(Gone)>(log: &RefCell<Vec<Event>>, sink: S) -> Batch<Log<'_>, S, Part, 4> {
    // SAFETY: there is no table.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    unsafe {
        Batch::new(Log(log), sink)
    }
}

/// What `ops` on a batch of four items leads to.
fn events(ops: impl FnOnce(&mut Batch<Log<'_>, &mut dyn FnMut(Gone), Part, 4>)) -> Vec<Event> {
    let log = RefCell::new(Vec::new());
    let mut sink = |gone| log.borrow_mut().push(Event::Got(gone));
    let sink: &mut dyn FnMut(Gone) = &mut sink;
    let mut batch = new_batch(&log, sink);
    ops(&mut batch);
    batch.finish();
    log.into_inner()
}

#[test]
fn nothing_is_delivered_before_the_flush() {
    let subtree = Flush::tables(page(512), 512 * PAGE_SIZE, true);
    let got = events(|batch| {
        batch.leaf(run(1, 7));
        batch.detach(subtree, Part(run(600, 9)));
    });
    let leaf = Flush::new(page(1), PAGE_SIZE, 12, Attr::RW);
    assert_eq!(
        got,
        [
            Event::Flushed(vec![leaf, subtree]),
            Event::Got(Gone::Run(run(1, 7))),
            Event::Got(Gone::Run(run(600, 9)))
        ]
    );
}

/// Says when it is discarded, and must not be read.
struct Unread<'a>(&'a RefCell<Vec<Event>>);

impl Reap for Unread<'_> {
    fn reap(self, _: &mut impl FnMut(Gone)) {
        panic!("nobody listens");
    }

    fn discard(self) {
        self.0.borrow_mut().push(Event::Discarded);
    }
}

#[test]
fn where_nobody_listens_parts_are_discarded_after_the_flush() {
    let log = RefCell::new(Vec::new());
    let subtree = Flush::tables(page(512), 512 * PAGE_SIZE, true);
    // SAFETY: there is no table.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    let mut batch = unsafe { Batch::<_, _, _, 4>::discarding(Log(&log)) };
    batch.soft(page(1), Soft::new(7).unwrap());
    batch.detach(subtree, Unread(&log));
    assert!(log.borrow().is_empty());
    batch.finish();
    assert_eq!(log.take(), [Event::Flushed(vec![subtree]), Event::Discarded]);
    // SAFETY: there is no table.
    #[allow(unsafe_code, reason = "calls an unsafe function")]
    let mut direct = unsafe { Direct::discarding() };
    Gather::<Unread<'_>>::leaf(&mut direct, run(1, 7));
    direct.detach(subtree, Unread(&log));
    assert_eq!(log.take(), [Event::Discarded]);
}

#[test]
fn adjacent_leaves_take_one_place() {
    let got = events(|batch| {
        for n in 0..100 {
            batch.leaf(run(n, 50 + n));
        }
        assert_eq!(batch.room(), 3);
        batch.leaf(run(100, 7)); // the frame does not follow
        assert_eq!(batch.room(), 2);
    });
    let whole = Run { len: 100 * PAGE_SIZE, ..run(0, 50) };
    assert_eq!(got[1..], [Event::Got(Gone::Run(whole)), Event::Got(Gone::Run(run(100, 7)))]);
}

#[test]
fn soft_entries_alone_flush_nothing() {
    let soft = Soft::new(5).unwrap();
    let got = events(|batch| batch.soft(page(3), soft));
    assert_eq!(got, [Event::Got(Gone::Soft(page(3), soft))]);
}

#[test]
fn narrowing_alone_flushes_and_delivers_nothing() {
    let flush = Flush::new(page(3), PAGE_SIZE, 12, Attr::GLOBAL);
    let got = events(|batch| batch.stale(flush));
    assert_eq!(got, [Event::Flushed(vec![flush])]);
}

#[test]
fn a_drained_batch_owes_nothing_and_may_be_dropped() {
    let log = RefCell::new(Vec::new());
    let mut batch = new_batch(&log, |_| {});
    batch.leaf(run(1, 7));
    batch.drain();
    assert_eq!(batch.room(), 4);
    drop(batch);
    assert_eq!(log.borrow().len(), 1);
}

#[test]
#[cfg(debug_assertions)]
fn forgetting_a_flush_panics_in_debug() {
    let log = RefCell::new(Vec::new());
    let mut delivered = 0;
    let forgotten = catch_unwind(AssertUnwindSafe(|| {
        let mut batch = new_batch(&log, |_| delivered += 1);
        batch.stale(Flush::new(page(1), PAGE_SIZE, 12, Attr::NONE));
    }));
    assert!(forgotten.is_err());
    assert_eq!((delivered, log.borrow().len()), (0, 0));
}

#[test]
fn the_last_page_of_all_can_be_flushed() {
    let top = VirtAddr::new(u64::MAX - PAGE_SIZE + 1);
    let flush = Flush::new(top, PAGE_SIZE, 12, Attr::NONE);
    assert_eq!(flush.last, VirtAddr::new(u64::MAX));
    assert!(flush.union(Flush::new(page(0), 0, 12, Attr::NONE)).covers(page(77)));
}

#[test]
fn direct_delivers_at_once() {
    let mut got = Vec::new();
    {
        // SAFETY: there is no table and no CPU.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        let mut direct = unsafe { Direct::new(|gone| got.push(gone)) };
        let gather: &mut dyn FnMut(Run) = &mut |r| Gather::<Part>::leaf(&mut direct, r);
        gather(run(1, 2));
        let flush = Flush::tables(page(9), PAGE_SIZE, false);
        Gather::<Part>::detach(&mut direct, flush, Part(run(9, 9)));
    }
    assert_eq!(got, [Gone::Run(run(1, 2)), Gone::Run(run(9, 9))]);
}
