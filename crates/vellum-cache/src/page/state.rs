//! What holds of a page: the bits that its record has for it.
//!
//! ```text
//!    31     8 7     6   5      4       3      2        1       0
//!   +--------+-------+------+--------+------+--------+-------+-------+
//!   | order  | free  | LAZY | MEMORY | ANON | CACHED | DIRTY | READY |
//!   +--------+-------+------+--------+------+--------+-------+-------+
//!      `- of the block that the frame is part of: no fact, and only `Page::block` writes it
//! ```

use core::fmt;

/// Facts about a page, as a set.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct State(pub(super) u32);

impl State {
    /// The contents are valid.
    pub const READY: Self = Self(1);
    /// The contents differ from what is stored, in file or swap.
    pub const DIRTY: Self = Self(1 << 1);
    /// It is in the page cache.
    pub const CACHED: Self = Self(1 << 2);
    /// It belongs to an anonymous region's family, not to a file.
    pub const ANON: Self = Self(1 << 3);
    /// Of a file that is in memory only.
    pub const MEMORY: Self = Self(1 << 4);
    /// Its owner has given its contents up (`MADV_FREE`), unless a mapping has it dirty.
    pub const LAZY: Self = Self(1 << 5);
    /// The bits of all of these.
    pub(super) const MASK: u32 = 0xff;

    /// Whether all of `other` holds.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::READY, "ready "),
            (Self::DIRTY, "dirty "),
            (Self::CACHED, "cached "),
            (Self::ANON, "anon "),
            (Self::MEMORY, "memory "),
            (Self::LAZY, "lazy "),
        ];
        for (bit, name) in names {
            if self.contains(bit) {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}
