//! Flattened x86-64: two levels in one node of 2 MiB.
//!
//! ```text
//!   va     47 ........ 30  29 ........ 12  11 .. 0
//!          +-------------+ +-------------+
//!   both   | 18 bits     | | 18 bits     |             2 references a walk
//!          +-------------+ +-------------+
//!          +-------------+ +------+ +------+
//!   upper  | 18 bits     | | 9    | | 9    |           3
//!          +-------------+ +------+ +------+
//!          +------+ +----+ +-------------+
//!   lower  | 9    | | 9  | | 18 bits     |             3
//!          +------+ +----+ +-------------+
//!   leaves        1 GiB      2 MiB  4 KiB              2 MiB only in `upper`
//! ```
//!
//! Entries are those of 4-level paging ([`X86_64`](super::X86_64), [`vellum_core::pte`]): a table,
//! `PROT_NONE`, a soft entry and a hole look the same, at the levels that are left. No processor has
//! this; a walker that did would take from the entry above, or from CR3, how wide the next node is. Here
//! it is the type that says so, for the whole table.
//!
//! **Memory.** A node that maps pages takes 2 MiB in one block, aligned to itself, even for one page. A
//! root of 18 bits takes 2 MiB too, but 4 MiB in `both`: how many entries of a node of 18 bits are in
//! use does not fit the ten bits that the entry above has, so that counts are behind the nodes that
//! link them.
//!
//! Source: C. H. Park, I. Vougioukas, A. Sandberg, D. Black-Schaffer, "Every Walk's a Hit: Making Page
//! Walks Single-Access Cache Hits", ASPLOS 2022; Intel SDM vol. 3A, 5.5.4.

use super::{Decoded, Format, Level, X86_64};
use vellum_core::{Attr, Canonical, Cause, Entry, PhysAddr, pte};

/// x86-64 with its two upper levels in one, its two lower ones, or both. Neither does not compile:
/// that is [`X86_64`](super::X86_64)`<4>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flattened<const UPPER: bool, const LOWER: bool>;

const BOTH: &[Level] = &[Level::new(30, 18, true), Level::new(12, 18, true)];
const UPPER_ONLY: &[Level] =
    &[Level::new(30, 18, true), Level::new(21, 9, true), Level::new(12, 9, true)];
const LOWER_ONLY: &[Level] =
    &[Level::new(39, 9, false), Level::new(30, 9, true), Level::new(12, 18, true)];

// SAFETY: the levels continue each other and end in pages (checked when a table is made); entries
// mean what they do in `X86_64`, which keeps the contract at each of these places; where nodes below
// have more than 512 entries, none is counted in an entry.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const UPPER: bool, const LOWER: bool> Format for Flattened<UPPER, LOWER> {
    const LEVELS: &'static [Level] = match (UPPER, LOWER) {
        (true, true) => BOTH,
        (true, false) => UPPER_ONLY,
        (false, true) => LOWER_ONLY,
        (false, false) => panic!("that is 4-level paging as it is"),
    };
    const CANONICAL: Canonical = Canonical::signed(48);
    const SOFT_BITS: u8 = pte::SOFT_BITS;
    const COUNT_SHIFT: Option<u32> = if LOWER { None } else { X86_64::<4>::COUNT_SHIFT };
    const LINK_WRITE: u64 = X86_64::<4>::LINK_WRITE;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        X86_64::<4>::encode(entry, page)
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        X86_64::<4>::decode(raw, page)
    }

    #[inline]
    fn child(raw: u64, page: u8) -> Option<PhysAddr> {
        X86_64::<4>::child(raw, page)
    }

    #[inline]
    fn table_entry(pa: PhysAddr, page: u8, user: bool) -> u64 {
        X86_64::<4>::table_entry(pa, page, user)
    }

    #[inline]
    fn table_rights(raw: u64, page: u8) -> Attr {
        X86_64::<4>::table_rights(raw, page)
    }

    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        X86_64::<4>::has_reserved_bits(raw, page)
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        X86_64::<4>::frame_mask(page)
    }

    #[inline]
    fn step(page: u8) -> u64 {
        X86_64::<4>::step(page)
    }

    #[inline]
    fn set_status(raw: u64, attr: Attr) -> u64 {
        X86_64::<4>::set_status(raw, attr)
    }

    #[inline]
    fn clear_status(raw: u64, attr: Attr) -> u64 {
        X86_64::<4>::clear_status(raw, attr)
    }

    #[inline]
    fn is_quiet(raw: u64) -> bool {
        X86_64::<4>::is_quiet(raw)
    }
}

#[cfg(test)]
mod tests;
