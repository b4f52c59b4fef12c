//! References with pages numbered densely, in the order in which they come first.
//!
//! ```text
//!   blocks   90 7 90 12 7        pages   0 1 0 2 1        distinct 3
//! ```

extern crate std;

use std::collections::HashMap;
use std::vec::Vec;

/// A stream of references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    pages: Vec<u32>,
    distinct: u32,
}

impl Stream {
    /// Numbers the pages. References beyond 2^32 - 1 different ones are left out: there is no memory for
    /// them either.
    pub fn new<T: core::hash::Hash + Eq>(blocks: impl IntoIterator<Item = T>) -> Self {
        let mut numbers: HashMap<T, u32> = HashMap::new();
        let number = |block: T| {
            let next = u32::try_from(numbers.len()).ok().filter(|&n| n < u32::MAX)?;
            Some(*numbers.entry(block).or_insert(next))
        };
        let pages: Vec<u32> = blocks.into_iter().filter_map(number).collect();
        let distinct = numbers.len() as u32;
        Self { pages, distinct }
    }

    /// A made-up program: `references` to about `pages` pages, the same for the same arguments.
    ///
    /// Of 1,000 references 966 are to a window of a twelfth of the pages, at random, which moves by a page
    /// every 4,000; 20 to any page, low ones more often (the page is `pages * u * u * u` for a random `u` below
    /// 1, by way of a permutation); 8 walk through all pages in order; and 6 go round a loop of a sixth of
    /// them. Random numbers are xorshift64's, from a fixed seed.
    #[must_use]
    pub fn synthetic(pages: u32, references: usize) -> Self {
        let pages = u64::from(pages.max(12));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 40
        };
        let (mut walked, mut looped) = (0, 0);
        Self::new((0..references as u64).map(|at| match at % 1000 {
            0..966 => (at / 4000 + random() % (pages / 12)) % pages,
            966..986 => {
                let u = random() & 0xffff;
                let cube = (((u * u) >> 16) * u) >> 16;
                ((cube * pages) >> 16) * 7919 % pages
            }
            986..994 => {
                walked += 1;
                walked % pages
            }
            _ => {
                looped += 1;
                (pages / 2 + looped % (pages / 6)) % pages
            }
        }))
    }

    /// The references, each below [`distinct`](Self::distinct).
    #[must_use]
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// How many different pages.
    #[must_use]
    pub const fn distinct(&self) -> u32 {
        self.distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbered_as_they_come() {
        let stream = Stream::new([90u64, 7, 90, 12, 7]);
        assert_eq!((stream.pages(), stream.distinct()), (&[0, 1, 0, 2, 1][..], 3));
    }
}
