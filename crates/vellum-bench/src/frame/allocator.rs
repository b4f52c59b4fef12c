//! What a row needs of an allocator, and the list of those that take part.
//!
//! ```text
//!   Allocator   all of an allocator: frames 0..n, metadata, modes
//!      |  local(&mut self)       the way one thread uses it that has it to itself
//!      v
//!   Frames      alloc(order), free(block, order)
//!      ^
//!      |  on(&self, cpu)         the way each of several CPUs uses it
//!   Shared      an allocator that CPUs share
//! ```
//!
//! Rows are generic over these traits, so that every allocator's code is inlined as far as the
//! compiler cares to. A block is whatever the allocator itself calls one (a frame number, an
//! address, a range): nobody pays for a conversion.

use super::ours::{Cached, Exclusive, Uncached};
use super::peers::{
    Bitmap, BuddySlab, BuddySystem, DEFAULT_MAGAZINE, Depot, FreeRanges, LARGE_MAGAZINE, Locked,
    LockedBuddySystem, SummaryBuddy,
};
use bitmap_allocator::{BitAlloc1M, BitAlloc16M, BitAlloc256M};

/// Bytes of a frame, as a power of two.
pub const FRAME_SHIFT: u32 = 12;

/// The order of a 2 MiB block.
pub const HUGE: u8 = 9;

/// Frames of a 2 MiB block.
pub const HUGE_FRAMES: u64 = 1 << HUGE;

/// With whom an allocator is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// One thread has it to itself: no lock, no atomic operation.
    Exclusive,
    /// Several CPUs use it at once.
    Shared,
}

/// Frames as one thread takes them and gives them back.
pub trait Frames {
    /// A block, in the allocator's own terms.
    type Block: Copy + Send + 'static;

    /// Takes an aligned block of 2<sup>`order`</sup> frames; `None` when none is found.
    fn alloc(&mut self, order: u8) -> Option<Self::Block>;

    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// The block came from `alloc` of the same allocator with the same order, and was not given
    /// back since.
    unsafe fn free(&mut self, block: Self::Block, order: u8);

    /// Takes as many frames as `into` has room for; the number taken.
    fn alloc_batch(&mut self, into: &mut Vec<Self::Block>, count: usize) {
        for _ in 0..count {
            if let Some(block) = self.alloc(0) {
                into.push(block);
            }
        }
    }

    /// Gives frames back, and empties the list.
    ///
    /// # Safety
    ///
    /// As for `free`, of each block.
    unsafe fn free_batch(&mut self, blocks: &mut Vec<Self::Block>) {
        for block in blocks.drain(..) {
            // SAFETY: the caller's.
            unsafe { self.free(block, 0) };
        }
    }

    /// Gives back what this thread's cache holds, as a kernel does before it says that it is out
    /// of huge pages.
    fn flush(&mut self) {}
}

/// An allocator of frames 0 to n, all of them free at first.
pub trait Allocator: Sized + 'static {
    /// As the tables call it.
    const NAME: &'static str;
    /// With whom it is compared.
    const SIDE: Side;
    /// Columns, or rows, that it would take minutes or more for.
    const TOO_SLOW_FOR: &'static [&'static str] = &[];
    /// The name of the one that puts blocks into the same places: that which a lock was added to.
    const PLACES_LIKE: &'static str = Self::NAME;
    /// A block, in the allocator's own terms.
    type Block: Copy + Send + 'static;
    /// The way one thread uses it.
    type Local<'a>: Frames<Block = Self::Block>;

    /// One of so many frames. No byte of them exists, only metadata does.
    fn new(frames: u64) -> Self;

    /// Starts once more over the same metadata, with all frames free; for measuring how long that
    /// takes. What can be had zeroed for nothing (`.bss`) is zeroed before, by [`blank`](Self::blank).
    fn again(&mut self);

    /// Makes ready for [`again`](Self::again).
    fn blank(&mut self) {}

    /// The way a thread uses it that has it to itself.
    fn local(&mut self) -> Self::Local<'_>;

    /// What turns a block into the number of its first frame.
    fn numbering(&self) -> Box<dyn Fn(Self::Block) -> u64>;

    /// Bits of metadata for each of so many frames.
    fn bits_per_frame(frames: u64) -> f64;
}

/// An allocator that CPUs share.
pub trait Shared: Allocator + Sync {
    /// The way one of the CPUs uses it.
    type OnCpu<'a>: Frames<Block = Self::Block>;

    /// The way CPU number `cpu`, which is the calling thread, uses it. No two threads at a time
    /// may call it with one number.
    fn on(&self, cpu: usize) -> Self::OnCpu<'_>;
}

/// How many numbers [`Shared::on`] takes: CPUs 0 and 1.
pub const CPUS: usize = 2;

/// Something done with each allocator.
pub trait Visit {
    /// Does it with one.
    fn visit<A: Allocator>(&mut self);
}

/// Something done with each allocator that CPUs share.
pub trait VisitShared {
    /// Does it with one.
    fn visit<A: Shared>(&mut self);
}

/// How much memory is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 2<sup>20</sup> frames.
    Gib4,
    /// 2<sup>24</sup> frames.
    Gib64,
    /// 2<sup>28</sup> frames.
    Tib1,
}

impl Size {
    /// How many frames.
    #[must_use]
    pub const fn frames(self) -> u64 {
        match self {
            Self::Gib4 => 1 << 20,
            Self::Gib64 => 1 << 24,
            Self::Tib1 => 1 << 28,
        }
    }

    /// As in a row's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gib4 => "4 GiB",
            Self::Gib64 => "64 GiB",
            Self::Tib1 => "1 TiB",
        }
    }
}

/// Each allocator for 4 GiB.
pub fn all(visit: &mut impl Visit) {
    exclusive::<BitAlloc1M>(visit);
    visit.visit::<Cached>();
    visit.visit::<Uncached>();
    visit.visit::<LockedBuddySystem>();
    visit.visit::<Locked<Bitmap<BitAlloc1M>>>();
    visit.visit::<Locked<BuddySlab>>();
    visit.visit::<SummaryBuddy>();
    visit.visit::<Depot<DEFAULT_MAGAZINE>>();
    visit.visit::<Depot<LARGE_MAGAZINE>>();
}

/// Each allocator that CPUs share, for 4 GiB.
pub fn shared(visit: &mut impl VisitShared) {
    visit.visit::<Cached>();
    visit.visit::<Uncached>();
    visit.visit::<LockedBuddySystem>();
    visit.visit::<Locked<Bitmap<BitAlloc1M>>>();
    visit.visit::<Locked<BuddySlab>>();
    visit.visit::<SummaryBuddy>();
    visit.visit::<Depot<DEFAULT_MAGAZINE>>();
    visit.visit::<Depot<LARGE_MAGAZINE>>();
}

/// Each design once, for memory of any size. A lock around one changes nothing in how it scales.
pub fn designs(size: Size, visit: &mut impl Visit) {
    match size {
        Size::Gib4 => exclusive::<BitAlloc1M>(visit),
        Size::Gib64 => exclusive::<BitAlloc16M>(visit),
        Size::Tib1 => exclusive::<BitAlloc256M>(visit),
    }
    visit.visit::<Cached>();
    visit.visit::<Uncached>();
    visit.visit::<SummaryBuddy>();
    visit.visit::<Depot<DEFAULT_MAGAZINE>>();
}

/// Those that one thread has to itself, with the bitmap that is large enough.
fn exclusive<T: bitmap_allocator::BitAlloc + Send + 'static>(visit: &mut impl Visit) {
    visit.visit::<Exclusive>();
    visit.visit::<BuddySystem>();
    visit.visit::<Bitmap<T>>();
    visit.visit::<BuddySlab>();
    visit.visit::<FreeRanges>();
}
