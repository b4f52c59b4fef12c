//! The bytes of one frame, filled and compared a word at a time.
//!
//! ```text
//!   word         0      1      2            511
//!             |cececece|ce00cece|cecec7ce| ... |
//!   differing        first ^        ^ last          offset 9, 6 bytes
//! ```
//!
//! # Invariants
//!
//! - No reference is made to a frame: words are read and written through the pointer alone.

use core::ptr::NonNull;
use vellum_core::PAGE_SIZE;

const WORDS: usize = PAGE_SIZE as usize / size_of::<u64>();

/// So many words are compared between two branches.
const STRIDE: usize = 8;

/// Zeros a frame that its owner is about to read.
///
/// # Safety
///
/// `frame` is good for writes of 4 KiB, and nobody else reaches them.
pub(super) unsafe fn zero(frame: NonNull<u8>) {
    // SAFETY: as the caller says.
    unsafe { frame.write_bytes(0, PAGE_SIZE as usize) };
}

/// Fills a frame, whether or not anybody will read it.
///
/// # Safety
///
/// `frame` is good for writes of 4 KiB and aligned to a word, and nobody else reaches them.
pub(super) unsafe fn fill(frame: NonNull<u8>, byte: u8) {
    let words = frame.cast::<u64>();
    let word = u64::from_ne_bytes([byte; 8]);
    for index in 0..WORDS {
        // SAFETY: `index` is a word of the 4 KiB that the caller gave.
        unsafe { words.add(index).write_volatile(word) };
    }
}

/// Where a frame holds anything but `byte`: the first such byte, how many bytes there are from it
/// to the last one, and what it is.
///
/// The reads are volatile: who asks suspects that somebody writes to the frame who should not.
///
/// # Safety
///
/// `frame` is good for reads of 4 KiB and aligned to a word.
pub(super) unsafe fn differing(frame: NonNull<u8>, byte: u8) -> Option<(u16, u16, u8)> {
    let words = frame.cast::<u64>();
    let word = u64::from_ne_bytes([byte; 8]);
    let same = (0..WORDS).step_by(STRIDE).all(|start| {
        let change = (start..start + STRIDE).fold(0, |change, index| {
            // SAFETY: `index` is a word of the 4 KiB that the caller gave, since STRIDE divides
            // WORDS.
            change | (word ^ unsafe { words.add(index).read_volatile() })
        });
        change == 0
    });
    if same {
        return None;
    }
    // SAFETY: `index` is a byte of the 4 KiB that the caller gave.
    let at = |index: u16| unsafe { frame.add(usize::from(index)).read_volatile() };
    let mut changed = (0..PAGE_SIZE as u16).filter_map(|index| {
        let found = at(index);
        (found != byte).then_some((index, found))
    });
    // Whoever writes to the frame may have put it right just now: then there is nothing to tell.
    let (first, found) = changed.next()?;
    let last = changed.next_back().map_or(first, |(index, _)| index);
    Some((first, last - first + 1, found))
}
