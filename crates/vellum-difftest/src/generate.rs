//! Random sequences that are worth running: most operations succeed, and meet each other.
//!
//! ```text
//!   ranges that were used  -->  a new one: the same, a part, across a border, around, a neighbour
//!                               or just anywhere
//! ```
//!
//! Uniformly random ranges in 64 pages would mostly miss, and merges, splits and partial failures
//! happen at borders. So a generator remembers the last ranges it used, and takes the next from
//! them. It keeps a guess of what is mapped, and mostly stays within; errors are compared too.
//!
//! Each sequence has a theme that shifts the weights, so that rare operations meet one another
//! often in some sequences: locks, files, growing down, seals, the heap.

mod pieces;

use crate::abi::PAGE;
use crate::op::{ARENA_PAGES, Op, Place, Resource, Sequence};
use crate::random::Random;
use pieces::{advice, map_flags, odd, protection, protection_of_change, remap_flags};

/// The sequence of this number, for this seed, of so many operations.
#[must_use]
pub fn sequence(seed: u64, number: u64, length: usize) -> Sequence {
    let mut random = Random::new(seed, number);
    let theme = random.weighted(&THEMES);
    let heap = theme == Theme::Heap;
    let mut generator = Generator { random, theme, ranges: Vec::new(), mapped: [false; _] };
    let mut ops = Vec::with_capacity(length);
    while ops.len() < length {
        let op = if ops.len() < 3 && !heap { generator.map() } else { generator.op() };
        generator.follow(&op);
        ops.push(op);
    }
    Sequence { pages: ARENA_PAGES, heap, ops }
}

/// What a sequence is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    All,
    Private,
    File,
    Locks,
    Growth,
    Seals,
    Moves,
    Forks,
    Limits,
    Heap,
}

const THEMES: [(u64, Theme); 10] = [
    (30, Theme::All),
    (14, Theme::Private),
    (14, Theme::File),
    (8, Theme::Locks),
    (7, Theme::Growth),
    (5, Theme::Seals),
    (10, Theme::Moves),
    (8, Theme::Forks),
    (4, Theme::Limits),
    (4, Theme::Heap),
];

/// A kind of operation, before it has arguments.
#[derive(Clone, Copy, Debug)]
enum What {
    Map,
    Unmap,
    Protect,
    Remap,
    Advise,
    Lock,
    Unlock,
    LockAll,
    Sync,
    InCore,
    Seal,
    Read,
    Write,
    Scan,
    Fill,
    Truncate,
    FileWrite,
    FileRead,
    Fork,
    ForkProbe,
    Break,
    Limit,
}

/// In general, which, and what is added for some themes.
type Weight = (u64, What, &'static [(Theme, u64)]);

/// How often each kind comes: in general, and what is added for a theme.
const WEIGHTS: [Weight; 22] = [
    (18, What::Map, &[(Theme::Growth, 6)]),
    (9, What::Unmap, &[]),
    (12, What::Protect, &[(Theme::Growth, 6)]),
    (8, What::Remap, &[(Theme::Moves, 25)]),
    (14, What::Advise, &[(Theme::Private, 8)]),
    (3, What::Lock, &[(Theme::Locks, 22)]),
    (2, What::Unlock, &[(Theme::Locks, 10)]),
    (0, What::LockAll, &[(Theme::Locks, 4)]),
    (2, What::Sync, &[(Theme::File, 4)]),
    (2, What::InCore, &[]),
    (0, What::Seal, &[(Theme::Seals, 12)]),
    (6, What::Read, &[(Theme::Growth, 6)]),
    (8, What::Write, &[(Theme::Growth, 6)]),
    (6, What::Scan, &[(Theme::File, 4)]),
    (8, What::Fill, &[(Theme::Private, 4), (Theme::Forks, 6)]),
    (1, What::Truncate, &[(Theme::File, 8)]),
    (1, What::FileWrite, &[(Theme::File, 4)]),
    (1, What::FileRead, &[(Theme::File, 4)]),
    (0, What::Fork, &[(Theme::Forks, 4)]),
    (1, What::ForkProbe, &[(Theme::Forks, 5)]),
    (0, What::Break, &[(Theme::Heap, 50)]),
    (0, What::Limit, &[(Theme::Limits, 12), (Theme::Locks, 2)]),
];

/// Bytes from the arena's base, and a length.
type Range = (i64, u64);

struct Generator {
    random: Random,
    theme: Theme,
    /// The last ranges used, in pages.
    ranges: Vec<(u64, u64)>,
    /// The pages that are probably mapped. Only a guess: whether a call succeeds is not known.
    mapped: [bool; ARENA_PAGES as usize],
}

impl Generator {
    fn what(&mut self) -> What {
        let weights = WEIGHTS.map(|(weight, what, more)| {
            let more = more.iter().find(|(theme, _)| *theme == self.theme);
            (weight + more.map_or(0, |&(_, more)| more), what)
        });
        self.random.weighted(&weights)
    }

    /// A range of the arena, in pages, of which most or all is mapped.
    fn pages(&mut self) -> (u64, u64) {
        let (start, len) = self.any_pages();
        let keep = self.random.chance(20);
        let page = |at: u64| usize::try_from(at).ok().and_then(|at| self.mapped.get(at));
        let is_mapped = |at: &u64| page(*at) == Some(&true);
        match (start..start + len).find(is_mapped) {
            Some(first) if !keep => {
                let last = (first..start + len).take_while(is_mapped).last().unwrap_or(first);
                (first, last + 1 - first)
            }
            None if !keep => {
                // The next that is mapped, wherever it is.
                let next =
                    (start..start + u64::from(ARENA_PAGES)).map(|at| at % u64::from(ARENA_PAGES));
                next.clone().find(is_mapped).map_or((start, len), |first| (first, 1))
            }
            _ => (start, len),
        }
    }

    /// Keeps the guess.
    fn guess(&mut self, at: Place, len: u64, mapped: bool) {
        let Place::Arena(at) = at else { return };
        let first = at / PAGE.cast_signed();
        let last = first.saturating_add_unsigned(len.min(PAGE << 8).div_ceil(PAGE));
        for (page, guess) in (0..).zip(&mut self.mapped) {
            if (first..last).contains(&page) {
                *guess = mapped;
            }
        }
    }

    /// Keeps the guess behind an operation.
    fn follow(&mut self, op: &Op) {
        match *op {
            Op::Map { at, len, .. } => self.guess(at, len, true),
            Op::Unmap { at, len } => self.guess(at, len, false),
            Op::Remap { at, old_len, new_len, flags, to } => {
                if flags & 2 != 0 {
                    self.guess(at, old_len, flags & 4 != 0);
                    self.guess(to, new_len, true);
                } else if new_len < old_len {
                    self.guess(at, old_len, false);
                    self.guess(at, new_len, true);
                }
            }
            Op::Break { to } => {
                self.mapped = [false; _];
                self.guess(Place::Arena(0), to, true);
            }
            _ => {}
        }
    }

    /// A range of the arena, in pages, that has to do with earlier ones.
    fn any_pages(&mut self) -> (u64, u64) {
        let all = u64::from(ARENA_PAGES);
        let random = &mut self.random;
        let range = if self.ranges.is_empty() || random.chance(25) {
            let start = random.below(all);
            (start, 1 + random.below(12.min(all - start)))
        } else {
            let (start, len) = random.pick(&self.ranges);
            match random.below(7) {
                0 | 1 => (start, len),
                // The front, the back, or something inside.
                2 => (start, 1 + random.below(len)),
                3 => {
                    let skip = random.below(len);
                    (start + skip, len - skip)
                }
                4 => {
                    let skip = random.below(len);
                    (start + skip, 1 + random.below(len - skip))
                }
                // Across the end, or from in front of the start.
                5 => (start + len - 1, 1 + random.below(6)),
                _ => (start.saturating_sub(1 + random.below(3)), len + random.below(5)),
            }
        };
        let start = range.0.min(all - 1);
        let range = (start, range.1.clamp(1, all - start));
        self.remember(range);
        range
    }

    fn remember(&mut self, range: (u64, u64)) {
        if self.ranges.len() >= 8 {
            self.ranges.remove(0);
        }
        self.ranges.push(range);
    }

    /// The same in bytes, now and then a little wrong.
    fn range(&mut self) -> Range {
        let (start, len) = self.pages();
        odd(&mut self.random, ((start * PAGE).cast_signed(), len * PAGE))
    }

    /// A range for a call, and now and then one that is refused for its ends.
    fn wild(&mut self) -> (Place, u64) {
        let (at, len) = self.range();
        if self.theme == Theme::Heap || !self.random.chance(2) {
            return (Place::Arena(at), len);
        }
        match self.random.below(4) {
            0 => (Place::Arena(at), u64::MAX - self.random.below(3)),
            1 => (Place::Absolute(crate::abi::TASK_SIZE), PAGE),
            2 => (Place::Absolute(0xffff_8000_0000_0000), PAGE),
            _ => (Place::Arena(at), 0),
        }
    }

    /// A byte of the arena.
    fn byte(&mut self) -> Place {
        let (start, len) = self.pages();
        let page = start + self.random.below(len);
        let page = page.cast_signed();
        // What lies below a region that grows down is of interest.
        let page = if self.theme == Theme::Growth && self.random.chance(40) {
            (page - self.random.below(8).cast_signed()).max(0)
        } else {
            page
        };
        let byte = if self.random.chance(70) { 0 } else { self.random.below(PAGE) };
        Place::Arena(page * PAGE.cast_signed() + byte.cast_signed())
    }

    fn value(&mut self) -> u8 {
        // Zero is a value too, and one that hides much.
        u8::try_from(self.random.below(256)).unwrap_or(0)
    }

    fn map(&mut self) -> Op {
        let (start, len) = self.any_pages();
        let (at, len) = odd(&mut self.random, ((start * PAGE).cast_signed(), len * PAGE));
        let prot = protection(&mut self.random);
        let growth = self.theme == Theme::Growth;
        let about_files = self.theme == Theme::File;
        let (flags, from) = map_flags(&mut self.random, growth, about_files);
        Op::Map { at: Place::Arena(at), len, prot, flags, from }
    }

    fn remap(&mut self) -> Op {
        let (at, old_len) = self.range();
        let (to, other) = self.any_pages();
        let (to, other) = ((to * PAGE).cast_signed(), other * PAGE);
        let random = &mut self.random;
        let flags = remap_flags(random);
        let new_len = match random.below(10) {
            0..=3 => old_len,
            4 | 5 => other,
            6 | 7 => old_len + PAGE * random.below(6),
            8 => old_len.saturating_sub(PAGE * random.below(6)),
            _ => random.pick(&[0, 1, PAGE, u64::MAX, u64::MAX - PAGE, 1 << 48]),
        };
        let old_len = match random.below(50) {
            0 | 1 => 0,
            2 => random.pick(&[1 << 47, 1 << 63, u64::MAX - PAGE + 1, u64::MAX]),
            _ => old_len,
        };
        Op::Remap { at: Place::Arena(at), old_len, new_len, flags, to: Place::Arena(to) }
    }

    fn op(&mut self) -> Op {
        match self.what() {
            What::Map if self.theme == Theme::Heap => self.op(),
            What::Map => self.map(),
            What::Remap if self.theme == Theme::Heap => self.op(),
            What::Remap => self.remap(),
            What::Unmap => {
                let (at, len) = self.wild();
                Op::Unmap { at, len }
            }
            What::Protect => {
                let (at, len) = self.wild();
                let growth = self.theme == Theme::Growth;
                Op::Protect { at, len, prot: protection_of_change(&mut self.random, growth) }
            }
            What::Advise => {
                let (at, len) = self.wild();
                Op::Advise { at, len, advice: advice(&mut self.random) }
            }
            What::Lock => {
                let (at, len) = self.wild();
                match self.random.below(3) {
                    0 => Op::Lock2 { at, len, flags: self.random.pick(&[0, 1, 1, 1, 2]) },
                    _ => Op::Lock { at, len },
                }
            }
            What::Unlock => match self.random.below(8) {
                0 => Op::UnlockAll,
                _ => {
                    let (at, len) = self.wild();
                    Op::Unlock { at, len }
                }
            },
            What::LockAll => Op::LockAll { flags: self.random.pick(&[2, 2, 6, 6, 4, 0, 8, 1, 7]) },
            What::Sync => {
                let (at, len) = self.wild();
                Op::Sync { at, len, flags: self.random.pick(&[4, 4, 1, 2, 0, 6, 5, 3, 8]) }
            }
            What::InCore => {
                let (at, len) = self.range();
                Op::InCore { at: Place::Arena(at), len }
            }
            What::Seal => {
                let (at, len) = self.wild();
                Op::Seal { at, len, flags: self.random.weighted(&[(9, 0), (1, 1)]) }
            }
            What::Read => Op::Read { at: self.byte() },
            What::Write => Op::Write { at: self.byte(), value: self.value() },
            what => self.other(what),
        }
    }

    fn other(&mut self, what: What) -> Op {
        let pages = |random: &mut Random, bound| PAGE * random.below(bound);
        match what {
            What::Fill => {
                let (start, len) = self.pages();
                let at = Place::Arena((start * PAGE).cast_signed());
                Op::Fill { at, len: len * PAGE, value: self.value() }
            }
            What::Truncate => {
                let random = &mut self.random;
                let rest = if random.chance(50) { random.below(PAGE) } else { 0 };
                Op::Truncate { len: pages(random, 20) + rest }
            }
            What::FileWrite => {
                let value = self.value();
                let random = &mut self.random;
                let offset = pages(random, 18) + random.below(2) * random.below(PAGE);
                Op::FileWrite { offset, len: 1 + random.below(3 * PAGE), value }
            }
            What::FileRead => Op::FileRead {
                offset: pages(&mut self.random, 18),
                len: pages(&mut self.random, 5) + 1,
            },
            What::Fork => Op::Fork,
            What::ForkProbe => Op::ForkProbe,
            What::Break if self.theme == Theme::Heap => {
                let rest = if self.random.chance(30) { self.random.below(PAGE) } else { 0 };
                let pages = self.random.below(48);
                self.remember((0, pages.max(1)));
                Op::Break { to: pages * PAGE + rest }
            }
            What::Limit => {
                let all = [
                    Resource::AddressSpace,
                    Resource::Data,
                    Resource::Locked,
                    Resource::Locked,
                    Resource::Stack,
                ];
                Op::Limit { what: self.random.pick(&all), pages: self.random.below(48) }
            }
            _ => {
                let (start, len) = self.pages();
                Op::Scan { at: Place::Arena((start * PAGE).cast_signed()), len: len * PAGE }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_may_run() {
        for number in 0..2000 {
            let sequence = sequence(7, number, 40);
            assert_eq!(sequence.ops.len(), 40);
            assert_eq!(sequence.check(), Ok(()), "{sequence}");
        }
    }

    #[test]
    fn every_sequence_reads_back_as_itself() {
        for number in 0..300 {
            let sequence = sequence(8, number, 40);
            for op in &sequence.ops {
                assert_eq!(op.to_string().parse().as_ref(), Ok(op));
            }
        }
    }

    #[test]
    fn every_kind_of_operation_comes_up() {
        let words: std::collections::BTreeSet<String> = (0..1500)
            .flat_map(|number| sequence(9, number, 30).ops)
            .filter_map(|op| op.to_string().split(' ').next().map(str::to_owned))
            .collect();
        assert_eq!(words.len(), 24, "{words:?}");
    }
}
