//! (e) with two threads at once: 256 frames and back, on two CPUs that share the allocator.
//!
//! ```text
//!   thread 0   ready .... go |--alloc 256, free 256--| x N |  end
//!   thread 1   ready . go      |--alloc 256, free 256--| x N |     end
//!                      ^ the earlier start        the later end ^
//!                      |<----------- time that passed --------->|   / (N x 256) = ns per pair
//! ```
//!
//! Time that has passed, not CPU time: see [`crate::clock`]. A round in which the machine was
//! busy otherwise is longer, so that the minimum is one in which both really ran at once.

use super::allocator::{CPUS, Shared};
use super::rows::{BATCH, batches_of};
use crate::rounds::Contender;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

/// An allocator set up for this row.
#[must_use]
pub fn contender<A: Shared>(frames: u64, batches: usize) -> Contender {
    let allocator = A::new(frames);
    Contender::new(A::NAME, move || vec![turn(&allocator, batches)])
}

fn turn<A: Shared>(allocator: &A, batches: usize) -> f64 {
    let ready = AtomicUsize::new(0);
    let times: Vec<Option<(Instant, Instant)>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CPUS)
            .map(|cpu| {
                let ready = &ready;
                scope.spawn(move || {
                    let mut frames = allocator.on(cpu);
                    let mut held = [None; BATCH];
                    // Its cache, where it has one, is filled before.
                    batches_of(&mut frames, &mut held, 1);
                    ready.fetch_add(1, SeqCst);
                    while ready.load(SeqCst) < CPUS {
                        spin_loop();
                    }
                    let start = Instant::now();
                    batches_of(&mut frames, &mut held, batches);
                    (start, Instant::now())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    let starts = times.iter().flatten().map(|(start, _)| *start);
    let ends = times.iter().flatten().map(|(_, end)| *end);
    match (starts.min(), ends.max()) {
        (Some(start), Some(end)) if times.iter().all(Option::is_some) => {
            end.duration_since(start).as_nanos() as f64 / (batches * BATCH) as f64
        }
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::super::allocator::{self, VisitShared};
    use super::*;

    #[test]
    fn two_threads_at_once_get_a_figure_from_every_shared_allocator() {
        struct Turns(usize);
        impl VisitShared for Turns {
            fn visit<A: Shared>(&mut self) {
                let nanos = turn(&A::new(1 << 20), 3);
                assert!(nanos > 0.0, "{}: {nanos}", A::NAME);
                self.0 += 1;
            }
        }
        let mut turns = Turns(0);
        allocator::shared(&mut turns);
        assert_eq!(turns.0, 8);
    }
}
