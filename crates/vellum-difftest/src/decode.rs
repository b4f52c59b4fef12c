//! Any bytes as a sequence: what a fuzzer needs.
//!
//! ```text
//!   byte 0     the arena, or the heap
//!   then       kind | operands, each in as many bytes as it has to have | kind | ...
//!   the end    bytes that are missing are zero
//!
//!   place      page 0 to 79, or now and then a byte within one, below the arena, or beyond user memory;
//!              only the first in a heap, which lies elsewhere on every host, with a fence below
//!   length     pages 0 to 95, or now and then bytes too many, or one of a few vast ones
//!   flags      mostly one of the usual ones; else whatever bits the bytes have
//! ```
//!
//! [`sequence`] is total: there are no bytes that it refuses, and no sequence of its that
//! [`Sequence::check`] refuses. What a small change of the bytes changes is mostly one operand, so that a
//! fuzzer that is guided by coverage gets on. It needs no more than one of the usual harnesses:
//!
//! ```
//! use vellum_difftest::{decode, ours};
//!
//! // In `fuzz_target!(|bytes: &[u8]| ...)`, or in a loop over a folder of files:
//! let bytes = [0, 1, 2, 3];
//! let mut subject = ours::by_name("radix4").expect("it is a design");
//! // Fails if a frame was lost; everything else that goes wrong is a panic.
//! assert!(subject.run(&decode::sequence(&bytes)).is_ok());
//! ```

use crate::abi::{self, Names, PAGE, TASK_SIZE};
use crate::op::{ARENA_PAGES, Access, Op, Place, Resource, Sequence, Source};

/// Operations of a sequence at most.
pub const MOST_OPS: usize = 256;
/// Forks of a sequence at most: each may need all memory of its parent once more.
pub const MOST_FORKS: usize = 4;

/// The sequence that these bytes mean.
#[must_use]
pub fn sequence(bytes: &[u8]) -> Sequence {
    let mut bytes = Bytes(bytes);
    let heap = bytes.byte() & 7 == 7;
    let mut ops = Vec::new();
    let mut forks = 0;
    while !bytes.0.is_empty() && ops.len() < MOST_OPS {
        let op = bytes.op(heap);
        if heap && !is_of_a_heap(&op) {
            continue;
        }
        forks += usize::from(op == Op::Fork);
        if op.check().is_ok() && (op != Op::Fork || forks <= MOST_FORKS) {
            ops.push(op);
        }
    }
    Sequence { pages: ARENA_PAGES, heap, ops }
}

/// Whether it stays in a heap, and leaves it one.
fn is_of_a_heap(op: &Op) -> bool {
    match *op {
        Op::Map { .. } | Op::Remap { .. } => false,
        Op::Unmap { at, .. }
        | Op::Protect { at, .. }
        | Op::Advise { at, .. }
        | Op::Lock { at, .. }
        | Op::Lock2 { at, .. }
        | Op::Unlock { at, .. }
        | Op::Sync { at, .. }
        | Op::InCore { at, .. }
        | Op::Seal { at, .. }
        | Op::Read { at }
        | Op::Write { at, .. }
        | Op::Scan { at, .. }
        | Op::Fill { at, .. } => matches!(at, Place::Arena(0..)),
        _ => true,
    }
}

/// What is left of them.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// One of these.
    fn pick<T: Copy>(&mut self, from: &[T], otherwise: T) -> T {
        let at = usize::from(self.byte()) % from.len().max(1);
        from.get(at).copied().unwrap_or(otherwise)
    }

    /// Some of these bits, or, now and then, any bits.
    fn bits(&mut self, names: Names) -> u64 {
        match self.byte() {
            250.. => self.number(4),
            some => names
                .iter()
                .enumerate()
                .filter(|(at, _)| some >> (at % 8) & 1 != 0)
                .fold(0, |bits, (_, &(_, value))| bits | value),
        }
    }

    fn place(&mut self) -> Place {
        let page = PAGE.cast_signed();
        match self.byte() {
            at @ ..240 => Place::Arena(i64::from(at) / 3 * page),
            at @ 240..248 => {
                let within = self.number(2).cast_signed() % page;
                Place::Arena(i64::from(at - 240) * 9 * page + within)
            }
            at @ 248..252 => Place::Arena((i64::from(at) - 252) * 7 * page),
            252 => Place::Absolute(0),
            253 => Place::Absolute(TASK_SIZE - PAGE),
            254 => Place::Absolute(TASK_SIZE),
            255 => Place::Absolute(u64::MAX - PAGE + 1),
        }
    }

    fn len(&mut self) -> u64 {
        const VAST: [u64; 6] =
            [1 << 47, TASK_SIZE, 1 << 63, u64::MAX - PAGE + 1, u64::MAX, 1 << 25];
        match self.byte() {
            pages @ ..230 => u64::from(pages) / 4 * PAGE,
            pages @ 230..245 => u64::from(pages - 229) * 6 * PAGE,
            245..250 => self.number(2),
            vast => VAST.get(usize::from(vast) % 5).copied().unwrap_or(0),
        }
    }

    fn prot(&mut self) -> u64 {
        match self.byte() {
            some @ ..200 => u64::from(some) & 7,
            _ => self.bits(abi::PROT),
        }
    }

    fn source(&mut self) -> Source {
        let offset = |bytes: &mut Self| match bytes.byte() {
            page @ ..200 => u64::from(page) % 20 * PAGE,
            200..220 => bytes.number(2),
            _ => bytes.number(8),
        };
        match self.byte() {
            ..90 => Source::Nothing,
            90..190 => Source::File(Access::ReadWrite, offset(self)),
            190..220 => Source::File(Access::Read, offset(self)),
            220..245 => Source::File(Access::Write, offset(self)),
            _ => Source::Bad,
        }
    }

    fn map(&mut self) -> Op {
        const USUAL: [u64; 8] = [0x32, 0x32, 0x31, 0x12, 0x11, 0x13, 0x22, 0x38];
        let mut flags = self.pick(&USUAL, 0x32);
        if self.byte() & 3 == 0 {
            flags |= self.bits(abi::MAP) & !15;
        }
        if self.byte() == 255 {
            flags = self.number(4);
        }
        let (at, len, prot) = (self.place(), self.len(), self.prot());
        let from = if flags & abi::MAP_ANONYMOUS != 0 { Source::Nothing } else { self.source() };
        Op::Map { at, len, prot, flags, from }
    }

    fn advice(&mut self) -> u64 {
        match self.byte() {
            some @ ..240 => {
                abi::ADVICE.get(usize::from(some) % abi::ADVICE.len()).map_or(0, |a| a.1)
            }
            _ => self.number(1),
        }
    }

    fn op(&mut self, heap: bool) -> Op {
        // Those that make memory and touch it come more often.
        match self.byte() % 32 {
            0..6 => self.map(),
            6 => Op::Unmap { at: self.place(), len: self.len() },
            7 | 8 => Op::Protect { at: self.place(), len: self.len(), prot: self.prot() },
            9 | 10 => self.remap(),
            11..14 => Op::Advise { at: self.place(), len: self.len(), advice: self.advice() },
            14 => Op::Lock { at: self.place(), len: self.len() },
            15 => Op::Lock2 { at: self.place(), len: self.len(), flags: self.bits(abi::MLOCK) },
            16 => Op::Unlock { at: self.place(), len: self.len() },
            17 => Op::LockAll { flags: self.bits(abi::MLOCKALL) },
            18 => Op::UnlockAll,
            19 => Op::Sync { at: self.place(), len: self.len(), flags: self.bits(abi::MSYNC) },
            20 => Op::InCore { at: self.place(), len: self.len() },
            21 => Op::Seal { at: self.place(), len: self.len(), flags: self.byte() as u64 / 255 },
            22 => Op::Read { at: self.place() },
            23 => Op::Write { at: self.place(), value: self.byte() },
            24 => Op::Scan { at: self.place(), len: self.len() },
            25 | 26 => Op::Fill { at: self.place(), len: self.len(), value: self.byte() },
            27 => Op::Truncate { len: self.number(2) * 2 },
            28 => Op::FileWrite { offset: self.number(2), len: self.number(2), value: self.byte() },
            29 if heap => Op::Break { to: self.number(2) * 5 },
            29 => Op::FileRead { offset: self.number(2), len: self.number(2) },
            30 => match self.byte() % 4 {
                0 => Op::Fork,
                _ => Op::ForkProbe,
            },
            _ => self.limit(),
        }
    }

    fn remap(&mut self) -> Op {
        let flags = match self.byte() {
            some @ ..200 => u64::from(some) & 7,
            _ => self.number(1),
        };
        let (at, old_len, new_len) = (self.place(), self.len(), self.len());
        let new_len = if self.byte() & 1 == 0 { old_len } else { new_len };
        Op::Remap { at, old_len, new_len, flags, to: self.place() }
    }

    fn limit(&mut self) -> Op {
        const ALL: [Resource; 4] =
            [Resource::AddressSpace, Resource::Data, Resource::Locked, Resource::Stack];
        Op::Limit { what: self.pick(&ALL, Resource::Stack), pages: self.number(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeSet;

    fn strings(seed: u64) -> impl Iterator<Item = Vec<u8>> {
        (0..2000).map(move |number| {
            let mut random = Random::new(seed, number);
            let len = random.below(600);
            (0..len).map(|_| random.next().to_le_bytes()[0]).collect()
        })
    }

    #[test]
    fn any_bytes_are_a_sequence_that_may_run() {
        let same = (0..=255).map(|byte| vec![byte; 300]);
        let mut words = BTreeSet::new();
        for bytes in strings(1).chain(same).chain([Vec::new()]) {
            let sequence = sequence(&bytes);
            assert_eq!(sequence.check(), Ok(()), "{bytes:?}");
            assert!(sequence.ops.len() <= MOST_OPS.min(bytes.len()));
            let word = |op: &Op| op.to_string().split(' ').next().map(str::to_owned);
            words.extend(sequence.ops.iter().filter_map(word));
        }
        assert_eq!(words.len(), 24, "every kind of operation comes up: {words:?}");
    }

    #[test]
    fn what_is_decoded_reads_back_as_itself() {
        for bytes in strings(2).take(200) {
            for op in sequence(&bytes).ops {
                assert_eq!(op.to_string().parse().as_ref(), Ok(&op), "{op}");
            }
        }
    }

    #[test]
    fn bytes_behind_change_nothing_in_front() {
        for bytes in strings(3).take(100) {
            let whole = sequence(&bytes);
            let part = sequence(&bytes[..bytes.len() / 2]);
            let same = part.ops.len().saturating_sub(1).min(whole.ops.len());
            assert_eq!(whole.ops[..same], part.ops[..same]);
        }
    }
}
