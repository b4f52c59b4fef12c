//! One entry as a word of 32 or 64 bits, whichever the format has.
//!
//! Entries that others can reach are read and written atomically; `read` and `write` are for nodes
//! that nothing links.

use crate::format::Format;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What of a word an entry holds.
#[inline(always)]
pub(super) fn cut<F: Format>(raw: u64) -> u64 {
    if F::ENTRY_SHIFT == 3 { raw } else { raw & u64::from(u32::MAX) }
}

/// The word as an entry of 32 bits.
#[inline(always)]
#[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "cuts on purpose")]
pub(super) fn narrow(raw: u64) -> u32 {
    raw as u32
}

/// Entry `i` from `p` on, as an atomic of 64 bits.
///
/// # Safety
///
/// `p` points at an entry of a node in use, of 8 bytes; entry `i` from there is in the same frame;
/// others access it only atomically.
#[inline(always)]
pub(super) unsafe fn wide<'p>(p: NonNull<u8>, i: u64) -> &'p AtomicU64 {
    let i = usize::try_from(i).unwrap_or(0);
    // SAFETY: within the frame that `p` is valid for, aligned as entries of a frame are.
    unsafe { AtomicU64::from_ptr(p.cast::<u64>().add(i).as_ptr()) }
}

/// As [`wide`], of 32 bits.
///
/// # Safety
///
/// As of [`wide`], with entries of 4 bytes.
#[inline(always)]
pub(super) unsafe fn half<'p>(p: NonNull<u8>, i: u64) -> &'p AtomicU32 {
    let i = usize::try_from(i).unwrap_or(0);
    // SAFETY: within the frame that `p` is valid for, aligned as entries of a frame are.
    unsafe { AtomicU32::from_ptr(p.cast::<u32>().add(i).as_ptr()) }
}

/// Reads entry `i` from `p` on.
///
/// # Safety
///
/// As of [`wide`] or [`half`], by the format's entries.
#[inline(always)]
pub(super) unsafe fn load<F: Format>(p: NonNull<u8>, i: u64, order: Ordering) -> u64 {
    // SAFETY: passed on.
    unsafe {
        if F::ENTRY_SHIFT == 3 { wide(p, i).load(order) } else { u64::from(half(p, i).load(order)) }
    }
}

/// Writes entry `i` from `p` on; what was written before is seen by who reads it.
///
/// # Safety
///
/// As of [`wide`] or [`half`], by the format's entries.
#[inline(always)]
pub(super) unsafe fn store<F: Format>(p: NonNull<u8>, i: u64, raw: u64) {
    // SAFETY: passed on.
    unsafe {
        if F::ENTRY_SHIFT == 3 {
            wide(p, i).store(raw, Ordering::Release);
        } else {
            half(p, i).store(narrow(raw), Ordering::Release);
        }
    }
}

/// Writes entry `i` from `p` on and returns what it was.
///
/// # Safety
///
/// As of [`wide`] or [`half`], by the format's entries.
#[inline(always)]
pub(super) unsafe fn swap<F: Format>(p: NonNull<u8>, i: u64, raw: u64) -> u64 {
    // SAFETY: passed on.
    unsafe {
        if F::ENTRY_SHIFT == 3 {
            wide(p, i).swap(raw, Ordering::AcqRel)
        } else {
            u64::from(half(p, i).swap(narrow(raw), Ordering::AcqRel))
        }
    }
}

/// Writes `new` to entry `i` from `p` on if it is `old`; otherwise returns what it is.
///
/// # Safety
///
/// As of [`wide`] or [`half`], by the format's entries.
#[inline(always)]
pub(super) unsafe fn exchange<F: Format>(
    p: NonNull<u8>,
    i: u64,
    old: u64,
    new: u64,
) -> Result<(), u64> {
    let (won, lost) = (Ordering::AcqRel, Ordering::Acquire);
    // SAFETY: passed on.
    unsafe {
        if F::ENTRY_SHIFT == 3 {
            wide(p, i).compare_exchange(old, new, won, lost).map(drop)
        } else {
            let swapped = half(p, i).compare_exchange(narrow(old), narrow(new), won, lost);
            swapped.map(drop).map_err(u64::from)
        }
    }
}

/// Writes entry `i` from `p` on, plainly.
///
/// # Safety
///
/// The entry lies in the frame of `p`, and nobody else reaches it.
#[inline(always)]
pub(super) unsafe fn write<F: Format>(p: NonNull<u8>, i: u64, raw: u64) {
    let i = usize::try_from(i).unwrap_or(0);
    // SAFETY: the caller's word.
    unsafe {
        if F::ENTRY_SHIFT == 3 {
            p.cast::<u64>().add(i).write(raw);
        } else {
            p.cast::<u32>().add(i).write(narrow(raw));
        }
    }
}

/// Reads entry `i` from `p` on, plainly.
///
/// # Safety
///
/// The entry lies in the frame of `p`, is initialised, and nobody writes it.
#[inline(always)]
pub(super) unsafe fn read<F: Format>(p: NonNull<u8>, i: u64) -> u64 {
    let i = usize::try_from(i).unwrap_or(0);
    // SAFETY: the caller's word.
    unsafe {
        if F::ENTRY_SHIFT == 3 {
            p.cast::<u64>().add(i).read()
        } else {
            u64::from(p.cast::<u32>().add(i).read())
        }
    }
}
