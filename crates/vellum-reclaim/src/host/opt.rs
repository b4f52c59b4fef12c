//! OPT: the page whose next reference is farthest away goes. Nothing has fewer misses.
//!
//! ```text
//!   reference   a b c a d b ...          next of each, found from the end:  a@3 b@5 c: never
//!   2 frames:   a b, c comes: of a@3 and b@5, b goes
//!                                        resident pages lie ordered by their next reference
//! ```
//!
//! It needs the future, so that it is no [`Replacement`](crate::Replacement) and no kernel has it.
//!
//! # Invariants
//!
//! - The set has one entry for each resident page: its next reference. Two pages have different ones,
//!   but for those that never come again, which any choice suits.
//!
//! Costs: O(n log frames) for n references, and 4 bytes for each of them.
//!
//! Source: L. A. Belady, 1966 (MIN); Mattson and others, 1970 (OPT).

extern crate std;

use super::Stream;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

/// The next reference of a page that has none: its position is behind all others.
const NEVER: u32 = u32::MAX;

/// When each reference's page is referenced next.
fn next_of_each(stream: &Stream) -> Vec<u32> {
    let mut seen = vec![NEVER; stream.distinct() as usize];
    let mut next = vec![NEVER; stream.pages().len()];
    for (at, (&page, next)) in stream.pages().iter().zip(&mut next).enumerate().rev() {
        if let Some(seen) = seen.get_mut(page as usize) {
            *next = core::mem::replace(seen, u32::try_from(at).unwrap_or(NEVER));
        }
    }
    next
}

/// The least misses that are possible with so many frames, each page of which is brought in when it is
/// referenced. With no frames every reference misses.
#[must_use]
pub fn misses(stream: &Stream, frames: u32) -> u64 {
    let next = next_of_each(stream);
    let mut resident: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut misses = 0;
    for (at, (&page, &next)) in stream.pages().iter().zip(&next).enumerate() {
        let at = u32::try_from(at).unwrap_or(NEVER);
        // A resident page's next reference was this one.
        if !resident.remove(&(at, page)) {
            misses += 1;
            if resident.len() >= frames as usize {
                resident.pop_last();
            }
        }
        if frames > 0 {
            resident.insert((next, page));
        }
    }
    misses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textbooks_string_has_nine_faults_with_three_frames() {
        // Silberschatz and others, Operating System Concepts, 10.4.3.
        let stream = Stream::new([7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1]);
        assert_eq!(misses(&stream, 3), 9);
        assert_eq!(misses(&stream, 0), 20);
        assert_eq!(misses(&stream, 6), 6);
    }
}
