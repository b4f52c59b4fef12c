//! Zones over real allocators without memory behind them.
//!
//! ```text
//!   model      random requests on five zones of two nodes   ->  sets and sums
//!   callback   callbacks that free, lie, call back          ->  how often they are called
//!   races      several threads                              ->  watermarks to the frame
//!   tallies    two CPUs that charge ahead                   ->  nothing lost, no mark passed
//! ```

mod callback;
mod model;
mod races;
mod tallies;

use super::{Class, CountFrames, Marks, NodeSet, Request, Urgency, Zone, ZoneError, Zones};
use crate::{FrameAllocator, FreeError, Shared};
use core::sync::atomic::AtomicU64;
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;
use vellum_core::{FrameSource, OutOfFrames, PAGE_SHIFT, PhysAddr};

type Frames = &'static FrameAllocator<'static>;

/// What `frames` made, so that Miri knows that it is not lost.
static MADE: Mutex<Vec<Frames>> = Mutex::new(Vec::new());

/// `count` frames from `first` on; for good, since tests are few and short.
fn frames(first: u64, count: u64) -> Frames {
    let usable = [(first << PAGE_SHIFT, (first + count) << PAGE_SHIFT)];
    let words = FrameAllocator::words_needed(usable, [(0, 0); 0]);
    let room: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
    let frames: Frames = Box::leak(Box::new(FrameAllocator::new()));
    MADE.lock().expect("no panic").push(frames);
    if count > 0 {
        // SAFETY: no memory is behind these frames, and nobody else has `room`.
        unsafe { frames.init_in(room.leak(), usable, [(0, 0); 0]) }.expect("there are frames");
    }
    frames
}

/// Takes blocks until there is none.
fn drain(zones: &impl super::Ask, request: Request) -> (Vec<PhysAddr>, ZoneError) {
    let mut taken = Vec::new();
    loop {
        match zones.ask(request) {
            Ok(pa) => taken.push(pa),
            Err(error) => return (taken, error),
        }
    }
}

/// DMA, DMA32 and normal, at 1, 4 and 16 times 1024 frames, of 64, 128 and 512 frames.
fn three() -> Zones<Frames, 3> {
    let zones = Zones::new([
        Zone::new(frames(0x400, 64), Class::Dma).keep_ratio(16),
        Zone::new(frames(0x1000, 128), Class::Dma32).keep_ratio(32),
        Zone::new(frames(0x4000, 512), Class::Normal),
    ]);
    zones.recount();
    zones
}

#[test]
fn requests_fall_back_to_lower_classes_and_leave_them_their_part() {
    let zones = three();
    // 512 / 32 from Dma32; (128 + 512) / 16 and 128 / 16 from Dma.
    assert_eq!(zones.kept_from(1, Class::Normal), 16);
    assert_eq!(zones.kept_from(0, Class::Normal), 40);
    assert_eq!(zones.kept_from(0, Class::Dma32), 8);
    assert_eq!(zones.kept_from(0, Class::Dma), 0);

    let request = Request::new(0);
    let (taken, error) = drain(&zones, request);
    let from: Vec<_> = taken.iter().map(|&pa| zones.zone_of(pa)).collect();
    assert!(from.is_sorted_by(|a, b| a >= b), "the highest first");
    let count = |zone| from.iter().filter(|&&from| from == Some(zone)).count();
    assert_eq!((count(0), count(1), count(2)), (64 - 40, 128 - 16, 512));
    assert_eq!(error, ZoneError::KeptBack { request });

    let (taken, error) = drain(&zones, request.class(Class::Dma32));
    assert_eq!(taken.len(), 16 + 40 - 8);
    assert!(matches!(error, ZoneError::KeptBack { .. }));
    let request = request.class(Class::Dma);
    let (taken, error) = drain(&zones, request);
    assert_eq!((taken.len(), error), (8, ZoneError::NoBlock { request }));
    assert_eq!(zones.count_free(), 0);
}

#[test]
fn urgency_decides_how_much_is_left() {
    let zones = Zones::new([Zone::new(frames(64, 100), Class::Normal)]);
    zones.recount();
    zones.set_marks(0, Marks::new(21, 40, 60));
    let mut left = Vec::new();
    for urgency in [Urgency::Normal, Urgency::Atomic, Urgency::Emergency] {
        drain(&zones, Request::new(0).urgency(urgency));
        left.push(zones.level(0).unwrap().free);
        assert_eq!(zones.shortage(0), 60 - left.last().unwrap());
    }
    assert_eq!(left, [21, 10, 0]);
}

#[test]
fn a_zone_below_low_is_passed_over_while_another_is_not() {
    let zones = Zones::new([
        Zone::new(frames(0, 100), Class::Normal),
        Zone::new(frames(1000, 100), Class::Normal),
    ]);
    zones.recount();
    zones.set_marks(0, Marks::new(10, 50, 50));
    zones.set_marks(1, Marks::new(10, 30, 30));
    let (taken, _) = drain(&zones, Request::new(0));
    let from: Vec<_> = taken.iter().filter_map(|&pa| zones.zone_of(pa)).collect();
    let runs: Vec<_> = from.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs, [(0, 50), (1, 70), (0, 40), (1, 20)]);
}

#[test]
fn nodes_are_tried_by_distance_and_bound_by_the_set() {
    let zones = Zones::with_nodes(
        [
            Zone::new(frames(0, 8), Class::Dma32).keep_ratio(0),
            Zone::new(frames(0x100, 8), Class::Normal),
            Zone::new(frames(0x200, 8), Class::Normal).on_node(1),
            Zone::new(frames(0x300, 8), Class::Normal).on_node(2),
            Zone::new(frames(0x400, 8), Class::Normal).on_node(9),
        ],
        &[[10, 30, 20], [30, 10, 20], [20, 20, 10]],
        (),
    );
    zones.recount();
    let order = |request| {
        let (taken, error) = drain(&zones, request);
        let from: Vec<_> = taken.iter().filter_map(|&pa| zones.zone_of(pa)).collect();
        for pa in taken {
            // SAFETY: allocated by `drain`, and given back once.
            assert_eq!(unsafe { zones.free(pa, 0) }, Ok(()));
        }
        let runs: Vec<_> = from.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        assert!(runs.iter().all(|&(_, count)| count == 8));
        (runs.into_iter().map(|(zone, _)| zone).collect::<Vec<_>>(), error)
    };
    let one = Request::new(0);
    assert_eq!(order(one).0, [1, 0, 3, 2, 4]);
    assert_eq!(order(one.near(1)).0, [2, 3, 1, 0, 4]);
    // Nodes 0 and 1 are as far; low memory is spared.
    assert_eq!(order(one.near(2)).0, [3, 1, 2, 0, 4]);
    // A node that is none of theirs is as good as node 0.
    assert_eq!(order(one.near(3)).0, order(one).0);
    let bound = one.near(1).within(NodeSet::only(1).with(0));
    assert_eq!(order(bound), (std::vec![2, 1, 0], ZoneError::NoBlock { request: bound }));
    assert_eq!(order(one.class(Class::Dma32).near(1)).0, [0]);

    for nowhere in
        [one.class(Class::Dma), one.within(NodeSet::only(5)), one.within(NodeSet::only(64))]
    {
        assert_eq!(zones.alloc(nowhere), Err(ZoneError::NoZone { request: nowhere }));
    }
}

#[test]
fn zones_without_memory_are_passed_over() {
    let zones = Zones::new([
        Zone::new(frames(0, 0), Class::Dma32),
        Zone::new(frames(0, 8), Class::Normal),
        Zone::new(frames(0, 0), Class::Movable),
    ]);
    let request = Request::new(3).class(Class::Movable);
    assert_eq!(zones.alloc(request), Err(ZoneError::NoZone { request }), "not counted yet");
    zones.recount();
    zones.set_usual_marks();
    assert_eq!(zones.level(0).unwrap().marks, Marks::NONE);
    assert_eq!(zones.level(1).unwrap().marks, Marks::new(1, 1, 1));
    assert_eq!(zones.alloc(request), Err(ZoneError::KeptBack { request }));
    assert_eq!(zones.alloc(request.urgency(Urgency::Emergency)), Ok(PhysAddr::new(0)));
}

#[test]
fn no_order_and_no_mark_overflows() {
    let zones = three();
    for zone in 0..3 {
        zones.set_marks(zone, Marks::new(u64::MAX, u64::MAX, u64::MAX));
    }
    for order in [0, 19, 51, 52, 63, 64, 255] {
        for urgency in [Urgency::Normal, Urgency::Atomic, Urgency::Emergency] {
            let request = Request::new(order).urgency(urgency);
            assert_eq!(zones.alloc(request).is_ok(), order == 0 && urgency == Urgency::Emergency);
        }
        assert_eq!(FrameSource::alloc(&zones, order), Err(OutOfFrames { order }));
    }
    assert_eq!(zones.shortage(2), u64::MAX - 511);
    assert_eq!(zones.shortage(3), 0);
}

#[test]
fn usual_marks_are_ordered_and_leave_seven_eighths() {
    for frames in [0, 1, 7, 8, 100, 4096, 1 << 20, 1 << 30, 1 << 52, u64::MAX] {
        for all in [frames, frames.saturating_mul(2), u64::MAX, 0] {
            let marks = Marks::usual(frames, all);
            assert!(marks.min() <= marks.low() && marks.low() <= marks.high());
            assert!(marks.min() <= frames / 8 && marks.high() <= frames / 4, "{frames} of {all}");
        }
    }
    // 16 MiB: 4 * sqrt(16384) KiB = 512 KiB. 16 TiB: 256 MiB, and 0.1% more for each mark.
    assert_eq!(Marks::usual(1 << 12, 1 << 12), Marks::new(128, 160, 192));
    assert_eq!(Marks::usual(1 << 11, 1 << 12), Marks::new(64, 80, 96));
    let (min, step) = (1 << 16, (1 << 32) / 1000);
    assert_eq!(Marks::usual(1 << 32, 1 << 32), Marks::new(min, min + step, min + 2 * step));
}

#[test]
fn a_wrong_free_is_an_error_and_changes_no_count() {
    let zones = three();
    let pa = zones.alloc(Request::new(1)).unwrap();
    let before = [0, 1, 2].map(|zone| zones.level(zone));
    let outside = PhysAddr::new(0x2000 << PAGE_SHIFT);
    for (at, order, error) in [
        (outside, 0, FreeError::OutOfRange { pa: outside, order: 0 }),
        (pa, 2, FreeError::DoubleFree { pa: pa.wrapping_add(0x2000) }),
        (
            pa.wrapping_add(0x1000),
            1,
            FreeError::Misaligned { pa: pa.wrapping_add(0x1000), order: 1 },
        ),
        (pa, 19, FreeError::BadOrder { order: 19 }),
        (pa, 52, FreeError::BadOrder { order: 52 }),
        (pa, 255, FreeError::BadOrder { order: 255 }),
    ] {
        // SAFETY: nothing reaches the block, and no memory is behind it.
        assert_eq!(unsafe { zones.free(at, order) }, Err(error));
        assert_eq!([0, 1, 2].map(|zone| zones.level(zone)), before);
    }
    // SAFETY: allocated above.
    assert_eq!(unsafe { zones.free(pa, 1) }, Ok(()));
    // SAFETY: as above: nobody has the block.
    assert_eq!(unsafe { zones.free(pa, 1) }, Err(FreeError::DoubleFree { pa }));
    assert_eq!(zones.count_free(), 64 + 128 + 512);
}

#[test]
fn errors_say_what_was_asked_for() {
    let zones = three();
    let request = Request::new(18).class(Class::Dma32).near(0);
    let error = zones.alloc(request).unwrap_err();
    assert_eq!(error.request(), &request);
    assert_eq!(OutOfFrames::from(error), OutOfFrames { order: 18 });
    let said = std::format!("{error}");
    assert_eq!(said, "no zone of class Dma32 has a free block of order 18");
}

#[test]
fn zones_of_several_kinds_and_zones_of_zones_are_one_source() {
    let inner = three();
    let other = frames(0x8000, 32);
    let kinds: [&dyn super::ZoneSource; 2] = [&inner, other];
    let zones = Zones::new(kinds.map(|source| Zone::new(source, Class::Normal)));
    zones.shared.levels[0].set_counts(inner.count_frames(), inner.count_free());
    zones.shared.levels[1].set_counts(32, 32);
    let dma = inner.asking(Request::new(0).class(Class::Dma));
    assert_eq!(dma.alloc(0).map(|pa| inner.zone_of(pa)), Ok(Some(0)));

    let (taken, _) = drain(&zones, Request::new(0));
    assert_eq!(taken.len(), 32 + 512 + (128 - 16) + (64 - 1 - 40));
    for pa in taken {
        // SAFETY: allocated above, and given back once.
        unsafe { FrameSource::free(&zones, pa, 0) };
    }
    assert_eq!(inner.count_free(), 64 - 1 + 128 + 512);
    assert_eq!(other.stats().free, 32);
}

#[test]
fn a_cpu_s_caches_share_the_levels() {
    let (low, high) = (frames(0, 256), frames(0x1000, 256));
    let zones =
        Zones::new([Zone::new(low, Class::Dma32).keep_ratio(4), Zone::new(high, Class::Normal)]);
    zones.recount();
    let caches = [Shared::<2>::new(low), Shared::<2>::new(high)];
    // SAFETY: this thread plays both CPUs, one after the other.
    let [first, second] =
        [0, 1].map(|cpu| zones.through(unsafe { [0, 1].map(|z| caches[z].on(cpu)) }));
    let page = first.alloc(Request::new(0)).unwrap();
    let low_page = second.asking(Request::new(0).class(Class::Dma32)).alloc(0).unwrap();
    assert_eq!((zones.zone_of(page), second.zone_of(low_page)), (Some(1), Some(0)));
    assert_eq!(zones.count_free(), 512 - 2);
    // SAFETY: allocated above; freed by the other CPU, once.
    unsafe {
        assert_eq!(second.free(page, 0), Ok(()));
        FrameSource::free(&first, low_page, 0);
    }
    assert_eq!(zones.count_free(), 512, "those in the caches are free");
    let (taken, _) = drain(&zones, Request::new(0));
    assert!(taken.len() >= 512 - 64 - 4 * 64, "but for what the caches hold");
}

#[test]
fn an_order_that_does_not_exist_disturbs_nobody() {
    struct Counting(AtomicU64);
    impl super::Reclaim for Counting {
        fn wake(&self, _zone: usize) {
            self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
        fn reclaim(&self, _request: &Request, _attempt: u32) -> u64 {
            self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            1
        }
    }
    let zones =
        Zones::with_reclaim([Zone::new(frames(0x400, 64), Class::Normal)], Counting(0.into()));
    zones.recount();
    zones.set_marks(0, Marks::new(60, 62, 64));
    let foreign = PhysAddr::new(0);
    for order in [19, 52, 64, 255] {
        let request = Request::new(order);
        assert_eq!(zones.alloc(request), Err(ZoneError::NoBlock { request }));
        // SAFETY: refused for its order, before anything is looked at.
        assert_eq!(unsafe { zones.free(foreign, order) }, Err(FreeError::BadOrder { order }));
    }
    assert_eq!(zones.reclaim().0.load(core::sync::atomic::Ordering::Relaxed), 0);
    let request = Request::new(5);
    assert_eq!(zones.alloc(request), Err(ZoneError::KeptBack { request }));
    assert!(zones.reclaim().0.load(core::sync::atomic::Ordering::Relaxed) > 0, "it counts");
}
