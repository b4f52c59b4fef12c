//! A spin lock around a peer that has none.
//!
//! `spin::Mutex` is what the kernels use that take these crates; it is one compare-and-swap to
//! lock and one store to unlock. The lock is held for one call, and for nothing else. (A ticket
//! lock would be fairer and slower.)

use super::super::allocator::{Allocator, Frames, Shared, Side};
use core::fmt;
use spin::Mutex;

/// A peer that is used behind a lock as well.
pub trait Lockable: Allocator + Send {
    /// As the tables call it then.
    const LOCKED: &'static str;
}

/// The peer behind a spin lock.
pub struct Locked<A>(Mutex<A>);

impl<A> fmt::Debug for Locked<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an allocator behind a spin lock")
    }
}

impl<A: Lockable> Allocator for Locked<A> {
    const NAME: &'static str = A::LOCKED;
    const SIDE: Side = Side::Shared;
    const TOO_SLOW_FOR: &'static [&'static str] = A::TOO_SLOW_FOR;
    const PLACES_LIKE: &'static str = A::NAME;
    type Block = A::Block;
    type Local<'a> = &'a Self;

    fn new(frames: u64) -> Self {
        Self(Mutex::new(A::new(frames)))
    }

    fn again(&mut self) {
        self.0.get_mut().again();
    }

    fn blank(&mut self) {
        self.0.get_mut().blank();
    }

    fn local(&mut self) -> &Self {
        self
    }

    fn numbering(&self) -> Box<dyn Fn(A::Block) -> u64> {
        self.0.lock().numbering()
    }

    fn bits_per_frame(frames: u64) -> f64 {
        A::bits_per_frame(frames)
    }
}

impl<A: Lockable> Shared for Locked<A> {
    type OnCpu<'a> = &'a Self;

    fn on(&self, _cpu: usize) -> &Self {
        self
    }
}

impl<A: Lockable> Frames for &Locked<A> {
    type Block = A::Block;

    fn alloc(&mut self, order: u8) -> Option<A::Block> {
        self.0.lock().local().alloc(order)
    }

    unsafe fn free(&mut self, block: A::Block, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.0.lock().local().free(block, order) };
    }
}
