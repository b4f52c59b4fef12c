//! Simulated physical memory: table frames with real bytes behind them, data frames without.
//!
//! ```text
//!   1 GiB                                                   next 1 GiB boundary
//!     v                                                       v
//!     +--------------------------------------------+ . . . . +-----------------------+
//!     | table frames: one lazily zeroed allocation |         | data frames: numbers  |
//!     +--------------------------------------------+ . . . . +-----------------------+
//!       FrameAllocator, metered (TableRam)                     FrameAllocator, not metered
//! ```
//!
//! Tables are read and written, so their frames are host memory; the host gives it page by page on
//! first touch, so that the region may be large. How large depends on the traces alone: a host that
//! refuses it is [told apart](RamError) from tables that do not fit it. A program's data is never looked at, so its
//! frames are addresses alone. There are as many of them as the traces touch pages, rounded up to
//! 4 MiB: memory is as large as the programs need, which is what a table with an entry for each
//! frame is sized by.
//!
//! # Invariants
//!
//! - Every pointer handed out is derived from the one allocation and lies in it, or is dangling
//!   (for an address that is no table frame).
//! - Between `record` and `recorded`, `with` tells the recorder of every frame before its pointer is used,
//!   and `alloc` of every block before anybody has it.
//! - `now` is the bytes of all blocks handed out and not given back; `peak` its largest value.

use crate::table::size;
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::alloc::{alloc_zeroed, dealloc};
use vellum_core::{
    FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysMap, order_bytes,
};
use vellum_frame::{FrameAllocator, FreeError, InitError, PhysRange};

mod recorder;

pub use recorder::Changes;

use recorder::Recorder;

/// Where table frames begin; aligned to the largest block that the allocator deals in.
const TABLES: u64 = 1 << 30;

/// Bytes of table frames to begin with, whatever the trace.
const SPARE: u64 = 64 << 20;

/// Bytes of table frames for each page: the tables of five levels, for that page alone.
const PER_PAGE: u64 = 5 * PAGE_SIZE;

/// The most: tables of a few sparse traces at once must not take the host's last memory.
const MOST: u64 = 8 << 30;

/// log2 of the bytes of the larger leaf that data has blocks for.
pub const HUGE_SHIFT: u8 = 21;

/// Data frames come in whole blocks of this many bytes.
const DATA_BLOCK: u64 = 4 << 20;

/// Simulated memory cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RamError {
    /// The host refuses so many bytes of address space.
    Host {
        /// How many.
        bytes: u64,
    },
    /// The frame allocator does not take a region of so many bytes.
    Frames {
        /// How many.
        bytes: u64,
        /// Why.
        error: InitError,
    },
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { bytes } => {
                write!(f, "the host refuses {} of memory to simulate in", size(*bytes))
            }
            Self::Frames { bytes, error } => {
                write!(f, "{} of simulated memory: {error}", size(*bytes))
            }
        }
    }
}

impl core::error::Error for RamError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Host { .. } => None,
            Self::Frames { error, .. } => Some(error),
        }
    }
}

/// The host's memory behind the table frames.
///
/// The allocation has the alignment of any other, and one page to spare for aligning within it:
/// the standard allocator zeroes what is aligned more strictly by writing to all of it.
///
/// # Invariants
///
/// - `base` is aligned to a page, and `bytes`, whole pages, from there lie in the allocation.
struct Host {
    allocation: NonNull<u8>,
    layout: Layout,
    base: NonNull<u8>,
    bytes: usize,
}

impl Host {
    /// Exactly `bytes`, which must be whole pages.
    fn new(bytes: u64) -> Result<Self, RamError> {
        const PAGE: usize = PAGE_SIZE as usize;
        let refused = RamError::Host { bytes };
        let whole = usize::try_from(bytes).ok().filter(|n| n.is_multiple_of(PAGE));
        let bytes = whole.ok_or(refused)?;
        let with_spare = bytes.checked_add(PAGE).ok_or(refused)?;
        let layout = Layout::from_size_align(with_spare, align_of::<u64>()).map_err(|_| refused)?;
        // SAFETY: the size is at least the spare page, so it is not 0.
        #[allow(unsafe_code, reason = "simulated RAM is one large zeroed allocation")]
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(refused)?;
        let to_page = allocation.addr().get().wrapping_neg() % PAGE;
        // SAFETY: the allocation is `bytes` and a page, and `to_page` is less than a page, so
        // `bytes` from the sum are still within it.
        #[allow(unsafe_code, reason = "aligns within the allocation")]
        let base = unsafe { allocation.add(to_page) };
        Ok(Self { allocation, layout, base, bytes })
    }

    const fn len_bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: it came from `alloc_zeroed` with this layout, and is given back once.
        #[allow(unsafe_code, reason = "gives back what `new` allocated")]
        unsafe {
            dealloc(self.allocation.as_ptr(), self.layout);
        }
    }
}

/// What table allocations have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Bytes in use.
    pub now: u64,
    /// The most that ever were.
    pub peak: u64,
    /// The largest single block that was ever in use.
    pub largest: u64,
}

/// The frames of page tables; `&TableRam` is the [`Memory`] that tables store.
pub struct TableRam<'m> {
    host: Host,
    frames: FrameAllocator<'m>,
    meter: Cell<Meter>,
    recorder: Recorder,
}

impl TableRam<'_> {
    /// What table allocations have come to.
    pub const fn meter(&self) -> Meter {
        self.meter.get()
    }

    /// Begins to record what is done to table memory; what was recorded before is dropped.
    pub fn record(&self) {
        self.recorder.start();
    }

    /// Ends the recording, and tells what was done since [`record`](Self::record).
    pub fn recorded(&self) -> Changes {
        self.recorder.finish(self.host.base)
    }
}

// SAFETY: an address of the region gives a pointer as far behind `base` as the address is behind
// `TABLES`, always the same. Both are multiples of a page, so the pointer is aligned as the address
// is; `bytes` are whole pages within the allocation, so it is good to the end of its frame; and it is
// derived from the allocation's own. The allocation lives as long as `self`, is zeroed and is read
// and written through here only. Any other address gives a dangling pointer, which it is not
// undefined behaviour to have.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl PhysMap for TableRam<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        let offset = pa.as_u64().wrapping_sub(TABLES);
        if offset >= self.host.len_bytes() {
            return f(NonNull::dangling());
        }
        if self.recorder.is_on() {
            self.recorder.reached(self.host.base, offset);
        }
        // SAFETY: `offset` is less than the bytes from `base` that are ours, which fit `isize`.
        f(unsafe { self.host.base.add(offset as usize) })
    }
}

// SAFETY: the allocator was given, by `with_ram`, the `len_bytes` from `TABLES` and nothing else, which
// is what `with` reaches: the host's memory has that size or there is no `TableRam`. A copy of the
// reference is the same memory, and equality is identity, which no two objects of a size share.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Memory for &TableRam<'_> {}

// SAFETY: forwards to `FrameAllocator`, which keeps the contract.
#[allow(unsafe_code, reason = "implements an unsafe trait by forwarding")]
unsafe impl FrameSource for TableRam<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let pa = self.frames.alloc(order)?;
        let mut meter = self.meter.get();
        meter.now += order_bytes(order);
        meter.peak = meter.peak.max(meter.now);
        meter.largest = meter.largest.max(order_bytes(order));
        self.meter.set(meter);
        if self.recorder.is_on() {
            let offset = pa.as_u64().wrapping_sub(TABLES);
            self.recorder.taken(self.host.base, offset, 1 << order);
        }
        Ok(pa)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        let mut meter = self.meter.get();
        meter.now = meter.now.saturating_sub(order_bytes(order));
        self.meter.set(meter);
        self.recorder.given(1 << order);
        // SAFETY: the caller keeps the contract of this same function of the allocator, from which
        // the block came.
        unsafe { FrameSource::free(&self.frames, pa, order) }
    }
}

/// Two handles are the same memory exactly if they are the same object.
impl<'other> PartialEq<TableRam<'other>> for TableRam<'_> {
    fn eq(&self, other: &TableRam<'other>) -> bool {
        core::ptr::addr_eq(self, other)
    }
}

impl fmt::Debug for TableRam<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableRam")
            .field("len_bytes", &self.host.len_bytes())
            .field("meter", &self.meter.get())
            .finish_non_exhaustive()
    }
}

/// The frames of the programs' data.
#[derive(Debug)]
pub struct DataFrames<'m> {
    frames: FrameAllocator<'m>,
    first: PhysAddr,
    count: u64,
}

impl DataFrames<'_> {
    /// Takes one frame.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]: more pages were touched than the memory was made for.
    pub fn alloc(&self) -> Result<PhysAddr, OutOfFrames> {
        self.frames.alloc(0)
    }

    /// Takes a block of 2 MiB, aligned to that.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc).
    pub fn alloc_huge(&self) -> Result<PhysAddr, OutOfFrames> {
        self.frames.alloc(HUGE_SHIFT - PAGE_SHIFT)
    }

    /// Takes as many frames as there is room for in `frames`, or as there are: how many.
    pub fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        self.frames.alloc_bulk(frames)
    }

    /// Gives frames back.
    ///
    /// # Errors
    ///
    /// The index of the first that was not taken, and its [`FreeError`].
    pub fn free_bulk(&self, frames: &[PhysAddr]) -> Result<(), (usize, FreeError)> {
        // SAFETY: no memory is behind these frames, so nothing can reach their bytes.
        #[allow(unsafe_code, reason = "gives back addresses without memory behind them")]
        unsafe {
            self.frames.free_bulk(frames)
        }
    }

    /// The first frame's address.
    #[must_use]
    pub const fn first(&self) -> PhysAddr {
        self.first
    }

    /// How many frames there are: all of the simulated memory that is not for tables.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}

/// Calls `f` with memory for programs of `pages` pages in all, and `frames` of data.
///
/// # Errors
///
/// [`RamError`], mostly because the host has no memory for the table frames. The size asked for is
/// [`table_bytes_for`] the pages, whatever the host has.
pub fn with_ram<R>(
    pages: u64,
    frames: u64,
    f: impl FnOnce(&TableRam<'_>, &DataFrames<'_>) -> R,
) -> Result<R, RamError> {
    let host = Host::new(table_bytes_for(pages))?;
    let tables = PhysRange::with_len(TABLES, host.len_bytes());
    let failed = |error| RamError::Frames { bytes: host.len_bytes(), error };
    let table_words = words_for(tables)?;
    let table_frames = FrameAllocator::new();
    // SAFETY: `host` is the memory of these frames and is reached through them only; `table_words`
    // is this allocator's alone.
    #[allow(unsafe_code, reason = "vouches for simulated memory")]
    unsafe { table_frames.init_in(&table_words, [tables], NOTHING) }.map_err(failed)?;

    let ram = TableRam {
        host,
        frames: table_frames,
        meter: Cell::default(),
        recorder: Recorder::default(),
    };
    let data_bytes = (frames << PAGE_SHIFT).next_multiple_of(DATA_BLOCK).max(DATA_BLOCK);
    let first = (TABLES + ram.host.len_bytes()).next_multiple_of(1 << 30);
    with_data(first, data_bytes, |data| f(&ram, data))
}

/// Calls `f` with `count` frames that have no memory behind them.
///
/// # Errors
///
/// [`RamError`]: the host has no memory to keep account of them, or there are none.
pub fn with_frames<R>(count: u64, f: impl FnOnce(&DataFrames<'_>) -> R) -> Result<R, RamError> {
    with_data(TABLES, count.saturating_mul(PAGE_SIZE), f)
}

fn with_data<R>(
    first: u64,
    bytes: u64,
    f: impl FnOnce(&DataFrames<'_>) -> R,
) -> Result<R, RamError> {
    let range = PhysRange::with_len(first, bytes);
    let failed = |error| RamError::Frames { bytes, error };
    let words = words_for(range)?;
    let frames = FrameAllocator::new();
    // SAFETY: no memory is behind these frames, and `words` is this allocator's alone.
    #[allow(unsafe_code, reason = "vouches for simulated memory")]
    unsafe { frames.init_in(&words, [range], NOTHING) }.map_err(failed)?;
    Ok(f(&DataFrames { frames, first: PhysAddr::new(first), count: bytes >> PAGE_SHIFT }))
}

/// Bytes of table frames for programs of `pages` pages in all.
#[must_use]
pub fn table_bytes_for(pages: u64) -> u64 {
    let wanted = pages.saturating_mul(PER_PAGE).saturating_add(SPARE).min(MOST);
    wanted.next_multiple_of(DATA_BLOCK)
}

const NOTHING: [PhysRange; 0] = [];

/// Words for the allocator of this range.
fn words_for(range: PhysRange) -> Result<Vec<AtomicU64>, RamError> {
    let count = FrameAllocator::words_needed([range], NOTHING);
    let refused = RamError::Host { bytes: count.saturating_mul(size_of::<AtomicU64>() as u64) };
    let count = usize::try_from(count).map_err(|_| refused)?;
    let mut words = Vec::new();
    words.try_reserve_exact(count).map_err(|_| refused)?;
    words.resize_with(count, AtomicU64::default);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_metered_and_hold_bytes() {
        with_ram(10, 10, |ram, _| {
            let a = ram.alloc(0).unwrap();
            let b = ram.alloc(11).unwrap();
            assert!(b.is_aligned(12 + 11));
            assert_eq!(ram.meter(), Meter { now: 0x80_1000, peak: 0x80_1000, largest: 0x80_0000 });
            for (pa, value) in [(a, 3), (b.wrapping_add(0x7f_fff8), 4)] {
                // SAFETY: eight aligned bytes of a frame that was allocated above.
                #[allow(unsafe_code, reason = "the test writes to simulated RAM")]
                let old = ram.with(pa, |p| unsafe { p.cast::<u64>().replace(value) });
                assert_eq!(old, 0, "fresh memory is zero");
            }
            // SAFETY: as above; the frame is still allocated.
            #[allow(unsafe_code, reason = "the test reads simulated RAM")]
            let read = ram.with(a, |p| unsafe { p.cast::<u64>().read() });
            assert_eq!(read, 3);
            // SAFETY: allocated above with this order, used by nobody any more.
            #[allow(unsafe_code, reason = "the test gives its block back")]
            unsafe {
                FrameSource::free(&ram, b, 11);
            }
            assert_eq!(ram.meter(), Meter { now: 0x1000, peak: 0x80_1000, largest: 0x80_0000 });
        })
        .unwrap();
    }

    #[test]
    fn every_page_gets_a_frame_of_its_own_apart_from_tables() {
        with_ram(1500, 1500, |ram, data| {
            assert_eq!(data.count(), 2048);
            let mut frames: Vec<PhysAddr> = (0..2048).map(|_| data.alloc().unwrap()).collect();
            frames.sort_unstable();
            frames.dedup();
            assert_eq!(frames.len(), 2048);
            assert_eq!(frames[0], data.first());
            assert!(data.alloc().is_err());
            assert!(ram.alloc(0).unwrap() < data.first());
            assert_eq!(ram.meter().now, 0x1000, "data frames are not metered");
        })
        .unwrap();
    }

    #[test]
    fn memory_is_of_the_size_for_its_pages_or_refused() {
        for pages in [0, 1, 1500] {
            let bytes = with_ram(pages, pages, |ram, _| ram.host.len_bytes());
            assert_eq!(bytes, Ok(table_bytes_for(pages)));
        }
        for bytes in [!(PAGE_SIZE - 1), PAGE_SIZE + 1] {
            assert_eq!(Host::new(bytes).err(), Some(RamError::Host { bytes }));
        }
        let text = RamError::Host { bytes: 8 << 30 }.to_string();
        assert_eq!(text, "the host refuses 8 GiB of memory to simulate in");
    }

    #[test]
    fn two_memories_are_not_equal() {
        with_ram(1, 1, |a, _| {
            with_ram(1, 1, |b, _| {
                assert!(a == a);
                assert!(a != b);
            })
            .unwrap();
        })
        .unwrap();
    }

    /// It once was not: what is aligned to a page is zeroed by hand.
    #[cfg(target_os = "linux")]
    #[cfg(not(miri))]
    #[test]
    fn memory_that_nobody_touches_costs_nothing() {
        let resident_bytes = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE_SIZE
        };
        let before = resident_bytes();
        with_ram(1 << 20, 1 << 20, |ram, _| {
            ram.alloc(0).unwrap();
            // Other tests run meanwhile, and take some.
            assert!(resident_bytes() - before.min(resident_bytes()) < ram.host.len_bytes() / 4);
        })
        .unwrap();
    }
}
