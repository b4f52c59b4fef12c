//! A region as the engine sees it: a stretch of one address space whose pages come from one place.
//!
//! ```text
//!    start            va                 end
//!      +---------------+------------------+
//!      |               |                  |        page of backing = index + (va - start) / 4 KiB
//!      +---------------+------------------+
//!      index                                       of a file: its page; anonymous: a number that the
//!                                                  region keeps when it moves
//! ```
//!
//! vellum-space keeps more of each (what merges with what, limits, advice); the engine needs this.

use core::ops::BitOr;
use vellum_cache::FileId;
use vellum_core::{Attr, PAGE_SHIFT, PAGE_SIZE, VirtAddr};

/// What a program may do with a region: any of read, write and execute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Nothing (`PROT_NONE`).
    pub const NONE: Self = Self(0);
    /// Loads.
    pub const READ: Self = Self(1);
    /// Stores.
    pub const WRITE: Self = Self(2);
    /// Instruction fetches.
    pub const EXEC: Self = Self(4);
    /// Loads and stores.
    pub const RW: Self = Self(3);
    /// All three.
    pub const ALL: Self = Self(7);

    /// The rights with these bits: 1 read, 2 write, 4 execute; others are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// The bits, as in [`from_bits`](Self::from_bits), which are those of `PROT_*`.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self` without the rights of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// A leaf's attributes for user mode. No table of a common processor denies loads where it allows
    /// stores or (without protection keys) fetches, so any right brings them along.
    #[must_use]
    pub fn attr(self) -> Attr {
        if self == Self::NONE {
            return Attr::USER;
        }
        let mut attr = Attr::USER | Attr::READ;
        if self.contains(Self::WRITE) {
            attr |= Attr::WRITE;
        }
        if self.contains(Self::EXEC) {
            attr |= Attr::EXEC;
        }
        attr
    }
}

impl BitOr for Rights {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

impl Access {
    /// What a leaf must grant for it.
    #[must_use]
    pub const fn attr(self) -> Attr {
        match self {
            Self::Read => Attr::READ,
            Self::Write => Attr::WRITE,
            Self::Execute => Attr::EXEC,
        }
    }

    /// Whether a region with these rights allows it, on a processor on which any right brings loads
    /// along (see [`Rights::attr`]).
    #[must_use]
    pub fn is_allowed_by(self, rights: Rights) -> bool {
        rights.attr().contains(self.attr())
    }
}

/// Where the pages of a region come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Zeros at first; private to the region's family.
    Anon,
    /// A file, through the page cache. Shared anonymous memory is a file that has no name.
    File(FileId),
    /// The embedder: every fault goes to it, with this number of its own.
    Hook(u64),
}

/// Whether stores reach what the region is backed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They stay in this space: copy-on-write.
    Private,
    /// All mappings of the same backing see them.
    Shared,
}

/// What the engine has to know of a region to resolve a fault in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first address.
    pub start: VirtAddr,
    /// Its length in bytes, a multiple of 4 KiB.
    pub len: u64,
    /// What programs may do in it.
    pub rights: Rights,
    /// Where its pages come from.
    pub backing: Backing,
    /// Who sees stores; an anonymous region is private, whatever this says (for a shared one, see
    /// [`Backing::File`]).
    pub sharing: Sharing,
    /// The page of the backing that `start` shows.
    pub index: u64,
    /// Whose its anonymous pages are: those of a private region that have been written to.
    pub family: u64,
    /// Whether 2 MiB of zeros at once are wanted where they fit.
    pub huge: bool,
    /// How many pages around a file's page are mapped with it, a power of two up to 16; 1 for none but itself.
    pub around: u64,
}

impl Region {
    /// Whether stores stay in this space: always where nothing but zeros is behind the region.
    #[must_use]
    pub(crate) fn is_private(&self) -> bool {
        self.sharing == Sharing::Private || self.backing == Backing::Anon
    }

    /// The page of the backing that the page at `va` shows; `va` lies in the region.
    #[must_use]
    pub const fn index_of(&self, va: VirtAddr) -> u64 {
        let offset = va.as_u64().wrapping_sub(self.start.as_u64()) >> PAGE_SHIFT;
        self.index.wrapping_add(offset)
    }

    /// Whether all of `[va, va + len)` lies in it.
    #[must_use]
    pub const fn covers(&self, va: VirtAddr, len: u64) -> bool {
        let offset = va.as_u64().wrapping_sub(self.start.as_u64());
        offset < self.len && len <= self.len - offset
    }

    /// The aligned block of `size` bytes around `va`, if all of it lies in the region.
    #[must_use]
    pub(crate) fn block(&self, va: VirtAddr, size: u8) -> Option<VirtAddr> {
        let block = va.align_down(size);
        self.covers(block, PAGE_SIZE << (size - PAGE_SHIFT)).then_some(block)
    }
}
