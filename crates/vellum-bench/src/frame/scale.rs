//! What size does: time to begin, time per operation from 4 GiB to 1 TiB, and metadata.
//!
//! ```text
//!   init   metadata of 1 TiB, all frames free      again and again over the same pages, so that
//!                                                  the host's page faults are not in it
//!   flat   at 4 GiB, 64 GiB, 1 TiB:                flat = the same figure three times
//!            the pair of (a)
//!            70% used, blocks everywhere; a working set of 1024 of them is replaced at random
//!   meta   bits of metadata for each frame         from the sizes of each crate's own types
//! ```

use super::allocator::{Allocator, Size};
use super::rows::pairs;
use super::stream::{Slots, Stream};
use crate::clock::Stopwatch;
use crate::rounds::Contender;
use std::rc::Rc;

/// Milliseconds until all frames can be had.
#[must_use]
pub fn init<A: Allocator>(size: Size) -> Contender {
    let mut allocator = A::new(size.frames());
    Contender::new(A::NAME, move || {
        allocator.blank();
        let watch = Stopwatch::start();
        allocator.again();
        vec![watch.nanos() / 1e6]
    })
}

/// Nanoseconds for the pair of (a) and for each request of the stream.
#[must_use]
pub fn flat<A: Allocator>(size: Size, stream: &Rc<Stream>, count: usize) -> Contender {
    let mut allocator = A::new(size.frames());
    let mut slots = Slots::new(stream.slots);
    let stream = Rc::clone(stream);
    let mut filled = false;
    Contender::new(A::NAME, move || {
        let mut frames = allocator.local();
        if !filled {
            // Once: to fill 1 TiB takes far longer than what is measured then.
            // SAFETY: the slots are empty.
            unsafe { slots.replay(&stream.fill, &mut frames) };
            filled = true;
        }
        let watch = Stopwatch::start();
        // SAFETY: the slots are as the fill, or an earlier churn, which ends as it began, left them.
        unsafe { slots.replay(&stream.churn, &mut frames) };
        let mixed = watch.nanos_each(stream.churn.len());
        let watch = Stopwatch::start();
        pairs(&mut frames, 0, count);
        vec![watch.nanos_each(count), mixed]
    })
}
