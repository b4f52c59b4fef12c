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
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Whether valgrind can be started.
#[must_use]
pub fn available() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
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

fn collected(program: &Path, name: &str, count: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--pairs", name, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind does not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(count_in)
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind counted nothing for {name}: {}", output.status))
}

/// `==123== Collected : 456`.
fn count_in(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("Collected")?;
    rest.trim_start_matches([' ', ':']).split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_valgrinds_words() {
        assert_eq!(count_in("==123== Collected : 45678"), Some(45678));
        assert_eq!(count_in("==123== Collected : 45678 1 2"), Some(45678));
        assert_eq!(count_in("==123== Events    : Ir"), None);
    }

    #[test]
    fn a_child_takes_the_name_of_an_allocator_and_a_number() {
        assert_eq!(child("free-list", "10"), Ok(()));
        assert!(child("free-list", "ten").unwrap_err().contains("`ten`"));
        assert!(child("nobody", "10").unwrap_err().contains("`nobody`"));
    }
}
