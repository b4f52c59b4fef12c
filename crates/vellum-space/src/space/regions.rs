//! Regions: putting in, cutting, changing, and joining with neighbours.
//!
//! ```text
//!   prev   new   next          what comes of it
//!   A      A     A             one region, if the anonymous pages of all three are one family's
//!   A(1)   A     A(2)          [ A(1)      ][ A(2) ]      the new one goes to its left neighbour
//!   A      A     B             [ A      ][ B ]
//!   B      A     A             [ B ][ A      ]
//!   B      A     C             three regions
//! ```
//!
//! # Invariants
//!
//! - Every region is counted in `used`, once; a file hears of each region that shows it, once.
//! - No operation here runs out of memory after it has changed something: it reserves first.
//!
//! Source: Linux, mm/vma.c (`vma_merge_new_range`, `vma_merge_existing_range`, `can_vma_merge_right`).

use super::parts::Parts;
use super::{bounds_of, pages_of};
use crate::errno::Errno;
use crate::vma::{Anon, VmFlags, Vma, pages};
use crate::vma_map::{PageRange, VmaMapError};
use vellum_core::VirtAddr;
use vellum_fault::System;

/// A region and where it is, `[start, end)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) vma: Vma,
}

impl Found {
    pub(crate) fn new((range, vma): (PageRange, Vma)) -> Self {
        let (start, end) = bounds_of(range);
        Self { start, end, vma }
    }

    pub(crate) const fn count_pages(&self) -> u64 {
        pages(self.end - self.start)
    }

    /// Whether it ends where `next` begins, and may take it in.
    fn takes_in(&self, next: &Self) -> bool {
        self.end == next.start && self.vma.continues_with(self.count_pages(), &next.vma)
    }
}

/// With which neighbours a region becomes one.
#[derive(Clone, Copy, Default)]
struct Join {
    left: Option<Found>,
    right: Option<Found>,
}

impl From<VmaMapError> for Errno {
    fn from(error: VmaMapError) -> Self {
        match error {
            VmaMapError::Taken(_) => Self::Eexist,
            _ => Self::Enomem,
        }
    }
}

impl<S: System> Parts<'_, S> {
    /// The region that `va` is in.
    pub(crate) fn find(&self, va: u64) -> Option<Found> {
        self.vmas.find(VirtAddr::new(va)).map(Found::new)
    }

    /// The first region that ends after `va`.
    pub(crate) fn next(&self, va: u64) -> Option<Found> {
        self.vmas.next(VirtAddr::new(va)).map(Found::new)
    }

    /// The last region that ends at or before `va`.
    pub(crate) fn prev(&self, va: u64) -> Option<Found> {
        self.vmas.prev(VirtAddr::new(va)).map(Found::new)
    }

    /// The first region that has a byte in `[start, end)`.
    pub(crate) fn first_in(&self, start: u64, end: u64) -> Option<Found> {
        let found = self.vmas.with_next(VirtAddr::new(start), |range, vma| {
            let (first, until) = bounds_of(range);
            // Copied only if it is asked for.
            if first < end { Some(Found { start: first, end: until, vma: *vma }) } else { None }
        });
        found.flatten()
    }

    /// Which neighbours a region would become one with.
    fn joins(&self, new: &Found) -> Join {
        let Ok(range) = pages_of(new.start, new.end) else { return Join::default() };
        let joins = |own: &Found| Vma::may_join(own.vma.anon, new.vma.anon);
        let (left, right) = self.vmas.touching(range);
        let left = left.map(Found::new).filter(|prev| prev.takes_in(new) && joins(prev));
        let right = right.map(Found::new).filter(|next| {
            let among_themselves = left.is_none_or(|left| {
                let (left, right) = (left.vma.anon, next.vma.anon);
                left.is_none() || right.is_none() || id(left) == id(right)
            });
            new.takes_in(next) && joins(next) && among_themselves
        });
        Join { left, right }
    }

    /// Puts in a region where nothing is, as part of its neighbours where it can be; the caller counts
    /// it. A file hears of it only if it stays a region of its own.
    pub(crate) fn insert(&mut self, start: u64, end: u64, vma: Vma) -> Result<(), Errno> {
        let new = Found { start, end, vma };
        let join = self.joins(&new);
        if join.left.is_none() && join.right.is_none() {
            self.vmas.insert(pages_of(start, end)?, vma)?;
            self.note_file(&vma, true);
            return Ok(());
        }
        self.join(new, join, false)
    }

    /// The same for what lies behind `found` and goes on with it.
    pub(crate) fn insert_behind(&mut self, found: &Found, end: u64, vma: Vma) -> Result<(), Errno> {
        let new = Found { start: found.end, end, vma };
        // A region takes in its own continuation whoever it came from.
        let right = self.joins(&new).right;
        self.join(new, Join { left: Some(*found), right }, false)
    }

    /// Makes one region of `new` and its neighbours; `is_there` if it is a region already.
    fn join(&mut self, new: Found, join: Join, is_there: bool) -> Result<(), Errno> {
        let anon = |found: Option<Found>| found.and_then(|found| found.vma.anon);
        let anon = anon(join.left).or(new.vma.anon).or(anon(join.right));
        let start = join.left.map_or(new.start, |left| left.start);
        let end = join.right.map_or(new.end, |right| right.end);
        let index = join.left.map_or(new.vma.index, |left| left.vma.index);
        let guards = |found: Option<Found>| found.is_some_and(|found| found.vma.has_had_guards());
        let has_guards = guards(join.left) || new.vma.has_had_guards() || guards(join.right);
        // One stays and gets the range of all.
        let begin = |found: Option<Found>| found.map(|found| found.start);
        let kept = begin(join.left).or(begin(is_there.then_some(new))).or(begin(join.right));
        let kept = kept.unwrap_or(start);
        if is_there && kept != new.start {
            self.vmas.remove(VirtAddr::new(new.start))?;
            self.note_file(&new.vma, false);
        }
        if let Some(right) = join.right.filter(|right| kept != right.start) {
            self.vmas.remove(VirtAddr::new(right.start))?;
            self.note_file(&right.vma, false);
        }
        self.vmas.resize(VirtAddr::new(kept), pages_of(start, end)?)?;
        self.vmas.update(VirtAddr::new(start), |vma| {
            vma.index = index;
            vma.anon = anon;
            vma.flags = vma.flags.with(VmFlags::MAYBE_GUARD, has_guards);
        })?;
        Ok(())
    }

    /// Whether another region may be made.
    pub(crate) fn may_split(&self) -> Result<(), Errno> {
        if self.vmas.len() < self.rules.max_map_count { Ok(()) } else { Err(Errno::Enomem) }
    }

    /// Cuts the region around `at` in two; nothing where one begins or none is.
    pub(crate) fn split(&mut self, at: u64) -> Result<(), Errno> {
        let Some(found) = self.find(at).filter(|found| found.start < at) else { return Ok(()) };
        let skipped = pages(at - found.start);
        self.vmas.split_at(VirtAddr::new(at), |_, left| left.skip(skipped))?;
        self.note_file(&found.vma, true);
        Ok(())
    }

    /// Changes the part `[start, end)` of the region that it lies in, by `change`, which sees the whole
    /// one; cuts and joins as that needs. Counts are the caller's.
    ///
    /// `ENOMEM` for lack of memory, or too many regions; then nothing was changed, but for a cut.
    pub(crate) fn modify(
        &mut self,
        start: u64,
        end: u64,
        change: impl Fn(&mut Vma),
    ) -> Result<(), Errno> {
        match self.find(start) {
            Some(found) => self.modify_found(&found, (start, end), change),
            None => Ok(()),
        }
    }

    /// The same of the region that `found` is now, and has `start` in it.
    pub(crate) fn modify_found(
        &mut self,
        found: &Found,
        (start, end): (u64, u64),
        change: impl FnOnce(&mut Vma),
    ) -> Result<(), Errno> {
        let end = end.min(found.end);
        let mut vma = found.vma.skip(pages(start - found.start));
        change(&mut vma);
        let new = Found { start, end, vma };
        let mut join = self.joins(&new);
        // What lies within the old region is not its neighbour.
        join.left = join.left.filter(|_| start == found.start);
        join.right = join.right.filter(|_| end == found.end);
        self.vmas.reserve(2)?;
        let is_alone = join.left.is_none() && join.right.is_none();
        for at in [start, end] {
            if found.start < at && at < found.end {
                if is_alone {
                    self.may_split()?;
                }
                self.split(at)?;
            }
        }
        self.vmas.update(VirtAddr::new(start), |it| *it = vma)?;
        if is_alone {
            return Ok(());
        }
        self.join(new, join, true)
    }

    /// Sees to it that pages of the region around `va` can be told whose they are; what `found` is then.
    ///
    /// A neighbour that differs in rights alone lends its family, so that the two become one once their
    /// rights are equal (Linux: `find_mergeable_anon_vma`).
    pub(crate) fn adopt(&mut self, found: Found) -> Result<Found, Errno> {
        if found.vma.anon.is_some() {
            return Ok(found);
        }
        let anon = self.lent(&found).unwrap_or_else(|| {
            let id = self.rules.number();
            Anon { id, family: id, is_inherited: false }
        });
        let vma = Vma { anon: Some(anon), ..found.vma };
        self.vmas.update(VirtAddr::new(found.start), |it| *it = vma)?;
        Ok(Found { vma, ..found })
    }

    fn lent(&self, found: &Found) -> Option<Anon> {
        let range = pages_of(found.start, found.end).ok()?;
        let (prev, next) = self.vmas.touching(range);
        let alike = |left: &Found, right: &Found| {
            let plain = |found: &Found| {
                let flags = found.vma.flags.without(VmFlags::ACCESS);
                Found { vma: Vma { flags, ..found.vma }, ..*found }
            };
            plain(left).takes_in(&plain(right))
        };
        let of = |other: Found| other.vma.anon.filter(|anon| !anon.is_inherited);
        let next = next.map(Found::new).filter(|next| alike(found, next)).and_then(of);
        next.or_else(|| prev.map(Found::new).filter(|prev| alike(prev, found)).and_then(of))
    }
}

fn id(anon: Option<Anon>) -> Option<u64> {
    anon.map(|anon| anon.id)
}
