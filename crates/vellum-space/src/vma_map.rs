//! The regions of one address space: ranges of pages that do not overlap, with a value each.
//!
//! ```text
//!   bounds  |------[ text ][data]----[heap]-----------------[lib][lib]---[stack]--|
//!                                           ^ find_gap(.., Up)      ^ .., Down)
//!
//!   inner                 | end, start, gap, child | ... 16 |
//!                        /                          \
//!   leaf     | start, end, value | ... 16 |          | start, end, value | ... |
//! ```
//!
//! A B+-tree whose nodes live in a [`Slab`] each kind (`node` has their layout). Of each child an inner
//! node knows the first start, the last end, and the largest gap between two regions below it: the first
//! two lead a search and the third one a search for room, past everything that has none.
//!
//! Neighbours with equal values stay two regions: what may be merged is for the map's owner to say,
//! who gets both neighbours of a range at one descent ([`neighbours`](VmaMap::neighbours)).
//!
//! Searches take `&self`, change nothing, and may run at once; changes take `&mut self`.
//!
//! # Invariants
//!
//! - Regions lie within the bounds, do not overlap, and are in order (`check`, in tests).
//! - All leaves are `height` levels below the root. A node that is neither at the left nor at the
//!   right edge of its level has `LEAST` places in use or more.
//! - What an inner node says of a child is what the child says of itself.
//! - An operation that returns [`VmaMapError`] has changed no region.
//!
//! Source: R. Bayer, E. McCreight, "Organization and Maintenance of Large Ordered Indices", Acta
//! Informatica 1, 1972; for gaps in the tree, Linux's `Documentation/core-api/maple_tree.rst`.

use vellum_core::{Memory, PAGE_SHIFT, VirtAddr};
use vellum_frame::slab::Slab;

mod clear;
mod debug;
mod descend;
mod error;
mod gap;
mod grow;
mod iter;
mod node;
mod range;
mod shrink;

#[cfg(test)]
mod check;
#[cfg(test)]
mod tests;

pub use error::VmaMapError;
pub use gap::{Direction, Room};
pub use iter::Regions;
pub use range::PageRange;

use descend::Path;
use node::{Inner, Leaf, Summary};

/// A region, and what is known of it.
pub type Region<V> = (PageRange, V);

/// Regions of an address space, with values of type `V`, in frames of `M`.
///
/// Values are kept beside their ranges, 16 of them in a leaf, and a leaf has to fit a frame: a value may
/// have 232 bytes, which is checked when this is compiled, and is the cheaper the smaller it is. Up to
/// 16 regions take one frame.
///
/// ```
/// use vellum_core::VirtAddr;
/// use vellum_space::{PageRange, VmaMap};
/// use vellum_testkit::Arena;
///
/// let arena = Arena::new(16);
/// let mut map = VmaMap::new(&arena, PageRange::ALL);
/// let text = PageRange::new(VirtAddr::new(0x40_0000), 0x3000)?;
/// map.insert(text, "text")?;
/// assert_eq!(map.find(VirtAddr::new(0x40_2fff)), Some((text, "text")));
/// assert_eq!(map.find(VirtAddr::new(0x40_3000)), None);
///
/// // The last page of all is a page like any other.
/// let last = PageRange::touching(VirtAddr::new(u64::MAX), VirtAddr::new(u64::MAX)).unwrap();
/// map.insert(last, "gate")?;
/// assert_eq!(map.next(VirtAddr::new(0x40_3000)), Some((last, "gate")));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct VmaMap<V: Copy, M: Memory> {
    leaves: Slab<Leaf<V>, M>,
    inners: Slab<Inner, M>,
    bounds: PageRange,
    /// A leaf where `height` is 0; meaningless where `len` is.
    root: u32,
    /// Levels of inner nodes.
    height: usize,
    /// What the root says of itself.
    all: Summary,
    len: u64,
}

impl<V: Copy, M: Memory> VmaMap<V, M> {
    /// One without regions, which takes no frame yet; regions may lie within `bounds`.
    #[must_use]
    pub fn new(memory: M, bounds: PageRange) -> Self {
        Self {
            leaves: Slab::new(memory.clone()),
            inners: Slab::new(memory),
            bounds,
            root: 0,
            height: 0,
            all: Summary::EMPTY,
            len: 0,
        }
    }

    /// How many regions there are.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where regions may lie.
    #[must_use]
    pub const fn bounds(&self) -> PageRange {
        self.bounds
    }

    /// The memory that its frames come from.
    #[must_use]
    pub const fn memory(&self) -> &M {
        self.leaves.memory()
    }

    /// Bytes of all frames that it holds.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.leaves.bytes() + self.inners.bytes()
    }

    /// The region that the byte at `va` is in. O(log n), for a fault: takes no memory and no lock.
    #[inline]
    #[must_use]
    pub fn find(&self, va: VirtAddr) -> Option<Region<V>> {
        let page = va.number().as_u64();
        self.after(page).filter(|(range, _)| range.first_page() <= page)
    }

    /// The first region that ends after `va`: the one that it is in, or else the next one. O(log n).
    #[inline]
    #[must_use]
    pub fn next(&self, va: VirtAddr) -> Option<Region<V>> {
        self.after(va.number().as_u64())
    }

    /// What `f` makes of the first region that ends after `va`, which is not copied for that; `None` if
    /// there is none. O(log n). `f` is called with the memory of a node at hand, so it does not ask the
    /// memory for another.
    #[inline]
    pub fn with_next<R>(&self, va: VirtAddr, f: impl FnOnce(PageRange, &V) -> R) -> Option<R> {
        let page = va.number().as_u64();
        let leaf = self.leaf_with(page)?;
        self.leaves.with(leaf, |leaf| leaf.with(leaf.find(page), f))
    }

    /// The region that ends where `range` begins, and the one that begins where it ends; of a range that is
    /// free, or one region's. O(log n); one descent, and cheap where there is neither, as most often.
    #[must_use]
    pub fn touching(&self, range: PageRange) -> (Option<Region<V>>, Option<Region<V>>) {
        let (first, end) = (range.first_page(), range.end_page());
        // Where the last region ends before it, or it begins with the lowest page, there may be one
        // neighbour; where both would lie in one leaf, a look into that is enough.
        let inner = self.leaf_with(first.wrapping_sub(1)).filter(|_| first > 0);
        let beside = inner.map(|leaf| self.leaves.with(leaf, |leaf| leaf.touching(first, end)));
        match beside {
            Some(Some((left, Some(right)))) => (left, right),
            Some(Some((left, None))) => (left, self.starting_at(end)),
            _ => (None, self.starting_at(end)),
        }
    }

    /// The region that begins with this page.
    fn starting_at(&self, page: u64) -> Option<Region<V>> {
        self.after(page).filter(|(range, _)| range.first_page() == page)
    }

    /// The last region that ends at or before `va`: the one before [`next`](Self::next). O(log n).
    #[must_use]
    pub fn prev(&self, va: VirtAddr) -> Option<Region<V>> {
        self.around(va).0
    }

    /// Both: the last region that ends at or before `va`, and the first one that ends after it, at one
    /// descent. O(log n).
    #[must_use]
    pub fn around(&self, va: VirtAddr) -> (Option<Region<V>>, Option<Region<V>>) {
        let mut path = Path::new();
        match self.locate(va.number().as_u64(), &mut path) {
            Some(()) => (self.before(&path), path.region),
            None => (None, None),
        }
    }

    /// The last region that ends at or before the start of `range`, and the first one that starts at
    /// or after its end: those to merge with, if they touch it. O(log n); one descent where the range
    /// is free, and its neighbours are not in different nodes.
    #[must_use]
    pub fn neighbours(&self, range: PageRange) -> (Option<Region<V>>, Option<Region<V>>) {
        let (before, mut after) = self.around(range.start());
        if after.is_some_and(|(found, _)| found.first_page() < range.end_page()) {
            after = self.after(range.end_page());
        }
        // One that begins in the range and reaches beyond it.
        if let Some((found, _)) = after.filter(|(found, _)| found.first_page() < range.end_page()) {
            after = self.after(found.end_page());
        }
        (before, after)
    }

    /// The regions that have a page in `range`, ascending, whole even where they reach beyond it.
    /// O(log n) for every 16th of them, O(1) for the others.
    #[must_use]
    pub fn iter(&self, range: PageRange) -> Regions<'_, V, M> {
        Regions::new(self, range)
    }

    /// Puts a region in. O(log n).
    ///
    /// # Errors
    ///
    /// [`VmaMapError::Taken`] with the first region that is in the way, [`VmaMapError::Outside`] of the
    /// bounds, [`VmaMapError::OutOfFrames`].
    pub fn insert(&mut self, range: PageRange, value: V) -> Result<(), VmaMapError> {
        if !self.bounds.covers(range) {
            return Err(VmaMapError::Outside(range));
        }
        let mut path = Path::new();
        if self.locate(range.first_page(), &mut path).is_none() {
            return self.insert_first(range, value);
        }
        match path.region {
            Some((found, _)) if found.first_page() < range.end_page() => {
                Err(VmaMapError::Taken(found))
            }
            _ => {
                self.make_room(&path)?;
                self.insert_at(&path, range, value);
                Ok(())
            }
        }
    }

    /// Takes out the region that starts at `start`. O(log n); takes no memory.
    ///
    /// # Errors
    ///
    /// [`VmaMapError::Missing`].
    pub fn remove(&mut self, start: VirtAddr) -> Result<Region<V>, VmaMapError> {
        let mut path = Path::new();
        let region = self.starting(start, &mut path)?;
        self.take(&path, 1);
        Ok(region)
    }

    /// Gives the region that starts at `start` another range, at either end or at both, which may not
    /// touch another region. O(log n); takes no memory.
    ///
    /// # Errors
    ///
    /// [`VmaMapError::Missing`]; [`VmaMapError::Outside`]; [`VmaMapError::Taken`] with a region that
    /// lies in `range`, or between it and where the region is now.
    pub fn resize(&mut self, start: VirtAddr, range: PageRange) -> Result<(), VmaMapError> {
        if !self.bounds.covers(range) {
            return Err(VmaMapError::Outside(range));
        }
        let mut path = Path::new();
        let (old, value) = self.starting(start, &mut path)?;
        // Where it only shrinks, nobody can be in the way.
        if !old.covers(range) {
            let before = self.before(&path).filter(|(at, _)| at.end_page() > range.first_page());
            let after = self.after(old.end_page());
            let after = after.filter(|(at, _)| at.first_page() < range.end_page());
            if let Some((found, _)) = before.or(after) {
                return Err(VmaMapError::Taken(found));
            }
        }
        self.set(&path, range, value);
        Ok(())
    }

    /// Calls `f` with the value of the region that starts at `start`, to change it. O(log n).
    ///
    /// # Errors
    ///
    /// [`VmaMapError::Missing`].
    pub fn update<R>(
        &mut self,
        start: VirtAddr,
        f: impl FnOnce(&mut V) -> R,
    ) -> Result<R, VmaMapError> {
        let mut path = Path::new();
        self.starting(start, &mut path)?;
        let at = path.at;
        let done = self.leaves.with_mut(path.leaf, |leaf| f(leaf.value_mut(at)));
        done.ok_or(VmaMapError::Missing(start))
    }

    /// Makes two regions of the one that has the pages on both sides of `va`. `cut` is given its range
    /// and its value, which becomes the left one's, and returns the right one's. O(log n).
    ///
    /// # Errors
    ///
    /// [`VmaMapError::Missing`] where no region has a byte on both sides of `va`, or it is no multiple
    /// of 4 KiB; [`VmaMapError::OutOfFrames`]. `cut` has not been called then.
    pub fn split_at(
        &mut self,
        va: VirtAddr,
        cut: impl FnOnce(PageRange, &mut V) -> V,
    ) -> Result<(), VmaMapError> {
        let missing = VmaMapError::Missing(va);
        let mut path = Path::new();
        self.locate(va.number().as_u64(), &mut path).ok_or(missing)?;
        let (range, mut value) = path.region.ok_or(missing)?;
        let (left, right) = range.split_at(va).ok_or(missing)?;
        self.make_room(&path)?;
        let right_value = cut(range, &mut value);
        self.set_leaf(&path, left, value);
        path.step_behind();
        self.insert_at(&path, right, right_value);
        Ok(())
    }

    /// Sees to it that the next `changes` calls that may add a region ([`insert`](Self::insert),
    /// [`split_at`](Self::split_at), [`clear_range`](Self::clear_range)) do not run out of memory,
    /// whatever else is called between them. O(changes, and log n).
    ///
    /// # Errors
    ///
    /// [`VmaMapError::OutOfFrames`].
    pub fn reserve(&mut self, changes: u32) -> Result<(), VmaMapError> {
        // Each may split a node of each level, and the root. Roots that come to be meanwhile are split
        // again only after some ten others.
        let inners = changes.saturating_mul(self.height as u32 + 1).saturating_add(2);
        self.leaves.reserve(changes)?;
        self.inners.reserve(inners)?;
        Ok(())
    }

    /// Takes back what [`reserve`](Self::reserve) promised, and gives back the memory.
    pub fn release(&mut self) {
        self.leaves.release();
        self.inners.release();
    }

    /// The region that starts at `start`; leads a new path to it.
    #[inline(always)]
    fn starting(&self, start: VirtAddr, path: &mut Path<V>) -> Result<Region<V>, VmaMapError> {
        let page = start.number();
        let located = self.locate(page.as_u64(), path).and(path.region);
        let region = located.filter(|(range, _)| range.start() == start);
        region.ok_or(VmaMapError::Missing(start))
    }
}

/// A page number of so many bytes, rounded up.
const fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(1 << PAGE_SHIFT)
}
