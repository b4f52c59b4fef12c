//! What a mapping allows, how it is cached, and what hardware has noted about it.
//!
//! ```text
//!  31        17 16    13 12  11..9   8   7   6   5   4   3    2   1   0
//! +------------+--------+---+------+---+----+---+---+---------+---+---+---+
//! | 0          | key    | X | soft | G |typ2| D | A |type 1..0| U | W | R |
//! +------------+--------+---+------+---+----+---+---+---------+---+---+---+
//! ```
//!
//! The low twelve bits lie where a 4 KiB entry of x86-64 has them, so that decoding the most common
//! format is a mask. Nothing else follows from the positions.
//!
//! These are portable: a format encodes them, or says that it cannot. Read, write and execute are
//! separate, so that "no access" (`PROT_NONE`) is a mapping with none of them, and still a mapping.

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign, Not, Sub};

/// A set of attributes; see the [module](self) for its bits.
///
/// ```
/// use vellum_core::{Attr, Change, MemoryType};
///
/// let data = Attr::RW | Attr::USER | Attr::DIRTY;
/// let shared_after_fork = Change::clearing(Attr::WRITE).apply(data);
/// assert_eq!(shared_after_fork, Attr::READ | Attr::USER | Attr::DIRTY);
/// assert!(data.narrows_to(shared_after_fork));
/// assert_eq!(data.memory(), Some(MemoryType::WriteBack));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Attr(u32);

/// How the caches treat a mapping; the numbers are those of [`Attr`]'s field, not of any hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryType {
    /// Cached, written back later: ordinary memory.
    #[default]
    WriteBack,
    /// Cached for reads; writes go to memory at once.
    WriteThrough,
    /// Not cached, unless the memory's owner allows combining of writes (x86 "UC-").
    UncachedMinus,
    /// Not cached, strictly ordered: device registers.
    Uncached,
    /// Not cached, writes gathered: frame buffers.
    WriteCombining,
    /// Cached for reads; writes go to memory and drop the line.
    WriteProtect,
}

/// The memory type's two lower bits, and its upper one.
const TYPE_LOW_SHIFT: u32 = 3;
const TYPE_HIGH_SHIFT: u32 = 7;
const KEY_SHIFT: u32 = 13;

impl Attr {
    /// No access at all; still a mapping.
    pub const NONE: Self = Self(0);
    /// Loads are allowed.
    pub const READ: Self = Self(1);
    /// Stores are allowed.
    pub const WRITE: Self = Self(1 << 1);
    /// Instruction fetches are allowed.
    pub const EXEC: Self = Self(1 << 12);
    /// User mode may use the mapping.
    pub const USER: Self = Self(1 << 2);
    /// The same in every address space: survives a change of space in the TLB.
    pub const GLOBAL: Self = Self(1 << 8);
    /// A walker has used the mapping since this was last cleared.
    pub const ACCESSED: Self = Self(1 << 5);
    /// A store has gone through the mapping since this was last cleared.
    pub const DIRTY: Self = Self(1 << 6);
    /// Three bits that are software's own.
    pub const SOFT: [Self; 3] = [Self(1 << 9), Self(1 << 10), Self(1 << 11)];
    /// The whole field of the memory type: a mask, for [`Change`].
    pub const MEMORY_MASK: Self = Self(0b11 << TYPE_LOW_SHIFT | 1 << TYPE_HIGH_SHIFT);
    /// The whole field of the protection key: a mask, for [`Change`].
    pub const KEY_MASK: Self = Self(0b1111 << KEY_SHIFT);

    /// Loads and stores.
    pub const RW: Self = Self(0b011);
    /// Loads and instruction fetches.
    pub const RX: Self = Self(1 | 1 << 12);
    /// Read, write and execute: a mask, not a recommendation.
    pub const RWX: Self = Self(0b11 | 1 << 12);
    /// The bits that hardware sets.
    pub const STATUS: Self = Self(0b11 << 5);

    /// The set with these bits; those that mean nothing are dropped.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << (KEY_SHIFT + 4)) - 1))
    }

    /// The bits, as drawn in the [module](self).
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every attribute of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any attribute of `other` is in `self`.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The same with another memory type.
    #[must_use]
    pub const fn with_memory(self, memory: MemoryType) -> Self {
        let field: u32 = match memory {
            MemoryType::WriteBack => 0,
            MemoryType::WriteThrough => 1,
            MemoryType::UncachedMinus => 2,
            MemoryType::Uncached => 3,
            MemoryType::WriteCombining => 4,
            MemoryType::WriteProtect => 5,
        };
        let field = (field & 0b11) << TYPE_LOW_SHIFT | (field >> 2) << TYPE_HIGH_SHIFT;
        Self(self.0 & !Self::MEMORY_MASK.0 | field)
    }

    /// The memory type; `None` for the two field values that name none.
    #[must_use]
    pub const fn memory(self) -> Option<MemoryType> {
        let low = self.0 >> TYPE_LOW_SHIFT & 0b11;
        let high = self.0 >> TYPE_HIGH_SHIFT & 1;
        Some(match low | high << 2 {
            0 => MemoryType::WriteBack,
            1 => MemoryType::WriteThrough,
            2 => MemoryType::UncachedMinus,
            3 => MemoryType::Uncached,
            4 => MemoryType::WriteCombining,
            5 => MemoryType::WriteProtect,
            _ => return None,
        })
    }

    /// The same with protection key `key`, of which the low four bits count.
    #[must_use]
    pub fn with_key(self, key: u8) -> Self {
        Self(self.0 & !Self::KEY_MASK.0 | u32::from(key & 0xf) << KEY_SHIFT)
    }

    /// The protection key, 0 to 15.
    #[must_use]
    pub fn key(self) -> u8 {
        let field = (self.0 & Self::KEY_MASK.0) >> KEY_SHIFT;
        u8::try_from(field).unwrap_or(0)
    }

    /// Whether a TLB that holds a translation with `self` may be wrong once the entry says `new`.
    ///
    /// Rights to read, write or execute that are only added need no flush: the stale entry faults once
    /// more, and the walk that follows finds the new rights (where a fault does not drop the entry, its
    /// handler does: [`protect`](crate::PageTable::protect)). Anything else does: also a
    /// status bit that is cleared, since hardware would not set it again, and the user's right in
    /// either direction, since what the user gains the kernel loses under SMEP and SMAP. What
    /// can be neither read nor executed cannot have been cached.
    #[must_use]
    pub fn narrows_to(self, new: Self) -> bool {
        let grow = Self::RWX | Self::STATUS;
        let soft = Self::SOFT[0] | Self::SOFT[1] | Self::SOFT[2];
        let lost = (self - new) & grow;
        let other = Self((self.0 ^ new.0) & !(grow | soft).0);
        self.intersects(Self::READ | Self::EXEC) && (lost | other) != Self::NONE
    }
}

impl BitOr for Attr {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl BitOrAssign for Attr {
    fn bitor_assign(&mut self, rhs: Self) {
        self.0 |= rhs.0;
    }
}

impl BitAnd for Attr {
    type Output = Self;
    fn bitand(self, rhs: Self) -> Self {
        Self(self.0 & rhs.0)
    }
}

/// Set difference: `self` without the bits of `rhs`.
impl Sub for Attr {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0 & !rhs.0)
    }
}

impl Not for Attr {
    type Output = Self;
    fn not(self) -> Self {
        Self::from_bits(!self.0)
    }
}

/// As `rwxugad`, with `-` for what is absent, then software bits, memory type and key if not 0.
impl fmt::Debug for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (Self::READ, "r"),
            (Self::WRITE, "w"),
            (Self::EXEC, "x"),
            (Self::USER, "u"),
            (Self::GLOBAL, "g"),
            (Self::ACCESSED, "a"),
            (Self::DIRTY, "d"),
        ];
        for (bit, letter) in letters {
            f.write_str(if self.contains(bit) { letter } else { "-" })?;
        }
        for (bit, name) in Self::SOFT.into_iter().zip(["+s0", "+s1", "+s2"]) {
            if self.contains(bit) {
                f.write_str(name)?;
            }
        }
        match self.memory() {
            Some(MemoryType::WriteBack) => {}
            Some(memory) => write!(f, "+{memory:?}")?,
            None => f.write_str("+?")?,
        }
        if self.key() != 0 {
            write!(f, "+key{}", self.key())?;
        }
        Ok(())
    }
}

/// A change of attributes that leaves everything else as it is: first `clear`, then `set`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Attributes that are there afterwards.
    pub set: Attr,
    /// Attributes that are not there afterwards, unless `set` has them.
    pub clear: Attr,
}

impl Change {
    /// Gives `attr`, keeps the rest. For single attributes; of a field (memory type, key) the bits
    /// would mix with those that are there: see [`memory`](Self::memory) and [`key`](Self::key).
    #[must_use]
    pub const fn setting(attr: Attr) -> Self {
        Self { set: attr, clear: Attr::NONE }
    }

    /// Takes `attr` away, keeps the rest.
    #[must_use]
    pub const fn clearing(attr: Attr) -> Self {
        Self { set: Attr::NONE, clear: attr }
    }

    /// Makes the part of the attributes that `mask` covers equal to `attr`.
    #[must_use]
    pub fn to(attr: Attr, mask: Attr) -> Self {
        Self { set: attr & mask, clear: mask }
    }

    /// Makes the memory type this one.
    #[must_use]
    pub const fn memory(memory: MemoryType) -> Self {
        Self { set: Attr::NONE.with_memory(memory), clear: Attr::MEMORY_MASK }
    }

    /// Makes the protection key this one, of which the low four bits count.
    #[must_use]
    pub fn key(key: u8) -> Self {
        Self { set: Attr::NONE.with_key(key), clear: Attr::KEY_MASK }
    }

    /// `attr` after the change.
    #[must_use]
    pub fn apply(self, attr: Attr) -> Attr {
        (attr - self.clear) | self.set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    const MEMORY_TYPES: [MemoryType; 6] = [
        MemoryType::WriteBack,
        MemoryType::WriteThrough,
        MemoryType::UncachedMinus,
        MemoryType::Uncached,
        MemoryType::WriteCombining,
        MemoryType::WriteProtect,
    ];

    #[test]
    fn fields_do_not_disturb_each_other() {
        for memory in MEMORY_TYPES {
            for key in 0..16 {
                let attr = Attr::RW.with_key(key).with_memory(memory);
                assert_eq!((attr.memory(), attr.key()), (Some(memory), key));
                assert_eq!(attr - Attr::MEMORY_MASK - Attr::KEY_MASK, Attr::RW);
            }
        }
    }

    #[test]
    fn a_change_of_a_field_replaces_it() {
        let before = Attr::RW.with_memory(MemoryType::WriteThrough).with_key(5);
        let after = Change::memory(MemoryType::WriteCombining).apply(before);
        assert_eq!(after, before.with_memory(MemoryType::WriteCombining));
        assert_eq!(Change::key(2).apply(after), after.with_key(2));
    }

    #[test]
    fn only_losing_something_needs_a_flush() {
        let rw = Attr::RW | Attr::USER;
        assert!(!Attr::READ.narrows_to(Attr::RWX | Attr::STATUS));
        assert!(!rw.narrows_to(rw | Attr::SOFT[1]));
        assert!(rw.narrows_to(rw - Attr::WRITE));
        assert!(rw.narrows_to(rw - Attr::USER));
        assert!(Attr::READ.narrows_to(Attr::READ | Attr::USER), "SMAP");
        assert!((rw | Attr::DIRTY).narrows_to(rw));
        assert!(rw.narrows_to(rw | Attr::GLOBAL));
        assert!(rw.narrows_to(rw.with_memory(MemoryType::Uncached)));
        assert!(rw.narrows_to(rw.with_key(3)));
        assert!(!Attr::USER.narrows_to(rw), "an unreadable mapping is in no TLB");
        let execute_only = Attr::EXEC | Attr::USER;
        assert!(execute_only.narrows_to(Attr::USER), "execute-only is cached as well");
    }

    #[test]
    fn debug_is_a_line_of_letters() {
        assert_eq!(format!("{:?}", Attr::RX | Attr::USER | Attr::ACCESSED), "r-xu-a-");
        let odd = Attr::READ.with_memory(MemoryType::Uncached).with_key(2) | Attr::SOFT[0];
        assert_eq!(format!("{odd:?}"), "r------+s0+Uncached+key2");
    }

    proptest! {
        #![proptest_config(crate::proptest_config())]

        #[test]
        fn a_change_is_idempotent_and_keeps_the_rest(old: u32, set: u32, clear: u32) {
            let old = Attr::from_bits(old);
            let change = Change { set: Attr::from_bits(set), clear: Attr::from_bits(clear) };
            let new = change.apply(old);
            prop_assert_eq!(change.apply(new), new);
            let untouched = !(change.set | change.clear);
            prop_assert_eq!(new & untouched, old & untouched);
        }
    }
}
