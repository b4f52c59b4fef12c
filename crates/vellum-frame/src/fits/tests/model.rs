//! The table beside a model that keeps one owner for each unit of memory.
//!
//! ```text
//!   units   A A A . . B B . C        a hole is a run of dots; each rule is written down once more,
//!           0 1 2 3 4 5 6 7 8        by looking at all of them
//! ```

use super::super::{
    Block, Compaction, Fit, FitError, Move, Partition, PartitionError, Partitions, Record,
    records_for,
};
use super::{BASE, GRANULE, UNITS, table};
use proptest::collection;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;
use vellum_core::PhysAddr;

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc(u64),
    /// Of the live ones, or of those that were freed.
    Free(usize),
    FreeAgain(usize),
    Compact,
    MakeRoom(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![8 => 0..20 * GRANULE, 1 => Just(u64::MAX), 1 => 0..2000u64];
    prop_oneof![
        12 => size().prop_map(Op::Alloc),
        10 => any::<usize>().prop_map(Op::Free),
        1 => any::<usize>().prop_map(Op::FreeAgain),
        1 => Just(Op::Compact),
        1 => size().prop_map(Op::MakeRoom),
    ]
}

/// The memory in units, 0 for free, and where next fit goes on.
struct Model {
    fit: Fit,
    owners: Vec<u32>,
    rover: Option<usize>,
    searches: u64,
    examined: u64,
}

impl Model {
    /// Runs of one owner: first unit, length, owner.
    fn runs(&self) -> Vec<(usize, usize, u32)> {
        let mut at = 0;
        let chunks = self.owners.chunk_by(|a, b| a == b);
        chunks
            .map(|run| {
                at += run.len();
                (at - run.len(), run.len(), run[0])
            })
            .collect()
    }

    fn holes(&self) -> Vec<(usize, usize)> {
        let holes = self.runs().into_iter().filter(|run| run.2 == 0);
        holes.map(|(start, len, _)| (start, len)).collect()
    }

    /// The first unit of the hole that this unit is in.
    fn hole_of(&self, unit: usize) -> usize {
        self.owners[..unit].iter().rposition(|&owner| owner != 0).map_or(0, |below| below + 1)
    }

    fn largest(&self) -> usize {
        self.holes().iter().map(|hole| hole.1).max().unwrap_or(0)
    }

    fn free(&self) -> usize {
        self.owners.iter().filter(|&&owner| owner == 0).count()
    }

    /// Where a partition of `len` units goes; counts what looking for it costs.
    fn choose(&mut self, len: usize) -> Option<(usize, usize)> {
        let mut holes = self.holes();
        if self.fit == Fit::Next {
            let at = self.rover.and_then(|unit| holes.iter().position(|hole| hole.0 == unit));
            holes.rotate_left(at.unwrap_or(0));
        }
        let fitting = holes.iter().copied().filter(|hole| hole.1 >= len);
        let found = match self.fit {
            Fit::First | Fit::Next => fitting.clone().next(),
            Fit::Best => fitting.clone().min_by_key(|hole| hole.1),
            Fit::Worst => fitting.clone().min_by_key(|hole| usize::MAX - hole.1),
        };
        let stops = found.filter(|hole| match self.fit {
            Fit::First | Fit::Next => true,
            Fit::Best => hole.1 == len,
            Fit::Worst => false,
        });
        let looked = stops.and_then(|hole| holes.iter().position(|&other| other == hole));
        self.searches += 1;
        self.examined += looked.map_or(holes.len(), |at| at + 1) as u64;
        found
    }

    fn take(&mut self, (start, hole): (usize, usize), len: usize, owner: u32) {
        self.owners[start..start + len].fill(owner);
        let above = self.holes().into_iter().find(|other| other.0 > start);
        self.rover = if len < hole { Some(start + len) } else { above.map(|(start, _)| start) };
    }

    fn give(&mut self, owner: u32) {
        self.owners.iter_mut().filter(|unit| **unit == owner).for_each(|unit| *unit = 0);
        self.rover = self.rover.map(|unit| self.hole_of(unit));
    }

    /// Moves what is in `range` down to its lower end.
    fn pack(&mut self, range: core::ops::Range<usize>) -> Vec<u32> {
        let part = &mut self.owners[range];
        let kept: Vec<u32> = part.iter().copied().filter(|&owner| owner != 0).collect();
        part.fill(0);
        part[..kept.len()].copy_from_slice(&kept);
        kept
    }
}

/// A table, its model, and bytes that a kernel would copy.
struct Pair<'m> {
    table: Partitions<'m>,
    model: Model,
    memory: Vec<u32>,
    live: Vec<(Partition, u32)>,
    dead: Vec<Partition>,
    next_owner: u32,
}

impl Pair<'_> {
    fn alloc(&mut self, size: u64) -> Result<(), TestCaseError> {
        let result = self.table.alloc(size);
        if size == 0 {
            prop_assert_eq!(result, Err(FitError::ZeroSize));
            return Ok(());
        }
        let len = usize::try_from(size.div_ceil(GRANULE)).unwrap();
        let Some(hole) = self.model.choose(len) else {
            let (free, largest) = (self.model.free() as u64, self.model.largest() as u64);
            let (free, largest) = (free * GRANULE, largest * GRANULE);
            prop_assert_eq!(result, Err(FitError::NoHole { wanted: size, free, largest }));
            return Ok(());
        };
        let partition = result.unwrap();
        self.model.take(hole, len, self.next_owner);
        self.memory[hole.0..hole.0 + len].fill(self.next_owner);
        self.live.push((partition, self.next_owner));
        self.next_owner += 1;
        Ok(())
    }

    fn free(&mut self, n: usize) {
        if !self.live.is_empty() {
            let (partition, owner) = self.live.swap_remove(n % self.live.len());
            self.table.free(partition).unwrap();
            self.model.give(owner);
            self.dead.push(partition);
        }
    }

    fn compact(&mut self) -> Result<(), TestCaseError> {
        let (before, mut moves, mut bytes) = (self.model.owners.clone(), 0, 0);
        let done = self.table.compact(|m| copy(&mut self.memory, &m, &mut moves, &mut bytes));
        let kept = self.model.pack(0..UNITS).len();
        let moved = kept - before.iter().position(|&owner| owner == 0).unwrap_or(kept);
        prop_assert_eq!(done, Compaction { moves, bytes });
        prop_assert_eq!(bytes, moved as u64 * GRANULE, "all above the first hole, and only that");
        self.model.rover = (kept < UNITS).then_some(kept).or(self.model.rover);
        Ok(())
    }

    fn make_room(&mut self, size: u64) -> Result<(), TestCaseError> {
        let (before, mut moves, mut bytes) = (self.model.owners.clone(), 0, 0);
        let copied = |m| copy(&mut self.memory, &m, &mut moves, &mut bytes);
        let result = self.table.make_room(size, copied);
        let len = usize::try_from(size.div_ceil(GRANULE)).unwrap();
        if size == 0 {
            prop_assert_eq!(result, Err(FitError::ZeroSize));
        } else if len > self.model.free() {
            let (free, largest) = (self.model.free() as u64, self.model.largest() as u64);
            let (free, largest) = (free * GRANULE, largest * GRANULE);
            prop_assert_eq!(result, Err(FitError::NoHole { wanted: size, free, largest }));
        } else {
            prop_assert_eq!(result, Ok(Compaction { moves, bytes }));
            // Of all pairs of holes, the cheapest that has enough, and the lowest of those.
            let holes = self.model.holes();
            let (cost, from, to) = holes
                .iter()
                .enumerate()
                .flat_map(|(i, low)| holes[i..].iter().map(|high| (low.0, high.0 + high.1)))
                .map(|(from, to)| {
                    let used = before[from..to].iter().filter(|&&owner| owner != 0).count();
                    (used, from, to)
                })
                .filter(|&(used, from, to)| to - from - used >= len)
                .min()
                .unwrap();
            prop_assert_eq!(bytes, cost as u64 * GRANULE);
            self.model.pack(from..to);
            self.model.rover = Some(self.model.hole_of(from + cost));
            return Ok(());
        }
        prop_assert_eq!((moves, bytes), (0, 0));
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Alloc(size) => self.alloc(size)?,
            Op::Free(n) => self.free(n),
            Op::FreeAgain(n) => {
                if let Some(&partition) = self.dead.get(n % self.dead.len().max(1)) {
                    prop_assert_eq!(self.table.free(partition), Err(PartitionError::Freed));
                    prop_assert_eq!(self.table.get(partition), Err(PartitionError::Freed));
                }
            }
            Op::Compact => self.compact()?,
            Op::MakeRoom(size) => self.make_room(size)?,
        }
        self.agree()
    }

    /// Everything that can be asked says what the model says.
    fn agree(&self) -> Result<(), TestCaseError> {
        let block = |(start, len, owner): (usize, usize, u32)| Block {
            base: PhysAddr::new(BASE + start as u64 * GRANULE),
            len_bytes: len as u64 * GRANULE,
            partition: self.live.iter().find(|other| other.1 == owner).map(|other| other.0),
        };
        let expected: Vec<Block> = self.model.runs().into_iter().map(block).collect();
        prop_assert_eq!(self.table.blocks().collect::<Vec<_>>(), expected);
        let stats = self.table.stats();
        let holes = self.model.holes().len() as u64;
        prop_assert_eq!((stats.holes, stats.partitions), (holes, self.live.len() as u64));
        prop_assert_eq!(stats.free, self.model.free() as u64 * GRANULE);
        prop_assert_eq!(stats.largest, self.model.largest() as u64 * GRANULE);
        let effort = self.table.effort();
        prop_assert_eq!(effort.searches, self.model.searches);
        prop_assert_eq!(effort.holes_examined, self.model.examined);
        for &(partition, owner) in &self.live {
            let place = self.table.get(partition).unwrap();
            let first = usize::try_from((place.base().as_u64() - BASE) / GRANULE).unwrap();
            let len = usize::try_from(place.limit() / GRANULE).unwrap();
            let content = &self.memory[first..first + len];
            prop_assert!(content.iter().all(|&unit| unit == owner), "its bytes moved with it");
        }
        Ok(())
    }
}

/// What a kernel does when it is told of a move.
fn copy(memory: &mut [u32], m: &Move, moves: &mut u64, bytes: &mut u64) {
    let unit = |pa: PhysAddr| usize::try_from((pa.as_u64() - BASE) / GRANULE).unwrap();
    assert!(m.to < m.from, "downward");
    let (from, to) = (unit(m.from), unit(m.to));
    memory.copy_within(from..from + usize::try_from(m.len / GRANULE).unwrap(), to);
    *moves += 1;
    *bytes += m.len;
}

/// Under Miri fewer and shorter: each step looks at everything there is.
const MOST_OPS: usize = if cfg!(miri) { 12 } else { 120 };

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_fit_does_what_its_model_does(
        fit in prop::sample::select(&Fit::ALL[..]),
        ops in collection::vec(op(), 1..MOST_OPS),
    ) {
        let mut records = [Record::EMPTY; records_for(UNITS)];
        let model =
            Model { fit, owners: vec![0; UNITS], rover: None, searches: 0, examined: 0 };
        let mut pair = Pair {
            table: table(fit, &mut records),
            model,
            memory: vec![0; UNITS],
            live: Vec::new(),
            dead: Vec::new(),
            next_owner: 1,
        };
        for op in ops {
            pair.step(op)?;
        }
        while !pair.live.is_empty() {
            pair.free(0);
            pair.agree()?;
        }
        prop_assert_eq!(pair.table.blocks().count(), 1, "everything freed is one hole again");
    }

    /// With too few records an allocation fails and leaves everything as it was; what it could
    /// not record is the only reason why it does.
    #[test]
    fn too_few_records_refuse_and_change_nothing(
        fit in prop::sample::select(&Fit::ALL[..]),
        count in 1..7usize,
        ops in collection::vec((any::<bool>(), 1..300u64, any::<usize>()), 1..MOST_OPS),
    ) {
        let (mut few, mut many) = (vec![Record::EMPTY; count], [Record::EMPTY; 200]);
        let (mut small, mut large) = (table(fit, &mut few), table(fit, &mut many));
        let (mut live, mut refused) = (Vec::new(), 0);
        for (free, size, n) in ops {
            if free && !live.is_empty() {
                let (a, b) = live.swap_remove(n % live.len());
                prop_assert_eq!((small.free(a), large.free(b)), (Ok(()), Ok(())));
                continue;
            }
            let before: Vec<Block> = small.blocks().collect();
            match small.alloc(size) {
                Ok(a) => live.push((a, large.alloc(size).unwrap())),
                Err(error @ FitError::NoRecord { records }) => {
                    prop_assert_eq!(records, count);
                    prop_assert_eq!(before.len(), count, "not one was left");
                    prop_assert!(!error.is_fragmentation());
                    prop_assert_eq!(small.blocks().collect::<Vec<_>>(), before);
                    prop_assert!(large.stats().largest >= size, "a hole there was");
                    refused += 1;
                }
                Err(error) => prop_assert_eq!(large.alloc(size), Err(error)),
            }
            prop_assert_eq!(small.effort().searches, large.effort().searches + refused);
            let place = |block: Block| (block.base, block.len_bytes, block.partition.is_some());
            let places = |table: &Partitions<'_>| table.blocks().map(place).collect::<Vec<_>>();
            prop_assert_eq!(places(&small), places(&large));
        }
    }
}
