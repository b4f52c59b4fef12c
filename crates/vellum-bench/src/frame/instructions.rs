//! Instructions of one pair, counted by valgrind.
//!
//! ```text
//!   valgrind --tool=callgrind  frame --pairs NAME  2000   --> n1   "Collected : n1"
//!   valgrind --tool=callgrind  frame --pairs NAME 22000   --> n2
//!                                     (n2 - n1) / 20000 = instructions per pair
//! ```
//!
//! A count does not depend on what else the machine does. Starting and setting up are in both runs,
//! and fall out of the difference. The loop around the pair, with its black boxes, does not: it is
//! the same handful of instructions for everybody.

use super::allocator::{Allocator, Size, Visit};
use super::rows::pairs;
use crate::callgrind::collected;
use std::path::Path;

/// Counts of the two runs; their difference is a round number.
const FEW: u64 = 2000;
const MANY: u64 = 22_000;

/// Runs the pairs of (a) with the allocator of this name: what the child does.
///
/// # Errors
///
/// The line to say when there is no such allocator, or no such number.
pub fn child(name: &str, count: &str) -> Result<(), String> {
    struct Run<'a> {
        name: &'a str,
        count: usize,
        found: bool,
    }
    impl Visit for Run<'_> {
        fn visit<A: Allocator>(&mut self) {
            if A::NAME == self.name {
                self.found = true;
                let mut allocator = A::new(Size::Gib4.frames());
                let mut frames = allocator.local();
                let held = super::allocator::Frames::alloc(&mut frames, 0);
                pairs(&mut frames, 0, self.count);
                if let Some(block) = held {
                    // SAFETY: allocated above.
                    unsafe { super::allocator::Frames::free(&mut frames, block, 0) };
                }
            }
        }
    }
    let count = count.parse().map_err(|_| format!("`{count}` is no number of pairs"))?;
    let mut run = Run { name, count, found: false };
    super::allocator::all(&mut run);
    if run.found { Ok(()) } else { Err(format!("there is no allocator `{name}`")) }
}

/// Instructions of one pair of the allocator of this name; `program` is this program.
///
/// # Errors
///
/// Why there is no count.
pub fn per_pair(program: &Path, name: &str) -> Result<f64, String> {
    let [few, many] = [FEW, MANY].map(|count| collected(program, name, count));
    Ok((many? - few?) as f64 / (MANY - FEW) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_takes_the_name_of_an_allocator_and_a_number() {
        assert_eq!(child("free-list", "10"), Ok(()));
        assert!(child("free-list", "ten").unwrap_err().contains("`ten`"));
        assert!(child("nobody", "10").unwrap_err().contains("`nobody`"));
    }
}
