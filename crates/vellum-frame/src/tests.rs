//! Tests of the whole allocator, against a plain model and under threads.
//!
//! ```text
//!   init      memory maps of any kind    ->  the very frames that a set of frame numbers says
//!   blocks    alloc, alloc_at, free      ->  a byte for each frame
//!   races     several threads            ->  an owner for each frame
//!
//!   surface   every call, caches, CPUs   ->  `model`, a state for each frame
//!   alone     Exclusive                  ->  `model`
//!   choice    which block is taken       ->  the very one
//!   exhaustion  k frames for every k     ->  the set of frames that are free
//!   stress    threads, `ways` mixed      ->  an owner for each frame
//!   interrupts  Local under signals      ->  an owner for each frame
//! ```

mod alone;
mod blocks;
mod choice;
mod exhaustion;
mod init;
mod interrupts;
mod model;
mod races;
mod stress;
mod surface;
mod ways;

use crate::{FrameAllocator, InitError, PhysRange};
use core::sync::atomic::AtomicU64;
use std::boxed::Box;
use std::vec::Vec;

/// `words` words of storage, filled with rubbish that `init_in` must not trust.
fn storage(words: u64) -> Box<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0xdead_beef_dead_beef)).collect()
}

/// `init_in`, for frames without bytes behind them, in storage that the test leaves alone.
fn set_up<'m, U, R>(
    frames: &FrameAllocator<'m>,
    room: &'m [AtomicU64],
    usable: U,
    reserved: R,
) -> Result<(), InitError>
where
    U: IntoIterator<Item: Into<PhysRange>> + Clone,
    R: IntoIterator<Item: Into<PhysRange>> + Clone,
{
    // SAFETY: no memory is behind the frames of these tests, so nobody uses any; no test writes to
    // the storage it made for an allocator, nor gives it to a second one while the first lives.
    unsafe { frames.init_in(room, usable, reserved) }
}

/// Bytes of `frames` frames.
const fn bytes(frames: u64) -> u64 {
    frames << vellum_core::PAGE_SHIFT
}

/// The numbers of all free frames, as `free_runs` tells them.
fn free_frames(frames: &FrameAllocator<'_>) -> Vec<u64> {
    frames
        .free_runs()
        .flat_map(|(start, count)| (start.number().as_u64()..).take(count as usize))
        .collect()
}

/// How many cases proptest runs; Miri is a thousand times slower.
const fn cases(natively: u32, under_miri: u32) -> u32 {
    if cfg!(miri) { under_miri } else { natively }
}
