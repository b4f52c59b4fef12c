//! Words of table memory, reached by physical address.
//!
//! ```text
//!   PhysAddr --PhysMap::with--> pointer, for one call --AtomicU64::from_ptr--> load, store, CAS
//! ```
//!
//! Global tables link their parts by physical address, so every step of a walk comes through here.
//! A pointer lives for one access, or for those to one node; nothing ever makes a reference to table
//! memory other than to atomic words.
//!
//! # Invariants
//!
//! - Once a frame is part of a table, its words are touched through atomics of 64 bits only.

use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{FrameSource, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap, order_bytes};

/// Calls `f` with the word at `at`.
///
/// # Safety
///
/// `at` is a multiple of 8 and lies in a frame that was taken from `memory` and is not given back
/// before this returns; whoever else touches that word meanwhile does so through here.
#[inline]
pub unsafe fn with_word<M: PhysMap, R>(
    memory: &M,
    at: PhysAddr,
    f: impl FnOnce(&AtomicU64) -> R,
) -> R {
    memory.with(at, |p| {
        // SAFETY: `PhysMap` gives a pointer that is valid, with provenance, to the end of the
        // frame, and frames are aligned, so 8 bytes at a multiple of 8 lie in it and are aligned;
        // the caller keeps other kinds of access away.
        f(unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) })
    })
}

/// Calls `f` with the `N` words from `at` on.
///
/// # Safety
///
/// As [`with_word`], of each of them; they lie in one frame.
#[inline]
pub unsafe fn with_words<M: PhysMap, const N: usize, R>(
    memory: &M,
    at: PhysAddr,
    f: impl FnOnce(&[AtomicU64; N]) -> R,
) -> R {
    memory.with(at, |p| {
        // SAFETY: the pointer is valid to the end of the frame, in which the words are, by the
        // caller; they are aligned, since `at` is; and everybody uses atomics, which make a shared
        // reference to them sound whoever stores.
        f(unsafe { p.cast::<[AtomicU64; N]>().as_ref() })
    })
}

/// The word at `at`, unordered: for what a lock orders.
///
/// # Safety
///
/// As [`with_word`].
#[inline]
pub unsafe fn load<M: PhysMap>(memory: &M, at: PhysAddr) -> u64 {
    // SAFETY: the caller's.
    unsafe { with_word(memory, at, |word| word.load(Ordering::Relaxed)) }
}

/// Sets the word at `at`, unordered: for what a lock orders.
///
/// # Safety
///
/// As [`with_word`].
#[inline]
pub unsafe fn store<M: PhysMap>(memory: &M, at: PhysAddr, value: u64) {
    // SAFETY: the caller's.
    unsafe { with_word(memory, at, |word| word.store(value, Ordering::Relaxed)) }
}

/// Takes a block of 2<sup>`order`</sup> frames and fills it with zeros.
///
/// # Errors
///
/// [`OutOfFrames`].
pub fn alloc_zeroed<M: PhysMap + FrameSource>(
    memory: &M,
    order: u8,
) -> Result<PhysAddr, OutOfFrames> {
    let block = memory.alloc(order)?;
    let mut offset = 0;
    while offset < order_bytes(order) {
        memory.with(block.wrapping_add(offset), |p| {
            // SAFETY: the frame was allocated just now, so its 4 KiB are valid and nobody else
            // knows of them.
            unsafe { p.write_bytes(0, PAGE_SIZE as usize) }
        });
        offset += PAGE_SIZE;
    }
    Ok(block)
}
