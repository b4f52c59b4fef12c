//! Lines of eight entries in open addressing: a look-up is one cache line, if the line is at home.
//!
//! ```text
//!   hash of the tag                 lines of 64 bytes (line.rs), a circle
//!        |
//!        v home                    +---+-------+-------+-------+-------+---+
//!        +-----------------------> | . | A     | B     | C     | D     | . |
//!                                  +---+-------+-------+-------+-------+---+
//!                                        home    +1      +2      +3     unused: a look-up ends
//!
//!   linear        a new line takes the first unused place
//!   Robin Hood    it takes the place of the first line that is less far from home than it would be
//!                 there, and that one and those behind it move up by one
//!   removal       what may come nearer to its home closes the gap, and the last place is unused
//! ```
//!
//! Both orders read the same number of lines on average; Robin Hood's longest look-up is far shorter,
//! and its insertions write more lines. Leaves of 4 KiB, 2 MiB and 1 GiB have lines of their own,
//! told apart by the tag.
//!
//! The table grows when six lines in ten are in use, by linear hashing with homes for buckets: a new
//! line is followed by [`STEPS`] splits, of each of which the lines of one home that now belong to
//! another move there. So the homes double while the load rises by a sixteenth, no part of the table
//! gets dense meanwhile, and no call moves more lines than a few homes have. A segment is as large as
//! all before it and one block of memory, of which each split zeroes as many lines as it makes homes,
//! a few regions ahead (`lines`); without it the table fills up to [`FULL`], and then refuses lines.
//! (Once there is memory again, the first call that a line was refused to doubles the homes by
//! itself, in one long pause.) `shrink` halves it, at a load of .2 or less.
//!
//! A walker reads whole lines, one after the other, up to the one that it looks for or an unused one.
//! That the bases of the segments and the number of homes lie in registers is assumed.
//!
//! # Invariants
//!
//! - Between a line and its home there is no unused place, and at most [`MOST`] lines.
//! - A region is 64 lines and has a stripe. Who changes what a look-up from some home reads holds the
//!   stripes of all regions from that home to the end of what changes; so a look-up that found each
//!   region's version current until it was in the next has seen lines that were there together.
//! - A look-up that finds its line needs no n: it was there while the version was. One that does not
//!   reads n again while the version is current: had a split that ended before taken the line away,
//!   that n would be the new one, which the split has published under the stripe.
//! - The home of a line goes up, never down. A scan of region r offers the lines whose homes lie in r,
//!   wherever they are.
//! - n grows by the holder of `splitting`, who holds the region of the home that is split.
//!
//! # Lock order
//!
//! Stripes, all that a change needs at once; nothing under them. `splitting` is only ever tried.
//!
//! Source: D. E. Knuth, "The Art of Computer Programming" vol. 3, 6.4 (algorithms L and R); P. Celis,
//! P.-A. Larson, J. I. Munro, "Robin Hood Hashing", FOCS 1985; W. Litwin, "Linear Hashing", VLDB 1980.

use crate::line::{ENTRIES, LINE_BYTES, Line, SOFT_BITS, Tag, slot};
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use lines::{FEW, Lines, home_of};
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, Ref, Sink};
use vellum_global::{Asid, AsidError, Asids, Key, Lowest, Refused, Size, Space, Store, Stripes};

mod change;
mod grow;
mod lines;
mod probe;

/// Splits that follow a new line while the table grows.
pub const STEPS: u64 = 16;
/// Lines in use, of ten, from which on the table grows.
pub const DUE: u64 = 6;
/// Lines in use, of ten, beyond which it takes no more.
pub const FULL: u64 = 8;
/// Lines in use, of ten, up to which it shrinks.
pub const SPARSE: u64 = 2;
/// Lines that a look-up reads at most. At a load of [`FULL`] the chance that a stretch of used lines
/// from some place on is so long is about e<sup>-20</sup> (.0231 a line: load - 1 - ln load).
pub const MOST: u64 = 14 * lines::REGION;

/// What a table lacks: zeroed lines; a segment; or room, and then log2 of its homes is added.
const ZEROS: Need = Need::new(0);
const SEGMENT: Need = Need::new(1);
const ROOM: u32 = 2;

/// A hashed page table of lines for all spaces; [`space`](Self::space) makes a handle of one.
///
/// With `ROBIN_HOOD` lines make room for those that are farther from home.
pub struct Line8<M: Memory, const ROBIN_HOOD: bool = false> {
    lines: Lines<M>,
    stripes: Stripes<M>,
    asids: Asids,
    entries: AtomicU64,
    used: AtomicU64,
    /// Somebody is splitting a home, or adding a segment.
    splitting: AtomicBool,
    /// After a segment could not be had: how many lines there will be when it is tried again.
    retry_at: AtomicU64,
    moved: AtomicU64,
    worst_pause: AtomicU64,
}

/// How a table is filled, and what growing has cost. A line holds up to eight entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Lines in use.
    pub lines: u64,
    /// Homes: places for lines, all of them reached.
    pub homes: u64,
    /// Lines that were moved because the table has another size.
    pub moved: u64,
    /// Most of these in one call.
    pub worst_pause: u64,
}

/// What a look-up came to.
struct Look<R> {
    found: Option<R>,
    home: u64,
    /// How many lines it read, from home on.
    count: u64,
}

impl<M: Memory, const ROBIN_HOOD: bool> Line8<M, ROBIN_HOOD> {
    /// An empty table of 64 lines: a frame, and one of locks.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn new(memory: M) -> Result<Self, OutOfFrames> {
        Self::with_capacity(memory, 0)
    }

    /// An empty table of as many lines as eight neighbouring pages each of `pages` fill to six
    /// tenths, rounded up to a power of two: until it has as many lines in use, it does not grow.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn with_capacity(memory: M, pages: u64) -> Result<Self, OutOfFrames> {
        let want = pages.div_ceil(ENTRIES as u64).saturating_mul(10).div_ceil(DUE);
        Ok(Self {
            lines: Lines::new(memory.clone(), want)?,
            stripes: Stripes::new(memory)?,
            asids: Asids::new(),
            entries: AtomicU64::new(0),
            used: AtomicU64::new(0),
            splitting: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            worst_pause: AtomicU64::new(0),
        })
    }

    /// The space `asid`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn space(&self, asid: Asid) -> Result<Space<'_, Self>, AsidError> {
        Space::open(self, asid)
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        self.lines.memory()
    }

    /// What it has counted.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            lines: self.used.load(Ordering::Relaxed),
            homes: self.lines.homes(),
            moved: self.moved.load(Ordering::Relaxed),
            worst_pause: self.worst_pause.load(Ordering::Relaxed),
        }
    }

    /// Looks the line of a tag up, without a lock.
    #[inline]
    fn look<R>(&self, tag: Tag, read: impl Fn(&Line) -> R + Copy) -> Look<R> {
        let hash = tag.hash(0);
        let n = self.lines.homes();
        let home = home_of(hash, n);
        let version = self.stripes.begin(self.region(home));
        match self.lines.with_few(home, |few| look_in_few(few, tag, read)) {
            Some((found, count)) if count > 0 => {
                // Where it was found it was. Where it was not, another home may have been its own
                // since before the version.
                let known = found.is_some() || self.lines.homes() == n;
                if known && self.stripes.is_current(version) {
                    return Look { found, home, count };
                }
            }
            _ => {
                let (found, count) = self.look_along(tag, home, read);
                let known = count > 0 && (found.is_some() || self.lines.homes() == n);
                if known && self.stripes.is_current(version) {
                    return Look { found, home, count };
                }
            }
        }
        self.look_on(tag, read)
    }

    /// Looks along the lines from home to the end of the region: what was found, and in how many;
    /// none, if it may be behind.
    #[inline(never)]
    fn look_along<R>(&self, tag: Tag, home: u64, read: impl Fn(&Line) -> R) -> (Option<R>, u64) {
        self.lines.with_rest(home, |lines| {
            for (line, count) in lines.iter().zip(1..) {
                if line.is(tag) {
                    return (Some(read(line)), count);
                }
                if !line.is_used() {
                    return (None, count);
                }
            }
            (None, 0)
        })
    }

    /// The same from region to region, and as often as it takes.
    #[inline(never)]
    fn look_on<R>(&self, tag: Tag, read: impl Fn(&Line) -> R) -> Look<R> {
        let hash = tag.hash(0);
        'again: loop {
            let home = home_of(hash, self.lines.homes());
            let mut region = self.region(home);
            let mut version = self.stripes.begin(region);
            // A split of this home moves the region's version, from here on.
            if home_of(hash, self.lines.homes()) != home {
                continue;
            }
            let most = self.most(home);
            for steps in 0..most {
                let at = self.lines.after(home, steps);
                if self.region(at) != region {
                    let next = self.stripes.begin(self.region(at));
                    if !self.stripes.is_current(version) {
                        continue 'again;
                    }
                    (region, version) = (self.region(at), next);
                }
                let end = self.lines.with(at, |line| {
                    if line.is(tag) {
                        Some(Some(read(line)))
                    } else {
                        (!line.is_used()).then_some(None)
                    }
                });
                if let Some(found) = end {
                    if self.stripes.is_current(version) {
                        return Look { found, home, count: steps + 1 };
                    }
                    continue 'again;
                }
            }
            if self.stripes.is_current(version) {
                return Look { found: None, home, count: most };
            }
        }
    }
}

/// What `read` makes of the line of a tag, if that is one of these from its home on, and how many of
/// them say so; none, if it may be behind.
///
/// Where a look-up ends no processor could guess, so there are few branches: most lines are the first
/// or the second, of which the one whose first piece is right is chosen without any; and where it is
/// neither, an end is looked for among all at once.
#[inline]
fn look_in_few<R>(lines: &[Line; FEW], tag: Tag, read: impl Fn(&Line) -> R) -> (Option<R>, u64) {
    let [first, second, ..] = lines;
    let is_second = !first.may_be(tag);
    let line = [first, second][usize::from(is_second)];
    if line.is(tag) {
        return (Some(read(line)), 1 + u64::from(is_second));
    }
    let is_end = |line: &Line| u8::from(line.may_be(tag) | !line.is_used());
    let ends = lines.iter().rev().fold(0, |ends: u8, line| ends << 1 | is_end(line));
    let end = ends.trailing_zeros();
    match lines.get(end as usize) {
        Some(line) if !line.is_used() => (None, u64::from(end) + 1),
        Some(line) if line.is(tag) => (Some(read(line)), u64::from(end) + 1),
        _ => (None, 0),
    }
}

impl<M: Memory, const ROBIN_HOOD: bool> Store for Line8<M, ROBIN_HOOD> {
    /// Nothing: a line needs no memory, and growth is the table's own.
    type Stock<'t>
        = ()
    where
        Self: 't;

    const LEAVES: u64 = Size::ALL_LEAVES;
    const SOFT_BITS: u8 = SOFT_BITS;

    fn block(_: Size) -> NonZeroU64 {
        const { NonZeroU64::MIN.saturating_add(ENTRIES as u64 - 1) }
    }

    fn stock(&self) {}

    fn refill(&self, (): &mut (), need: Need) -> Result<(), OutOfFrames> {
        self.provide(need)
    }

    #[inline]
    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64 {
        let slot = slot(key);
        let Look { found, home, count } = self.look(Tag::of(key), |line| line.entry(slot));
        if S::HEARS {
            for steps in 0..count {
                let pa = self.lines.address(self.lines.after(home, steps));
                let bytes = LINE_BYTES as u8;
                sink.reference(Ref { pa, bytes, span: PAGE_SHIFT, parallel: false });
            }
        }
        found.unwrap_or(0)
    }

    fn update<E>(
        &self,
        key: Key,
        (): &mut (),
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        let (slot, mut f) = (slot(key), Some(f));
        let (mut came, mut went) = (false, false);
        let updated = self.change(
            Tag::of(key),
            |line| {
                let old = line.map_or(0, |line| line.entry(slot));
                // It is called once: whoever calls it is done.
                let Some(f) = f.take() else { return (Ok(old), None) };
                let new = match f(old) {
                    Ok(new) => new,
                    Err(e) => return (Err(Refused::By(e)), None),
                };
                (came, went) = (old == 0 && new != 0, old != 0 && new == 0);
                match line {
                    Some(line) if new != old => line.set_entry(slot, new),
                    Some(_) => {}
                    None if new != 0 => return (Ok(old), Some((slot, new))),
                    None => {}
                }
                (Ok(old), None)
            },
            |need| Err(Refused::Need(need)),
        );
        if updated.is_ok() && came {
            self.entries.fetch_add(1, Ordering::Relaxed);
        } else if updated.is_ok() && went {
            self.entries.fetch_sub(1, Ordering::Relaxed);
        }
        updated
    }

    fn read_block(&self, first: Key, raws: &mut [u64]) {
        let from = slot(first);
        let entries = |line: &Line| core::array::from_fn(|n| line.entry((from + n) % ENTRIES));
        let found: [u64; ENTRIES] = self.look(Tag::of(first), entries).found.unwrap_or_default();
        raws.iter_mut().zip(found).for_each(|(raw, entry)| *raw = entry);
    }

    fn change_block(
        &self,
        first: Key,
        count: usize,
        (): &mut (),
        f: &mut impl FnMut(Key, u64) -> u64,
    ) {
        let (from, mut gone) = (slot(first), 0);
        let change = |line: Option<&Line>| {
            for (n, slot) in (from..ENTRIES).take(count).enumerate() {
                let old = line.map_or(0, |line| line.entry(slot));
                if let (Some(line), true) = (line, old != 0) {
                    let new = f(first.plus(n as u64), old);
                    gone += u64::from(new == 0);
                    if new != old {
                        line.set_entry(slot, new);
                    }
                }
            }
            ((), None)
        };
        self.change(Tag::of(first), change, |_| ());
        self.entries.fetch_sub(gone, Ordering::Relaxed);
    }

    fn count_stripes(&self) -> u64 {
        self.lines.homes().div_ceil(lines::REGION)
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        self.scan_region(stripe, found);
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        self.lines.table_bytes() + self.stripes.table_bytes()
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory, const ROBIN_HOOD: bool> fmt::Debug for Line8<M, ROBIN_HOOD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(if ROBIN_HOOD { "Line8, Robin Hood" } else { "Line8, linear" })
            .field("entries", &self.count_entries())
            .field("statistics", &self.statistics())
            .field("bytes", &self.table_bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests;
