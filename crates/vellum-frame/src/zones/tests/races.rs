//! Threads at the watermark.

use super::{drain, frames};
use crate::zones::{Class, CountFrames, Marks, Reclaim, Request, Urgency, Zone, Zones};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;
use std::thread;
use std::vec::Vec;
use vellum_core::PhysAddr;

const THREADS: usize = 3;

#[test]
fn several_cpus_stop_at_the_watermark_to_the_frame() {
    let (count, rounds) = if cfg!(miri) { (40, 2) } else { (600, 200) };
    let zones = Zones::new([
        Zone::new(frames(0, count), Class::Dma32).keep_ratio(20),
        Zone::new(frames(0x10_0000, count), Class::Normal),
    ]);
    zones.recount();
    zones.set_marks(0, Marks::new(7, 9, 11));
    zones.set_marks(1, Marks::new(5, 10, 15));
    let kept = count / 20;
    for _ in 0..rounds {
        for (urgency, left) in [
            (Urgency::Normal, [7 + kept, 5]),
            (Urgency::Atomic, [3 + kept, 2]),
            (Urgency::Emergency, [0, 0]),
        ] {
            let request = Request::new(0).urgency(urgency);
            let taken: Vec<PhysAddr> = thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..THREADS).map(|_| scope.spawn(|| drain(&zones, request).0)).collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
            });
            let free = [0, 1].map(|zone| zones.level(zone).expect("a zone").free);
            assert_eq!(free, left, "{urgency:?}");
            assert_eq!(taken.len() as u64, 2 * count - left[0] - left[1]);
            for pa in taken {
                // SAFETY: allocated above, and given back once.
                assert_eq!(unsafe { zones.free(pa, 0) }, Ok(()));
            }
        }
    }
}

/// Frees what it holds, a few frames at a time, from whichever thread calls.
struct Hoard {
    held: Mutex<Vec<PhysAddr>>,
    inside: AtomicU32,
    most: AtomicU32,
    freed: AtomicU64,
}

static HOARD: Hoard = Hoard {
    held: Mutex::new(Vec::new()),
    inside: AtomicU32::new(0),
    most: AtomicU32::new(0),
    freed: AtomicU64::new(0),
};

impl Reclaim for &'static Hoard {
    const AT_ONCE: u32 = 2;

    fn reclaim(&self, _request: &Request, _attempt: u32) -> u64 {
        self.most.fetch_max(self.inside.fetch_add(1, Relaxed) + 1, Relaxed);
        let some: Vec<_> = {
            let mut held = self.held.lock().expect("no panic");
            let keep = held.len().saturating_sub(3);
            held.drain(keep..).collect()
        };
        let zones = ZONES.get().expect("set before");
        for &pa in &some {
            // SAFETY: held for this callback, and taken out of its list.
            assert_eq!(unsafe { zones.free(pa, 0) }, Ok(()));
        }
        self.freed.fetch_add(some.len() as u64, Relaxed);
        self.inside.fetch_sub(1, Relaxed);
        some.len() as u64
    }
}

static ZONES: std::sync::OnceLock<Zones<super::Frames, 1, 1, &'static Hoard>> =
    std::sync::OnceLock::new();

/// What is taken, kept back and hoarded is all there is, whoever reclaims for whom.
#[test]
fn several_cpus_reclaim_at_once_and_lose_nothing() {
    let count = if cfg!(miri) { 48 } else { 2000 };
    let zones = ZONES
        .get_or_init(|| Zones::with_reclaim([Zone::new(frames(0, count), Class::Normal)], &HOARD));
    zones.recount();
    let hoard = drain(zones, Request::new(0).urgency(Urgency::Emergency)).0;
    assert_eq!(hoard.len() as u64, count);
    *HOARD.held.lock().unwrap() = hoard;
    zones.set_marks(0, Marks::new(6, 8, 10));
    let taken: usize = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| drain(zones, Request::new(0)).0.len())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    // Who finds both places inside taken gives up, so some may be hoarded still.
    let held = HOARD.held.lock().unwrap().len() as u64;
    assert_eq!(zones.count_free() + taken as u64 + held, count);
    assert!(taken as u64 + held + 6 <= count);
    assert_eq!(HOARD.freed.load(Relaxed), count - held);
    assert!(HOARD.most.load(Relaxed) <= 2, "at once");
    let rest = drain(zones, Request::new(0)).0.len() as u64;
    assert_eq!(taken as u64 + rest, count - 6, "alone, everything can be had down to the mark");
}
