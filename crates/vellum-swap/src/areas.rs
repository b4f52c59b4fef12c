//! Several areas as one place for pages: by priority, and in turn among equals.
//!
//! ```text
//!   store   priority 10    [ssd 0] [ssd 1]     one after the other, page by page: a stripe
//!           priority  5    [disk]              only when those above are full, or fail
//!           closing        [old]               never; its pages still come back from it
//!
//!   entry    31 ..              5 4    0
//!           +--------------------+------+
//!           | slot               | area |      what a table's soft entry holds
//!           +--------------------+------+
//! ```
//!
//! An area is taken out of use in steps: [`close`](Areas::close) it, bring back what
//! [`each_used`](crate::Area::each_used) says is there, by faults; then [`remove`](Areas::remove) succeeds. Who
//! cannot bring all back [opens](Areas::reopen) it again, and nothing has changed.
//!
//! Source: Linux, swapon(2), swapoff(2), mm/swapfile.c (`plist`s of areas by priority).

use crate::area::{Area, AreaUsage, LoadError, StoreError};
use crate::device::BlockDevice;
use core::fmt;
use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use vellum_core::{FrameBytes, Swap, SwapEntry, SwapError};

/// The most areas at a time.
pub const MOST_AREAS: usize = 32;

const AREA_BITS: u32 = MOST_AREAS.trailing_zeros();

/// Several areas; see the top of `areas.rs` for how one is chosen.
pub struct Areas<'m, D> {
    members: [Option<Member<'m, D>>; MOST_AREAS],
    /// Whose turn it is, among equals.
    turn: AtomicUsize,
}

struct Member<'m, D> {
    area: Area<'m, D>,
    priority: i16,
    is_closing: AtomicBool,
}

/// A slot of one of several areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Which area, below [`MOST_AREAS`].
    pub area: usize,
    /// Which of its slots.
    pub slot: u32,
}

impl Place {
    /// As a number of at most 37 bits, and fewer for small areas.
    #[must_use]
    pub const fn entry(self) -> u64 {
        #[allow(clippy::as_conversions, reason = "u64::from is not const; both fit")]
        {
            (self.slot as u64) << AREA_BITS | (self.area % MOST_AREAS) as u64
        }
    }

    /// What [`entry`](Self::entry) made; `None` for what it makes of no place.
    #[must_use]
    pub fn of(entry: u64) -> Option<Self> {
        let area = usize::try_from(entry % MOST_AREAS as u64).ok()?;
        let slot = u32::try_from(entry >> AREA_BITS).ok()?;
        Some(Self { area, slot })
    }
}

/// Why an area cannot be taken out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveError {
    /// There is no such area.
    Unknown,
    /// It was not closed before: pages may be on their way to it.
    Open,
    /// So many of its slots are in use.
    InUse(usize),
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such swap area"),
            Self::Open => f.write_str("the swap area must be closed before it is removed"),
            Self::InUse(used) => write!(f, "{used} pages are still in the swap area"),
        }
    }
}

impl core::error::Error for RemoveError {}

impl<'m, D: BlockDevice> Areas<'m, D> {
    /// No areas: every page stays where it is.
    #[must_use]
    pub const fn new() -> Self {
        Self { members: [const { None }; MOST_AREAS], turn: AtomicUsize::new(0) }
    }

    /// Adds an area; of several, those of the highest priority are filled first. Its number.
    ///
    /// # Errors
    ///
    /// The area itself, if there are [`MOST_AREAS`] already.
    #[allow(clippy::result_large_err, reason = "nobody but the caller can have it")]
    pub fn add(&mut self, area: Area<'m, D>, priority: i16) -> Result<usize, Area<'m, D>> {
        let free = self.members.iter_mut().enumerate().find(|(_, member)| member.is_none());
        let Some((number, member)) = free else { return Err(area) };
        *member = Some(Member { area, priority, is_closing: AtomicBool::new(false) });
        Ok(number)
    }

    /// Stores nothing in an area from now on; false if there is none of that number.
    pub fn close(&self, area: usize) -> bool {
        self.set_closing(area, true)
    }

    /// Stores in it again.
    pub fn reopen(&self, area: usize) -> bool {
        self.set_closing(area, false)
    }

    fn set_closing(&self, area: usize, closing: bool) -> bool {
        self.member(area).is_some_and(|member| {
            member.is_closing.store(closing, Release);
            true
        })
    }

    /// Takes a closed and empty area out of use.
    ///
    /// # Errors
    ///
    /// [`RemoveError`]; nothing has changed.
    pub fn remove(&mut self, area: usize) -> Result<Area<'m, D>, RemoveError> {
        let member = self.members.get_mut(area).ok_or(RemoveError::Unknown)?;
        let found = member.as_ref().ok_or(RemoveError::Unknown)?;
        if !found.is_closing.load(Acquire) {
            return Err(RemoveError::Open);
        }
        match found.area.usage().used {
            0 => member.take().map(|member| member.area).ok_or(RemoveError::Unknown),
            used => Err(RemoveError::InUse(used)),
        }
    }

    /// Stores a page, with one share. `cpu` is any number that differs between CPUs.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] if no area has a free slot, else what the last device said.
    pub fn store(&self, from: FrameBytes<'_>, cpu: usize) -> Result<Place, StoreError> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let mut failed = StoreError::Full;
        let mut below = None;
        while let Some(priority) = self.next_priority(below) {
            let equal = self.open().filter(|(_, member)| member.priority == priority);
            let count = equal.clone().count();
            for (number, member) in equal.cycle().skip(turn % count.max(1)).take(count) {
                match member.area.store(from, cpu) {
                    Ok(slot) => return Ok(Place { area: number, slot }),
                    Err(StoreError::Full) => {}
                    Err(error) => failed = error,
                }
            }
            below = Some(priority);
        }
        Err(failed)
    }

    /// The highest priority below one of the areas that are open.
    fn next_priority(&self, below: Option<i16>) -> Option<i16> {
        let priorities = self.open().map(|(_, member)| member.priority);
        priorities.filter(|&priority| below.is_none_or(|below| priority < below)).max()
    }

    /// Fills `to` with a page in whose place the caller has a share.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; then `to` has no contents that anybody should see.
    pub fn load(&self, place: Place, to: FrameBytes<'_>) -> Result<(), LoadError> {
        self.member(place.area).ok_or(LoadError::Free)?.area.load(place.slot, to)
    }

    /// One share more in a place; false, and nothing changed, if it has none any more.
    #[must_use]
    pub fn share(&self, place: Place) -> bool {
        self.member(place.area).is_some_and(|member| member.area.share(place.slot))
    }

    /// One share fewer; false if there was none. With the last one the place is free.
    pub fn release(&self, place: Place) -> bool {
        self.member(place.area).is_some_and(|member| member.area.release(place.slot))
    }

    /// An area, by its number.
    #[must_use]
    pub fn area(&self, number: usize) -> Option<&Area<'m, D>> {
        self.member(number).map(|member| &member.area)
    }

    /// Calls `f` with the number, priority and usage of each area, as `/proc/swaps` lists them.
    pub fn each(&self, mut f: impl FnMut(usize, i16, AreaUsage)) {
        for (number, member) in self.members.iter().enumerate() {
            if let Some(member) = member {
                f(number, member.priority, member.area.usage());
            }
        }
    }

    fn member(&self, number: usize) -> Option<&Member<'m, D>> {
        self.members.get(number)?.as_ref()
    }

    /// The areas that pages may be stored in, with their numbers.
    fn open(&self) -> impl Iterator<Item = (usize, &Member<'m, D>)> + Clone {
        let known = self.members.iter().enumerate();
        let known = known.filter_map(|(number, member)| Some((number, member.as_ref()?)));
        known.filter(|(_, member)| !member.is_closing.load(Acquire))
    }
}

impl<D: BlockDevice> Swap for Areas<'_, D> {
    fn read(&self, entry: SwapEntry, to: FrameBytes<'_>) -> Result<(), SwapError> {
        let place = Place::of(entry.0).ok_or(SwapError::Io)?;
        self.load(place, to).map_err(|_| SwapError::Io)
    }

    fn share(&self, entry: SwapEntry) -> bool {
        Place::of(entry.0).is_some_and(|place| Areas::share(self, place))
    }

    fn release(&self, entry: SwapEntry) {
        let had_one = Place::of(entry.0).is_some_and(|place| Areas::release(self, place));
        debug_assert!(had_one, "a share of a free place was given back");
    }
}

impl<D: BlockDevice> Default for Areas<'_, D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: BlockDevice> fmt::Debug for Areas<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        self.each(|number, priority, usage| {
            list.entry(&(number, priority, usage));
        });
        list.finish()
    }
}

#[cfg(test)]
mod tests;
