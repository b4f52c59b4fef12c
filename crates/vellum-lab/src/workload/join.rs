//! A hash join: a table is built of one relation and probed with the other.
//!
//! ```text
//!   R: (key, payload) --hash--> slots, linear probing, half full      S: key --> R's payload
//! ```
//!
//! R has each key below |R| once, in random order; S has four times as many tuples, with keys below
//! 2|R|, so that half of the probes find nothing. Making the relations is not recorded.
//!
//! Source: Blanas, Li, Patel, "Design and Evaluation of Main Memory Hash Join Algorithms", SIGMOD
//! 2011: the join without partitioning.

use super::tape::Tape;
use crate::experiment::Random;
use crate::trace::TraceFault;

/// A key, from 1 on, and what goes with it; 0 is an empty slot.
type Tuple = [u64; 2];

/// The most tuples of S, so that a trace has its usual length.
const MOST_PROBES: usize = 2_000_000;

/// What came of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) matches: u64,
    pub(super) payloads: u64,
}

/// The payload of a key.
const fn payload(key: u64) -> u64 {
    key * 3 + 1
}

/// The keys of S.
fn probes(count: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut random = Random::new(!seed);
    (0..MOST_PROBES.min(4 * count)).map(move |_| 1 + random.below(2 * count as u64))
}

/// Joins relations of which R takes so many bytes.
pub(super) fn run(tape: &mut Tape, bytes: u64, seed: u64) -> Result<Joined, TraceFault> {
    let count = usize::try_from(bytes / size_of::<Tuple>() as u64)
        .map_err(|_| TraceFault::Data { bytes })?;
    let mut keys: Vec<u64> = (1..=count as u64).collect();
    Random::new(seed).shuffle(&mut keys);
    let r = tape.array(count, |i| [keys[i], payload(keys[i])])?;
    let s: Vec<u64> = probes(count, seed).collect();
    let s = tape.array(s.len(), |i| s[i])?;
    let mut slots = tape.array((2 * count).next_power_of_two(), |_| [0; 2])?;
    let mask = slots.len() - 1;
    let hash = |key: u64| (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize & mask;
    for i in 0..r.len() {
        let tuple = r.get(tape, i);
        let mut slot = hash(tuple[0]);
        while slots.get(tape, slot)[0] != 0 {
            slot = (slot + 1) & mask;
        }
        slots.set(tape, slot, tuple);
    }
    let mut joined = Joined { matches: 0, payloads: 0 };
    for i in 0..s.len() {
        let key = s.get(tape, i);
        let mut slot = hash(key);
        loop {
            let there = slots.get(tape, slot);
            if there[0] == key {
                joined.matches += 1;
                joined.payloads = joined.payloads.wrapping_add(there[1]);
            }
            if there[0] == key || there[0] == 0 {
                break;
            }
            slot = (slot + 1) & mask;
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_there_is_found_once() {
        let count = (1u64 << 20) / 16;
        let joined = run(&mut Tape::new(None), 1 << 20, 3).unwrap();
        let found: Vec<u64> =
            probes(count as usize, 3).filter(|&key| key <= count).map(payload).collect();
        assert_eq!(joined.matches, found.len() as u64);
        assert_eq!(joined.payloads, found.iter().sum::<u64>());
        let half = 4 * count / 2;
        assert!(joined.matches.abs_diff(half) < half / 50, "{joined:?}");
    }
}
