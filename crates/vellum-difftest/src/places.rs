//! Where mappings go whose address nobody fixed: a comparison of its own.
//!
//! ```text
//!   Linux's process   [program]  [heap]     [libraries]   ...   | top     gap   [stack]
//!   ours              the same regions, empty              ...   | Layout::mmap_top
//!
//!   both: map so much, perhaps near this; unmap a part of that; let that one grow     same addresses?
//! ```
//!
//! A sequence of [`op`](crate::op) lives in an arena where nothing else is, and there addresses are given.
//! Here a process is taken as it is, with all that a loader put into it, and ours begins with the same
//! regions. Nothing is ever put where something is, so that the process outlives it.
//!
//! `MAP_32BIT` begins at a random address on Linux: what it finds is looked at for being where it may be,
//! and ours goes there too.

use crate::abi::PAGE;
use crate::random::Random;
use crate::subject::SubjectError;
use vellum_fault::Engine;
use vellum_fault::host::designs::{Design, OfLevels, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_space::abi::{map, mremap};
use vellum_space::{AddressSpace, Errno, Layout, Limits, Rules};

/// One request. Slots are the mappings that were made, counted from the first; one that is not there asks
/// for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `mmap` without access of so many bytes, with these flags and this hint.
    Map {
        /// Bytes.
        len: u64,
        /// Besides private or shared, and anonymous.
        flags: u64,
        /// Where from the hint is counted: a slot's start, or 0.
        near: Option<usize>,
        /// What is added to that.
        hint: i64,
    },
    /// `munmap` of a part of a slot.
    Unmap {
        /// Which.
        slot: usize,
        /// Bytes from its start.
        skip: u64,
        /// Bytes.
        len: u64,
    },
    /// `mremap` to another length, wherever there is room.
    Grow {
        /// Which.
        slot: usize,
        /// Bytes.
        len: u64,
    },
}

/// How many slots there are at most.
pub const SLOTS: usize = 64;

/// A region that a process begins with: start, end, and whether it grows down.
pub type Begun = (u64, u64, bool);

/// What a run showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The regions before the first request, ascending.
    pub begun: Vec<Begun>,
    /// Where a single page went first, which was unmapped again.
    pub first: u64,
    /// An address, or an error's number, for each request.
    pub given: Vec<Result<u64, u64>>,
}

/// Which system call a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `mmap` at this hint.
    Map(u64),
    /// `munmap` of this.
    Unmap(u64, u64),
    /// `mremap` of this to that length.
    Grow(u64, u64, u64),
}

impl Ask {
    /// The call, for slots as they are: a start and a length each.
    #[must_use]
    pub fn call(&self, slots: &[(u64, u64)]) -> Option<Call> {
        let slot = |index: usize| slots.get(index).copied().filter(|slot| slot.1 > 0);
        match *self {
            Self::Map { near, hint, .. } => {
                let base = near.map_or(Some(0), |index| slot(index).map(|slot| slot.0))?;
                Some(Call::Map(base.wrapping_add_signed(hint)))
            }
            Self::Unmap { slot: index, skip, len } => {
                let (start, all) = slot(index)?;
                let skip = skip.min(all - PAGE);
                Some(Call::Unmap(start + skip, len.min(all - skip)))
            }
            Self::Grow { slot: index, len } => {
                let (start, all) = slot(index)?;
                Some(Call::Grow(start, all, len))
            }
        }
    }

    /// What becomes of the slots; `count` of them are in use.
    pub fn follow(&self, slots: &mut [(u64, u64)], count: &mut usize, at: u64) {
        match *self {
            Self::Map { len, .. } => {
                if let Some(slot) = slots.get_mut(*count) {
                    *slot = (at, len);
                    *count += 1;
                }
            }
            Self::Unmap { slot, skip, .. } => {
                if let Some(slot) = slots.get_mut(slot) {
                    slot.1 = skip.min(slot.1 - PAGE);
                }
            }
            Self::Grow { slot, len } => {
                if let Some(slot) = slots.get_mut(slot) {
                    *slot = (at, len);
                }
            }
        }
    }
}

/// The requests of this number, for this seed.
#[must_use]
pub fn asks(seed: u64, number: u64, count: usize) -> Vec<Ask> {
    let mut random = Random::new(seed, number);
    let mut made = 0;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let pages = random.below(9) + 1;
        let len = PAGE * random.pick(&[1, pages, 512, 1024, 512 * pages, 512 + pages, 64 * pages]);
        let slot = usize::try_from(random.below(made.max(1))).unwrap_or(0);
        all.push(match random.below(10) {
            0 | 1 if made > 0 => Ask::Unmap { slot, skip: PAGE * random.below(600), len },
            2 if made > 0 => Ask::Grow { slot, len },
            _ => {
                made = (made + 1).min(SLOTS as u64);
                one(&mut random, len, slot)
            }
        });
    }
    all
}

fn one(random: &mut Random, len: u64, slot: usize) -> Ask {
    let kind = random.weighted(&[(6, map::PRIVATE), (2, map::SHARED), (1, map::DROPPABLE)]);
    let more = random.weighted(&[
        (14, 0),
        (2, map::BIT32),
        (1, map::ABOVE4G),
        (1, map::STACK),
        (1, map::GROWSDOWN),
    ]);
    // What grows down is private.
    let kind = if more == map::GROWSDOWN { map::PRIVATE } else { kind };
    let (near, hint) = match random.below(12) {
        0..=6 => (None, 0),
        7 => (None, 0x2000_0000 + (random.below(64) * PAGE).cast_signed()),
        8 => (None, 1 + random.below(PAGE - 1).cast_signed()),
        _ => {
            let pages = random.below(1200).cast_signed() - 600;
            (Some(slot), pages * PAGE.cast_signed() + random.pick(&[0, 0, 77]))
        }
    };
    Ask::Map { len, flags: kind | more | map::ANONYMOUS | map::NORESERVE, near, hint }
}

/// Frames: nothing is touched.
const FRAMES: usize = 512;

/// Whether Linux chooses at random for this.
const fn is_random(ask: &Ask, hint: u64, at: u64) -> bool {
    match ask {
        Ask::Map { flags, .. } => *flags & map::BIT32 != 0 && at != hint & !(PAGE - 1),
        _ => false,
    }
}

/// What ours gives, beginning as a process began that gave `theirs`.
///
/// # Errors
///
/// If ours cannot begin like that.
pub fn ours(asks: &[Ask], theirs: &Places) -> Result<Vec<Result<u64, u64>>, SubjectError> {
    let host = |what: &str| SubjectError::Host(what.to_owned());
    let ram = Ram::new(FRAMES);
    let rules = Rules::new(1 << 40);
    let engine = Engine::new(HostSystem::new(&ram), 0).map_err(|_| host("no frame"))?;
    let shared = OfLevels::<4>::shared(&ram).map_err(|_| host("no frame"))?;
    let table = OfLevels::<4>::table(&shared, 1).map_err(|_| host("no frame"))?;
    let layout = Layout { mmap_top: top(theirs), ..Layout::default() };
    let space: AddressSpace<'_, _, spin::RwLock<()>> =
        AddressSpace::new(mmu(&engine, table), &rules, layout, Limits::default());
    for &(start, end, grows) in &theirs.begun {
        let grows = if grows { map::GROWSDOWN } else { 0 };
        let flags = map::PRIVATE | map::ANONYMOUS | map::FIXED | map::NORESERVE | grows;
        let made = space.mmap(start, end - start, 0, flags, None);
        made.map_err(|e| host(&format!("a region at {start:#x}: {e}")))?;
    }
    let mut slots = [(0, 0); SLOTS];
    let mut count = 0;
    let mut given = Vec::new();
    for (ask, theirs) in asks.iter().zip(&theirs.given) {
        let Some(call) = ask.call(&slots) else {
            given.push(Ok(0));
            continue;
        };
        let result = match (call, *ask, theirs) {
            (Call::Map(hint), Ask::Map { len, flags, .. }, &Ok(at)) if is_random(ask, hint, at) => {
                low(at, len)
                    .and_then(|()| space.mmap(at, len, 0, flags | map::FIXED_NOREPLACE, None))
            }
            (Call::Map(hint), Ask::Map { len, flags, .. }, _) => {
                space.mmap(hint, len, 0, flags, None)
            }
            (Call::Unmap(at, len), ..) => space.munmap(at, len).map(|()| 0),
            (Call::Grow(at, old, new), ..) => space.mremap(at, old, new, mremap::MAYMOVE, 0),
            (Call::Map(_), ..) => Err(Errno::Einval),
        };
        if let Ok(at) = result {
            ask.follow(&mut slots, &mut count, at);
        }
        given.push(result.map_err(|e| u64::from(e.number().cast_unsigned())));
    }
    Ok(given)
}

/// Whether `MAP_32BIT` may be there: from 1 GiB, or up to 32 MiB more, to 2 GiB.
const fn low(at: u64, len: u64) -> Result<(), Errno> {
    if at >= 1 << 30 && at + len <= 1 << 31 { Ok(()) } else { Err(Errno::Einval) }
}

/// From where on downwards regions are put: nothing is free between that and the first page that was given.
fn top(places: &Places) -> u64 {
    let mut top = places.first + PAGE;
    for &(start, end, _) in &places.begun {
        if start == top {
            top = end;
        }
    }
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_slot_is_within_it_and_leaves_a_page() {
        let ask = Ask::Unmap { slot: 1, skip: 9 * PAGE, len: 4 * PAGE };
        let mut slots = [(0x1000, PAGE), (0x10_0000, 3 * PAGE)];
        assert_eq!(ask.call(&slots), Some(Call::Unmap(0x10_2000, PAGE)));
        ask.follow(&mut slots, &mut 2, 0);
        assert_eq!(slots[1], (0x10_0000, 2 * PAGE));
        assert_eq!(Ask::Grow { slot: 5, len: PAGE }.call(&slots), None);
    }

    #[test]
    fn the_top_is_behind_what_follows_the_first_place() {
        let begun = vec![(0x1000, 0x3000, false), (0x9000, 0xb000, false), (0xb000, 0xc000, true)];
        let places = Places { begun, first: 0x8000, given: Vec::new() };
        assert_eq!(top(&places), 0xc000);
        assert_eq!(top(&Places { first: 0x7000, ..places }), 0x8000);
    }
}
