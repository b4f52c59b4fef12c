//! Page-table flags and attributes, both ways, so that nothing is dropped on the way.
//!
//! ```text
//!   flag                     attribute            flag                     attribute
//!   PRESENT                  READ                 ACCESSED, DIRTY          the same
//!   WRITABLE                 WRITE                GLOBAL                   the same
//!   NO_EXECUTE               not EXEC             BIT_9..BIT_11            SOFT[0..3]
//!   USER_ACCESSIBLE          USER                 BIT_59..BIT_62           the protection key
//!   WRITE_THROUGH, NO_CACHE, and PAT: bit 7 of a 4 KiB page (HUGE_PAGE), bit 12 of a larger one
//!       (HUGE_PAT)           the memory type, by its index into the PAT
//!   BIT_52..BIT_58           none: refused
//! ```
//!
//! The memory type is an index: a kernel that loads its own PAT keeps its bits, whatever the name of
//! the [`MemoryType`](vellum_core::MemoryType) that stands for them here. Indices 6 and 7 are
//! refused, for entries 6 and 7 of [`pte::PAT`] are the types of 2 and 3.
//!
//! # Invariants
//!
//! - `flags_of(attr_of(flags))` is `flags`, but for `HUGE_PAGE`, which the size decides, and for
//!   `NO_EXECUTE` of a page without `PRESENT`.
//!
//! Source: Intel SDM vol. 3A, tables 5-17 to 5-20.

use super::shift_of;
use ::x86_64::structures::paging::{PageSize, PageTableFlags};
use vellum_core::{Attr, PAGE_SHIFT, pte};

/// PAT in a page of 2 MiB or 1 GiB, for which the crate has no name.
///
/// `OffsetPageTable` takes it for a part of the frame's address.
pub const HUGE_PAT: PageTableFlags = PageTableFlags::from_bits_retain(1 << 12);

/// The attributes of a page of size `S` with these flags; `HUGE_PAGE` need not be there.
///
/// # Errors
///
/// The flags that have no counterpart: software bits 52 to 58, where the table has its own business;
/// `WRITABLE` without `PRESENT`; memory types 6 and 7; bits of the address.
///
/// ```
/// use vellum_core::{Attr, MemoryType};
/// use vellum_radix::x86_64::{attr_of, flags_of};
/// use x86_64::structures::paging::{PageTableFlags as Flags, Size4KiB};
///
/// let device = Flags::PRESENT | Flags::WRITABLE | Flags::NO_CACHE | Flags::NO_EXECUTE;
/// let attr = attr_of::<Size4KiB>(device).expect("ordinary flags");
/// assert_eq!(attr, Attr::RW.with_memory(MemoryType::UncachedMinus));
/// assert_eq!(flags_of::<Size4KiB>(attr), Some(device));
/// assert_eq!(attr_of::<Size4KiB>(device | Flags::BIT_52), Err(Flags::BIT_52));
/// ```
pub fn attr_of<S: PageSize>(flags: PageTableFlags) -> Result<Attr, PageTableFlags> {
    let attr = nearest::<S>(flags);
    let asked = asked::<S>(flags);
    let kept = flags_of::<S>(attr).unwrap_or(PageTableFlags::empty());
    if asked == kept { Ok(attr) } else { Err(asked.symmetric_difference(kept)) }
}

/// The flags of a page of size `S` with these attributes; `None` where x86-64 cannot express them.
#[must_use]
pub fn flags_of<S: PageSize>(attr: Attr) -> Option<PageTableFlags> {
    let flags = PageTableFlags::from_bits_retain(pte::encode_attr(attr, shift_of::<S>()).ok()?);
    if flags.contains(PageTableFlags::PRESENT) {
        return Some(flags);
    }
    // Of an entry without rights the codec makes this bit a mark.
    Some(flags.difference(PageTableFlags::WRITABLE))
}

/// What of the flags there are attributes for.
pub(super) fn nearest<S: PageSize>(flags: PageTableFlags) -> Attr {
    pte::decode_attr(asked::<S>(flags).bits(), shift_of::<S>())
}

/// The flags with those that go without saying.
fn asked<S: PageSize>(mut flags: PageTableFlags) -> PageTableFlags {
    if shift_of::<S>() > PAGE_SHIFT {
        flags |= PageTableFlags::HUGE_PAGE;
    }
    if !flags.contains(PageTableFlags::PRESENT) {
        flags |= PageTableFlags::NO_EXECUTE;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::x86_64::structures::paging::{Size1GiB, Size2MiB, Size4KiB};
    use proptest::prelude::*;
    use vellum_core::MemoryType;

    type Flags = PageTableFlags;

    /// What an entry may hold besides its address, and this crate has attributes for.
    const HELD: u64 = 0xf800_0000_0000_0fff;

    fn survives<S: PageSize>(bits: u64) -> Result<(), TestCaseError> {
        let pat = if S::SIZE == 4096 { 1 << 7 } else { 1 << 12 };
        let mut flags = Flags::from_bits_retain(bits & (HELD | pat));
        if S::SIZE > 4096 {
            flags |= Flags::HUGE_PAGE;
        }
        let fits = !(flags.bits() & pat != 0 && flags.contains(Flags::NO_CACHE))
            && (flags.contains(Flags::PRESENT) || !flags.contains(Flags::WRITABLE));
        match attr_of::<S>(flags) {
            Ok(attr) => {
                let absent = flags - Flags::PRESENT != flags;
                let expected = if absent { flags } else { flags | Flags::NO_EXECUTE };
                prop_assert_eq!(flags_of::<S>(attr), Some(expected));
                prop_assert!(fits);
            }
            Err(lost) => prop_assert!(!fits && !lost.is_empty(), "{lost:?}"),
        }
        Ok(())
    }

    #[test]
    fn the_manual_s_bits_mean_what_it_says() {
        let attr = attr_of::<Size4KiB>(Flags::from_bits_retain(0x7800_0000_0000_0e67));
        let all = Attr::RWX | Attr::USER | Attr::STATUS;
        let soft = Attr::SOFT[0] | Attr::SOFT[1] | Attr::SOFT[2];
        assert_eq!(attr, Ok((all | soft).with_key(15)));
        let combining = Attr::READ.with_memory(MemoryType::WriteCombining);
        assert_eq!(flags_of::<Size4KiB>(combining).map(|f| f.bits()), Some(1 << 63 | 0x81));
        assert_eq!(flags_of::<Size2MiB>(combining).map(|f| f.bits()), Some(1 << 63 | 0x1081));
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let plain = Flags::PRESENT | Flags::WRITABLE;
        for bit in 52..59 {
            let odd = Flags::from_bits_retain(1 << bit);
            assert_eq!(attr_of::<Size4KiB>(plain | odd), Err(odd));
            assert_eq!(attr_of::<Size1GiB>(plain | odd), Err(odd));
        }
        assert_eq!(attr_of::<Size4KiB>(Flags::WRITABLE), Err(Flags::WRITABLE));
        assert_eq!(attr_of::<Size4KiB>(plain | HUGE_PAT), Err(HUGE_PAT));
        let doubled = plain | Flags::NO_CACHE | HUGE_PAT;
        assert_eq!(attr_of::<Size2MiB>(doubled), Err(HUGE_PAT));
        assert_eq!(attr_of::<Size4KiB>(Flags::empty()), Ok(Attr::NONE), "a guard page");
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(256))]

        #[test]
        fn flags_survive_the_way_there_and_back(bits: u64) {
            survives::<Size4KiB>(bits)?;
            survives::<Size2MiB>(bits)?;
            survives::<Size1GiB>(bits)?;
        }
    }
}
