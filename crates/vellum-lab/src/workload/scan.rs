//! A sequential scan: an array is written once and read from end to end.
//!
//! ```text
//!   a[0] a[1] a[2] ... a[n-1]      four times
//! ```

use super::tape::Tape;
use crate::trace::TraceFault;

const PASSES: u64 = 4;

/// Writes an array of so many bytes and reads it; the sum of what was read.
pub(super) fn run(tape: &mut Tape, bytes: u64) -> Result<u64, TraceFault> {
    let words = usize::try_from(bytes / 8).map_err(|_| TraceFault::Data { bytes })?;
    let mut array = tape.array(words, |_| 0u64)?;
    for i in 0..words {
        array.set(tape, i, i as u64);
    }
    let mut sum = 0u64;
    for _ in 0..PASSES {
        for i in 0..words {
            sum = sum.wrapping_add(array.get(tape, i));
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_numbers() {
        let mut tape = Tape::new(None);
        let n = (1u64 << 20) / 8;
        assert_eq!(run(&mut tape, 1 << 20).unwrap(), PASSES * n * (n - 1) / 2);
        assert_eq!(tape.trace("scan").unwrap().events.len() as u64, (1 + PASSES) * 256);
    }
}
