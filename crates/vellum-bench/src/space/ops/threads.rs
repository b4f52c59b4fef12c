//! Two CPUs that fault in one space, beside one.
//!
//! ```text
//!   region   |------ CPU 0 ------|------ CPU 1 ------|      half the pages each
//! ```

use super::acts;
use super::world::{PLACE, RW, place, touch};
use crate::fault::designs::Design;
use crate::fault::ram::Turn;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;
use vellum_core::PAGE_SIZE;
use vellum_fault::Access;

/// Pages that are faulted in, by all together.
pub(super) const PAGES: u64 = 8192;

/// Nanoseconds that pass while `cpus` threads do that, each its share.
pub(super) fn passed<D: Design>(cpus: u64) -> f64 {
    acts::with_world::<D, _>(|world| {
        let space = &world.space;
        place(space, PLACE, PAGES * PAGE_SIZE, RW);
        touch(space, PLACE, PAGE_SIZE, (1, Access::Write));
        let len = PAGES / cpus * PAGE_SIZE;
        let start = Barrier::new(cpus as usize);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..cpus)
                .map(|cpu| {
                    let start = &start;
                    scope.spawn(move || {
                        // SAFETY: one of `cpus` threads with a number each, for which the one that
                        // has the turn waits.
                        unsafe { Turn::worker(cpu as usize) };
                        start.wait();
                        let watch = Instant::now();
                        touch(space, PLACE + cpu * len, len, (1, Access::Write));
                        watch.elapsed().as_nanos() as f64
                    })
                })
                .collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).fold(0.0, f64::max)
        })
    })
}
