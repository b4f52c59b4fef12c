//! What a region is: flags, backing, and to whom its anonymous pages belong.
//!
//! ```text
//!  31..27 26  25  24  23  22  21  20  19  18  17  16  15  14  13  12  11  10  9   8   7..4   3   2..0
//! +------+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+-------+---+-----+
//! |  0   |gu |sf |sp |mg |nh |hg |dp |sl |dd |wf |nr |ac |de |dc |rr |sr |lf |lo |gd |s x w r| S |X W R|
//! +------+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+---+-------+---+-----+
//!    two letters as in `smaps`, where it has them       what may ever be allowed --'     `- shared
//! ```
//!
//! Two regions side by side become one if they differ in nothing: equal flags and backing, pages that
//! follow each other, and anonymous pages that are the same family's, or nobody's yet. Whether there are
//! guard pages does not keep them apart: both have had some then.
//!
//! Source: Linux, mm/vma.c (`is_mergeable_vma`, `is_mergeable_anon_vma`), Documentation/filesystems/
//! proc.rst (VmFlags).

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign, Not};
use vellum_cache::Files;
use vellum_core::{PAGE_SHIFT, VirtAddr};
use vellum_fault::{Backing, Region, Rights, Sharing};

/// What holds of a region.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VmFlags(u32);

impl VmFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Loads.
    pub const READ: Self = Self(1);
    /// Stores.
    pub const WRITE: Self = Self(1 << 1);
    /// Fetches.
    pub const EXEC: Self = Self(1 << 2);
    /// All three.
    pub const ACCESS: Self = Self(7);
    /// Stores reach the backing.
    pub const SHARED: Self = Self(1 << 3);
    /// Loads may be allowed.
    pub const MAYREAD: Self = Self(1 << 4);
    /// Stores may be allowed.
    pub const MAYWRITE: Self = Self(1 << 5);
    /// Fetches may be allowed.
    pub const MAYEXEC: Self = Self(1 << 6);
    /// It was mapped as shared, though a file that is not open for writing makes it private.
    pub const MAYSHARE: Self = Self(1 << 7);
    /// A stack.
    pub const GROWSDOWN: Self = Self(1 << 8);
    /// Its pages stay.
    pub const LOCKED: Self = Self(1 << 9);
    /// They do, once they are there.
    pub const LOCKONFAULT: Self = Self(1 << 10);
    /// Read in order.
    pub const SEQ_READ: Self = Self(1 << 11);
    /// Read in no order.
    pub const RAND_READ: Self = Self(1 << 12);
    /// Not for children.
    pub const DONTCOPY: Self = Self(1 << 13);
    /// May not grow.
    pub const DONTEXPAND: Self = Self(1 << 14);
    /// Counted as memory that must be there.
    pub const ACCOUNT: Self = Self(1 << 15);
    /// Not counted.
    pub const NORESERVE: Self = Self(1 << 16);
    /// Children get zeros.
    pub const WIPEONFORK: Self = Self(1 << 17);
    /// Not in a core dump.
    pub const DONTDUMP: Self = Self(1 << 18);
    /// May not be changed.
    pub const SEALED: Self = Self(1 << 19);
    /// May be dropped.
    pub const DROPPABLE: Self = Self(1 << 20);
    /// Large pages are welcome.
    pub const HUGEPAGE: Self = Self(1 << 21);
    /// They are not.
    pub const NOHUGEPAGE: Self = Self(1 << 22);
    /// It is of interest to KSM.
    pub const MERGEABLE: Self = Self(1 << 23);
    /// Nobody but the kernel changes it: vvar, vdso, the embedder's.
    pub const SPECIAL: Self = Self(1 << 24);
    /// It was mapped with `MAP_SYNC`, which means nothing without persistent memory.
    pub const SYNC: Self = Self(1 << 25);
    /// It has had guard pages, or what became one with it has.
    pub const MAYBE_GUARD: Self = Self(1 << 26);
    /// What may ever be allowed.
    pub const MAY: Self = Self(0b111 << 4);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` holds.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` holds.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags of `PROT_*`'s three rights.
    #[must_use]
    pub const fn of_prot(prot: u64) -> Self {
        Self(prot.to_le_bytes()[0] as u32 & Self::ACCESS.0)
    }

    /// What programs may do.
    #[must_use]
    pub const fn rights(self) -> Rights {
        Rights::from_bits(self.0.to_le_bytes()[0])
    }

    /// The rights that these flags say may be allowed, where those of `READ`... are.
    #[must_use]
    pub const fn may(self) -> Self {
        Self(self.0 >> 4 & Self::ACCESS.0)
    }

    /// `self` without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `self` with `other` or without it.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }
}

impl BitOr for VmFlags {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl BitOrAssign for VmFlags {
    fn bitor_assign(&mut self, rhs: Self) {
        self.0 |= rhs.0;
    }
}

impl BitAnd for VmFlags {
    type Output = Self;
    fn bitand(self, rhs: Self) -> Self {
        Self(self.0 & rhs.0)
    }
}

impl Not for VmFlags {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl fmt::Debug for VmFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmFlags({:#x})", self.0)
    }
}

/// Whose a region's anonymous pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anon {
    /// Regions with the same number may become one.
    pub id: u64,
    /// What their pages' records say, in all spaces that stem from one by forks.
    pub family: u64,
    /// It came from a parent: such a region takes in no pages but its own.
    pub is_inherited: bool,
}

/// A region, but for where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// What holds of it.
    pub flags: VmFlags,
    /// Where its pages come from.
    pub backing: Backing,
    /// By which descriptor a file was mapped; 0 without one.
    pub descriptor: u64,
    /// The page of the backing that it begins with; of anonymous memory, the number of its first page
    /// when it was new.
    pub index: u64,
    /// Whose its anonymous pages are; `None` before the first.
    pub anon: Option<Anon>,
}

impl Vma {
    /// Who sees stores.
    #[must_use]
    pub const fn sharing(&self) -> Sharing {
        Self::sharing_of(self.flags)
    }

    /// Who sees stores to a region with these flags.
    #[must_use]
    pub const fn sharing_of(flags: VmFlags) -> Sharing {
        if flags.contains(VmFlags::SHARED) { Sharing::Shared } else { Sharing::Private }
    }

    /// Whether its pages are private and come from nowhere.
    #[must_use]
    pub const fn is_anon(&self) -> bool {
        matches!(self.backing, Backing::Anon)
    }

    /// Whether there may be guard pages in it.
    pub(crate) const fn has_had_guards(&self) -> bool {
        self.flags.contains(VmFlags::MAYBE_GUARD)
    }

    /// What it is from `pages` pages on.
    #[must_use]
    pub const fn skip(&self, pages: u64) -> Self {
        Self { index: self.index.wrapping_add(pages), ..*self }
    }

    /// What the engine has to know of it, where it is `[start, end)`.
    #[must_use]
    pub fn region(&self, start: u64, end: u64, around: u64) -> Region {
        Region {
            start: VirtAddr::new(start),
            len: end.wrapping_sub(start),
            rights: self.flags.rights(),
            backing: self.backing,
            sharing: self.sharing(),
            index: self.index,
            family: self.anon.map_or(0, |anon| anon.family),
            huge: self.flags.contains(VmFlags::HUGEPAGE) && self.is_anon(),
            around,
        }
    }

    /// Whether its faults go to the embedder.
    pub(crate) const fn is_hook(&self) -> bool {
        matches!(self.backing, Backing::Hook(_))
    }

    /// How many bytes in front of it stay free for it to grow into.
    #[must_use]
    pub const fn guard(&self, gap: u64) -> u64 {
        if self.flags.contains(VmFlags::GROWSDOWN) { gap } else { 0 }
    }

    /// Whether it would go on with `next`, which begins `pages` pages behind its start, but for whose
    /// anonymous pages they have.
    #[must_use]
    pub fn continues_with(&self, pages: u64, next: &Self) -> bool {
        let either = VmFlags::MAYBE_GUARD;
        self.flags | either == next.flags | either
            && !self.flags.contains(VmFlags::SPECIAL)
            && self.backing == next.backing
            && self.descriptor == next.descriptor
            && self.index.wrapping_add(pages) == next.index
    }

    /// Whether a region with `own` pages may take in one with `added` ones.
    #[must_use]
    pub fn may_join(own: Option<Anon>, added: Option<Anon>) -> bool {
        match (own, added) {
            (None, Some(one)) | (Some(one), None) => !one.is_inherited,
            (own, added) => own.map(|anon| anon.id) == added.map(|anon| anon.id),
        }
    }

    /// Tells `files` that a region more or fewer shows its file, if it has one.
    pub(crate) fn note_file(&self, files: &impl Files, more: bool) {
        if let Backing::File(file) = self.backing {
            if more { files.mapped(file) } else { files.unmapped(file) }
        }
    }

    /// Whether it counts towards `RLIMIT_DATA`.
    #[must_use]
    pub const fn is_data(flags: VmFlags) -> bool {
        flags.contains(VmFlags::WRITE) && !flags.intersects(VmFlags::SHARED.and(VmFlags::GROWSDOWN))
    }

    /// Whether it has to be counted as memory that must be there.
    #[must_use]
    pub const fn is_accountable(flags: VmFlags) -> bool {
        let never = VmFlags::SHARED.and(VmFlags::NORESERVE).and(VmFlags::SPECIAL);
        flags.contains(VmFlags::WRITE) && !flags.intersects(never)
    }
}

/// Bytes as pages.
pub(crate) const fn pages(bytes: u64) -> u64 {
    bytes >> PAGE_SHIFT
}
