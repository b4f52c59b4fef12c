//! GUPS: random updates of a large table.
//!
//! ```text
//!   table[r mod n] ^= r      r from splitmix64; n any number of 64-bit words
//! ```
//!
//! The table is first written from end to end, as a program that makes it does. HPCC's own
//! generator, a shift register that begins at 1, is not uniform at first; splitmix64 is.
//!
//! Source: HPC Challenge, RandomAccess, but for the generator.

use super::tape::{Array, Tape};
use crate::experiment::Random;
use crate::trace::TraceFault;

/// Updates of the workload `gups`; each is a read and a write.
pub(super) const UPDATES: u64 = 4_000_000;

/// Makes a table of so many bytes and updates it; the table.
pub(super) fn run(
    tape: &mut Tape,
    bytes: u64,
    updates: u64,
    seed: u64,
) -> Result<Array<u64>, TraceFault> {
    let words = usize::try_from(bytes / 8).map_err(|_| TraceFault::Data { bytes })?;
    let mut table = tape.array(words, |_| 0)?;
    for i in 0..words {
        table.set(tape, i, i as u64);
    }
    update(tape, &mut table, updates, seed);
    Ok(table)
}

fn update(tape: &mut Tape, table: &mut Array<u64>, updates: u64, seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..updates {
        if tape.is_full() {
            return;
        }
        let r = random.next();
        let i = (r % table.len() as u64) as usize;
        let word = table.get(tape, i);
        table.set(tape, i, word ^ r);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exclusive or is its own inverse: the same updates once more restore the table.
    #[test]
    fn the_same_updates_again_undo_it() {
        let mut tape = Tape::new(None);
        let mut table = run(&mut tape, 1 << 20, 100_000, 7).unwrap();
        let wrong = |table: &Array<u64>| {
            table.items().iter().zip(0..).filter(|&(&word, i)| word != i).count()
        };
        assert!(wrong(&table) > table.len() / 2);
        update(&mut tape, &mut table, 100_000, 7);
        assert_eq!(wrong(&table), 0);
        let trace = tape.trace("gups").unwrap();
        assert_eq!(trace.pages, 256);
        // A sweep, then a read and a write each; now and then a page twice in a row.
        assert!((398_000..=400_256).contains(&trace.events.len()), "{}", trace.events.len());
    }
}
