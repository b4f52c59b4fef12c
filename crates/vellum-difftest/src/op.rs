//! The language: operations of one process on an arena of pages and on one file.
//!
//! ```text
//!            0        1        2                       63
//!   arena  | page   | page   | page   |   ...        | page   |   nothing else is near it
//!            base                                              base + 64 pages
//!
//!   file   | 0 ... 7: written | 8 ... 14: a hole, and 1234 bytes of page 15 |  end
//! ```
//!
//! A sequence starts with an empty arena and a fresh file in memory whose first [`WRITTEN_PAGES`]
//! have [`file_byte`] in every byte. Addresses are relative to the arena's base, in bytes, so that
//! a sequence means the same wherever the arena lies; a few are absolute, for the far end of the
//! address space. Arguments may be nonsense, and are often meant to be: what Linux says then is a
//! part of what is compared.
//!
//! [`check`](Op::check) refuses what would reach memory outside of the arena's neighbourhood, for
//! the process that runs a sequence lives in the same address space.
//!
//! [`text`] has the form in which operations are printed and read.

pub mod text;

use crate::abi::{MAP_FIXED, MREMAP_FIXED, PAGE, TASK_SIZE};
use core::fmt;

/// Pages of an arena, unless the sequence says otherwise.
pub const ARENA_PAGES: u32 = 64;
/// Bytes of the file when a sequence begins.
pub const FILE_BYTES: u64 = 15 * PAGE + 1234;
/// Pages of the file, from its start, that are written when a sequence begins.
pub const WRITTEN_PAGES: u64 = 8;
/// How far beyond the arena an operation may reach, in bytes, at either side.
pub const MARGIN: u64 = 64 << 20;
/// The largest length of the file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// What stands at `offset` of a fresh file, as far as it is written: a value for each page.
#[must_use]
pub const fn file_byte(offset: u64) -> u8 {
    // The lowest byte is all that is wanted.
    #[allow(clippy::cast_possible_truncation, reason = "a byte is what is wanted")]
    let page = (offset / PAGE) as u8;
    page.wrapping_mul(29).wrapping_add(65)
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Bytes from the arena's base.
    Arena(i64),
    /// An address as it is.
    Absolute(u64),
}

/// What a mapping is made of. What `mmap` does with it depends on its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// No file: descriptor -1, offset 0.
    Nothing,
    /// The file, through a descriptor that may do this, from this offset in bytes.
    File(Access, u64),
    /// A descriptor that is not open.
    Bad,
}

/// What a descriptor of the file may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `O_RDWR`.
    ReadWrite,
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
}

/// A resource that a process may have only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `RLIMIT_AS`: address space, counted from what the process has when the sequence begins.
    AddressSpace,
    /// `RLIMIT_DATA`: private writable memory, counted from what the process has then.
    Data,
    /// `RLIMIT_MEMLOCK`: locked memory. 32 pages when a sequence begins.
    Locked,
    /// `RLIMIT_STACK`: how large a region that grows down may become.
    Stack,
}

/// The limit of locked memory when a sequence begins, in pages.
pub const LOCKED_PAGES: u64 = 32;

/// One operation. Lengths and offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the arguments have the names of the manual's")]
pub enum Op {
    /// `mmap`.
    Map { at: Place, len: u64, prot: u64, flags: u64, from: Source },
    /// `munmap`.
    Unmap { at: Place, len: u64 },
    /// `mprotect`.
    Protect { at: Place, len: u64, prot: u64 },
    /// `mremap`.
    Remap { at: Place, old_len: u64, new_len: u64, flags: u64, to: Place },
    /// `madvise`.
    Advise { at: Place, len: u64, advice: u64 },
    /// `mlock`.
    Lock { at: Place, len: u64 },
    /// `mlock2`.
    Lock2 { at: Place, len: u64, flags: u64 },
    /// `munlock`.
    Unlock { at: Place, len: u64 },
    /// `mlockall`. Of what there is, it is always refused: whoever runs the sequence has more than may be
    /// locked.
    LockAll { flags: u64 },
    /// `munlockall`.
    UnlockAll,
    /// `msync`.
    Sync { at: Place, len: u64, flags: u64 },
    /// `mincore`.
    InCore { at: Place, len: u64 },
    /// `mseal`.
    Seal { at: Place, len: u64, flags: u64 },
    /// Reads one byte.
    Read { at: Place },
    /// Writes one byte.
    Write { at: Place, value: u8 },
    /// Reads the first byte in each page of a range, as far as that goes.
    Scan { at: Place, len: u64 },
    /// Writes one byte into each page of a range, as far as that goes.
    Fill { at: Place, len: u64, value: u8 },
    /// `ftruncate` of the file.
    Truncate { len: u64 },
    /// `pwrite` to the file, of `len` times the value.
    FileWrite { offset: u64, len: u64, value: u8 },
    /// `pread` from the file: how much came, and what.
    FileRead { offset: u64, len: u64 },
    /// `fork`; what follows happens in the child, and afterwards the parent is looked at.
    Fork,
    /// `fork` of a child that reads and writes a byte in every page of the arena, and ends.
    ForkProbe,
    /// `brk`: to this many bytes above the arena's base. Only where the arena is the heap.
    Break { to: u64 },
    /// `setrlimit`, in pages.
    Limit { what: Resource, pages: u64 },
}

/// What runs: operations, and what they run on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// Pages of the arena.
    pub pages: u32,
    /// Whether the arena lies where the heap grows, and `brk` may be used.
    pub heap: bool,
    /// In this order.
    pub ops: Vec<Op>,
}

impl Sequence {
    /// A sequence over an ordinary arena.
    #[must_use]
    pub const fn new(ops: Vec<Op>) -> Self {
        Self { pages: ARENA_PAGES, heap: false, ops }
    }

    /// Whether it stays within the arena's neighbourhood.
    ///
    /// # Errors
    ///
    /// The first operation that does not, by its position.
    pub fn check(&self) -> Result<(), (usize, Unsafe)> {
        if self.pages == 0 || self.pages > 4096 {
            return Err((0, Unsafe("an arena has 1 to 4096 pages")));
        }
        for (index, op) in self.ops.iter().enumerate() {
            op.check().map_err(|e| (index, e))?;
            if matches!(op, Op::Break { .. }) && !self.heap {
                return Err((index, Unsafe("brk needs `heap` at the top of the sequence")));
            }
        }
        Ok(())
    }
}

/// Why an operation may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsafe(pub &'static str);

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Unsafe {}

impl Place {
    /// Whether nothing but the arena's neighbourhood can be meant, or nothing at all.
    const fn near(self) -> bool {
        match self {
            Self::Arena(bytes) => bytes.unsigned_abs() <= MARGIN,
            // The first page, and what lies beyond all user memory.
            Self::Absolute(address) => address < PAGE || address >= TASK_SIZE - PAGE,
        }
    }

    /// The address, for an arena at `base`.
    #[must_use]
    pub const fn address(self, base: u64) -> u64 {
        match self {
            Self::Arena(bytes) => base.wrapping_add_signed(bytes),
            Self::Absolute(address) => address,
        }
    }
}

/// Lengths that stay near.
const fn short(len: u64) -> bool {
    len <= MARGIN
}

/// Lengths for which start + length passes the end of all addresses, for every start.
const fn wraps(len: u64) -> bool {
    len > u64::MAX - PAGE
}

/// Lengths that are larger than any user memory, and refused for that before anything happens.
const fn vast(len: u64) -> bool {
    len > TASK_SIZE
}

impl Op {
    /// Whether it stays within the arena's neighbourhood.
    ///
    /// # Errors
    ///
    /// What it would reach.
    pub const fn check(&self) -> Result<(), Unsafe> {
        let (near, short) = match *self {
            // These three look at the length before they do anything.
            Self::Map { at, len, flags, .. } => {
                // Without a fixed address the length alone counts: nothing is replaced.
                (at.near() || flags & MAP_FIXED == 0, short(len) || vast(len))
            }
            Self::Unmap { at, len } => (at.near(), short(len) || vast(len)),
            Self::Remap { at, old_len, new_len, flags, to } => (
                at.near() && (to.near() || flags & MREMAP_FIXED == 0),
                // What reaches beyond all user memory is cut off by nobody: `munmap` refuses it.
                (short(old_len) || vast(old_len)) && (short(new_len) || vast(new_len)),
            ),
            Self::Protect { at, len, .. }
            | Self::Advise { at, len, .. }
            | Self::Lock { at, len }
            | Self::Lock2 { at, len, .. }
            | Self::Unlock { at, len }
            | Self::Sync { at, len, .. }
            | Self::Seal { at, len, .. } => (at.near(), short(len) || wraps(len)),
            Self::InCore { at, len } | Self::Scan { at, len } | Self::Fill { at, len, .. } => {
                (at.near(), len <= 4 * ARENA_PAGES as u64 * PAGE)
            }
            Self::Read { at } | Self::Write { at, .. } => (at.near(), true),
            Self::Truncate { len } => (true, len <= MAX_FILE_BYTES),
            Self::FileWrite { offset, len, .. } | Self::FileRead { offset, len } => {
                (true, offset <= MAX_FILE_BYTES / 2 && len <= MAX_FILE_BYTES / 2)
            }
            // What there is would be locked too, if the limit were not far below what a process has.
            Self::LockAll { .. } => (true, true),
            Self::Break { to } => (true, short(to)),
            Self::Limit { pages, .. } => (true, pages <= 1 << 30),
            Self::UnlockAll | Self::Fork | Self::ForkProbe => (true, true),
        };
        match (near, short) {
            (true, true) => Ok(()),
            (false, _) => Err(Unsafe("the address is far from the arena")),
            (true, false) => Err(Unsafe("the length reaches too far, or too much is asked for")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_reach_the_harness_is_refused() {
        let at = Place::Arena(0);
        for op in [
            Op::Unmap { at, len: 1 << 40 },
            Op::Unmap { at: Place::Absolute(0x7f00_0000_0000), len: PAGE },
            // Longer than user memory, but the walk of madvise would not know.
            Op::Advise { at, len: 1 << 62, advice: 4 },
            Op::Map {
                at: Place::Arena(1 << 40),
                len: PAGE,
                prot: 0,
                flags: 0x32,
                from: Source::Nothing,
            },
            Op::Remap { at, old_len: 1 << 40, new_len: PAGE, flags: 0, to: at },
        ] {
            assert!(op.check().is_err(), "{op:?}");
        }
    }

    #[test]
    fn nonsense_that_linux_refuses_at_once_is_fine() {
        let at = Place::Arena(0);
        for op in [
            Op::Unmap { at, len: 1 << 48 },
            Op::Advise { at, len: u64::MAX, advice: 4 },
            Op::Protect { at: Place::Absolute(TASK_SIZE), len: PAGE, prot: 1 },
            Op::Read { at: Place::Absolute(0) },
            Op::Remap { at, old_len: 1 << 47, new_len: PAGE, flags: 3, to: at },
            Op::LockAll { flags: 3 },
        ] {
            assert_eq!(op.check(), Ok(()), "{op:?}");
        }
    }

    #[test]
    fn brk_is_for_the_heap() {
        let sequence = |heap| Sequence { pages: 8, heap, ops: vec![Op::Break { to: PAGE }] };
        assert!(sequence(true).check().is_ok());
        assert_eq!(sequence(false).check().map_err(|(index, _)| index), Err(0));
    }
}
