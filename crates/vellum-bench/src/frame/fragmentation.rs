//! (f) How many 2 MiB blocks can be had after a life.
//!
//! ```text
//!   used  O% .../~~~~~~~\......../~~~~~~~\..............
//!       O/2% ../.........\~~~~~~/.........\~~~~~~ | demand: order 9 until none is left
//!               grow  churn exits churn         |
//! ```
//!
//! Eight processes live at a time. Each request belongs to one of them, by chance, and its block is
//! - *short-lived*: freed soon, one by one (buffers, page tables);
//! - *long-lived*: freed when its process exits, together with all others of that process;
//! - *permanent*: never freed, 1 of 200 requests for a frame (the kernel's own): some 1500 frames in
//!   the end, enough to spoil three quarters of the 2048 huge blocks if they lie scattered.
//!
//! Orders: 0 in 70 of 100 requests, 1 to 3 in 20, 4 to 8 in 8, and 9 in 2. When memory is to shrink
//! by more than short-lived blocks, processes exit, and others start in their place. At half the
//! occupancy life goes on, until twice as much has been allocated as there is memory, and nearly all
//! that is long-lived has changed hands: there a design shows whether it fills the holes or breaks
//! up what is whole. After two such cycles each
//! cache is flushed, and huge pages are asked for until there are no more.
//!
//! The score: what was had, as a percentage of what an ideal packing would have, free frames / 512.
//! Where permanent frames sit decides it, and no design knows beforehand which those are. Beside it,
//! over all occupancies and seeds: how many requests were refused on the way (who refuses has less
//! to pack), and how many aligned 2 MiB blocks without an allocated frame were missed at the end (a
//! design that merges everything misses none).
//!
//! The stream of requests is a function of the occupancy and the seed. It is settled before any
//! allocator is asked, on the assumption that nothing fails.

use super::allocator::{Allocator, Frames, HUGE, HUGE_FRAMES};
use super::stream::Request;
use crate::random::Random;

/// Processes that live at a time.
const PROCESSES: usize = 8;

/// One of so many requests for a frame is for good.
const PERMANENT: usize = 200;

/// How often all of memory is allocated in each of the four stretches of a life.
const TURNOVER: u64 = 2;

/// Occupancies of the rows, in percent.
pub const OCCUPANCIES: [u64; 3] = [60, 80, 95];

/// One life, as a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    requests: Vec<Request>,
    slots: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Huge blocks that were had.
    pub had: u64,
    /// Aligned huge blocks without an allocated frame.
    pub possible: u64,
    /// Free frames / 512.
    pub ideal: u64,
    /// Requests that found nothing before that.
    pub failed: u64,
}

/// A block that is allocated while the stream is written.
type Block = (usize, u8);

struct Writer {
    random: Random,
    requests: Vec<Request>,
    /// Short-lived blocks, and the long-lived ones of each process.
    short: Vec<Block>,
    long: [Vec<Block>; PROCESSES],
    empty: Vec<usize>,
    slots: usize,
    used: u64,
}

/// The life at this occupancy, in percent, of this seed.
#[must_use]
pub fn life(frames: u64, percent: u64, seed: u64) -> Life {
    let mut writer = Writer {
        random: Random::new(seed << 8 | percent),
        requests: Vec::new(),
        short: Vec::new(),
        long: Default::default(),
        empty: Vec::new(),
        slots: 0,
        used: 0,
    };
    let high = frames * percent / 100;
    let turnover = frames * TURNOVER;
    for _ in 0..2 {
        writer.live(high, turnover);
        writer.live(high / 2, turnover);
    }
    Life { requests: writer.requests, slots: writer.slots }
}

impl Writer {
    /// Lives on at `target` frames until that many more have been allocated there.
    fn live(&mut self, target: u64, turnover: u64) {
        while self.used > target {
            self.exit();
        }
        let mut left = turnover + target - self.used;
        while left > 0 {
            let order = self.order();
            left = left.saturating_sub(1 << order);
            while self.used + (1 << order) > target {
                self.make_room(target);
            }
            self.alloc(order);
        }
    }

    fn order(&mut self) -> u8 {
        match self.random.below(100) {
            0..70 => 0,
            70..90 => 1 + self.random.below(3) as u8,
            90..98 => 4 + self.random.below(5) as u8,
            _ => HUGE,
        }
    }

    fn alloc(&mut self, order: u8) {
        let slot = self.empty.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        self.requests.push(Request::alloc(slot, order));
        self.used += 1 << order;
        if order == 0 && self.random.below(PERMANENT) == 0 {
            return;
        }
        if self.random.percent(60) {
            self.short.push((slot, order));
        } else {
            let process = self.random.below(PROCESSES);
            self.long[process].push((slot, order));
        }
    }

    fn free(&mut self, (slot, order): Block) {
        self.requests.push(Request::free(slot, order));
        self.empty.push(slot);
        self.used -= 1 << order;
    }

    /// A short-lived block goes, while there are many; else a process.
    fn make_room(&mut self, target: u64) {
        let many = (target / 512).max(64) as usize;
        if self.short.len() > many {
            let at = self.random.below(self.short.len());
            let block = self.short.swap_remove(at);
            self.free(block);
        } else {
            self.exit();
        }
    }

    /// A process that has something exits, in the order in which it allocated; if none has, all
    /// that is short-lived goes.
    fn exit(&mut self) {
        let from = self.random.below(PROCESSES);
        let process =
            (0..PROCESSES).map(|n| (from + n) % PROCESSES).find(|&p| !self.long[p].is_empty());
        let blocks = match process {
            Some(process) => core::mem::take(&mut self.long[process]),
            None => core::mem::take(&mut self.short),
        };
        for block in blocks {
            self.free(block);
        }
    }
}

/// Leads the life with an allocator, and then asks for huge blocks.
#[must_use]
pub fn outcome<A: Allocator>(frames: u64, life: &Life) -> Outcome {
    let mut allocator = A::new(frames);
    let mut blocks: Vec<Option<A::Block>> = vec![None; life.slots];
    // Allocated frames of each huge block.
    let mut used = vec![0u16; (frames / HUGE_FRAMES) as usize];
    let mut outcome = Outcome::default();
    let mut numbers: Vec<u64> = vec![0; life.slots];
    let number = allocator.numbering();
    let mut local = allocator.local();
    for request in &life.requests {
        let (slot, order) = (request.slot(), request.order());
        if request.frees() {
            if let Some(block) = blocks[slot].take() {
                used[(numbers[slot] / HUGE_FRAMES) as usize] -= 1 << order;
                // SAFETY: allocated for this slot with this order, and just taken out.
                unsafe { local.free(block, order) };
            }
        } else {
            match local.alloc(order) {
                Some(block) => {
                    numbers[slot] = number(block);
                    used[(numbers[slot] / HUGE_FRAMES) as usize] += 1 << order;
                    blocks[slot] = Some(block);
                }
                None => outcome.failed += 1,
            }
        }
    }
    outcome.possible = used.iter().filter(|&&used| used == 0).count() as u64;
    let allocated: u64 = used.iter().map(|&used| u64::from(used)).sum();
    outcome.ideal = (frames - allocated) / HUGE_FRAMES;
    local.flush();
    while local.alloc(HUGE).is_some() {
        outcome.had += 1;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::super::ours::{Cached, Uncached};
    use super::super::peers::{BuddySlab, BuddySystem, Locked, LockedBuddySystem};
    use super::*;

    const FRAMES: u64 = 1 << 14;

    #[test]
    fn a_life_depends_on_its_occupancy_and_seed_alone() {
        let lives = [(60, 1), (60, 1), (60, 2), (80, 1)].map(|(o, seed)| life(FRAMES, o, seed));
        assert_eq!(lives[0], lives[1]);
        assert_ne!(lives[0], lives[2]);
        assert_ne!(lives[0], lives[3]);
    }

    #[test]
    fn a_life_keeps_to_its_occupancy_and_frees_what_it_took() {
        let (mut used, mut most, mut orders) = (0, 0, Vec::new());
        let life = life(FRAMES, 80, 1);
        orders.resize(life.slots, None);
        for request in &life.requests {
            let now = &mut orders[request.slot()];
            if request.frees() {
                assert_eq!(now.take(), Some(request.order()));
                used -= 1 << request.order();
            } else {
                assert_eq!(now.replace(request.order()), None, "the slot was empty");
                used += 1 << request.order();
            }
            most = most.max(used);
        }
        let high = FRAMES * 80 / 100;
        assert!((high * 9 / 10..=high).contains(&most), "{most} of {high}");
        assert!((high / 4..=high / 2).contains(&used), "{used} at last");
    }

    #[test]
    fn what_was_had_was_possible_and_what_was_possible_was_ideal() {
        let life = life(FRAMES, 80, 1);
        for outcome in [
            outcome::<Cached>(FRAMES, &life),
            outcome::<Uncached>(FRAMES, &life),
            outcome::<BuddySlab>(FRAMES, &life),
        ] {
            assert!(outcome.had > 0, "{outcome:?}");
            assert!(outcome.had <= outcome.possible, "{outcome:?}");
            assert!(outcome.possible <= outcome.ideal, "{outcome:?}");
        }
    }

    #[test]
    fn a_lock_changes_nothing_in_where_blocks_lie() {
        let life = life(FRAMES, 95, 2);
        let alone = outcome::<BuddySlab>(FRAMES, &life);
        assert_eq!(alone, outcome::<Locked<BuddySlab>>(FRAMES, &life));
        let alone = outcome::<BuddySystem>(FRAMES, &life);
        assert_eq!(alone, outcome::<LockedBuddySystem>(FRAMES, &life));
    }
}
