//! One level as wide as the page number: the flat table of the textbooks.
//!
//! ```text
//!   va:  BITS-1 ............... 12  11 ... 0
//!        +------------------------+---------+
//!        | index                  | offset  |      root + 8 * index  -->  entry
//!        +------------------------+---------+
//! ```
//!
//! Its one node is 2<sup>BITS - 9</sup> bytes of contiguous memory, which is the point: 8 MiB for 32
//! bits, 512 GiB for 48. Entries are those of x86-64 ([`vellum_core::pte`]).
//!
//! Source: H. Levy and P. Lipman, "Virtual Memory Management in the VAX/VMS Operating System",
//! IEEE Computer 15(3), 1982: linear page tables.

use super::x86_64::status;
use super::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr, pte};

/// A flat table over a space of `BITS` bits, 13 to 48. Others do not compile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flat<const BITS: u8>;

impl<const BITS: u8> Flat<BITS> {
    const ROOT: Level = {
        assert!(BITS > PAGE_SHIFT && BITS <= 48, "a flat table has 13 to 48 bits");
        Level::new(PAGE_SHIFT, BITS - PAGE_SHIFT, true)
    };
}

// SAFETY: one level, of pages; the codec is vellum_core::pte; no entry decodes to a table, so none
// is followed.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const BITS: u8> Format for Flat<BITS> {
    const LEVELS: &'static [Level] = &[Self::ROOT];
    const CANONICAL: Canonical = Canonical::unsigned(BITS);
    const SOFT_BITS: u8 = pte::SOFT_BITS;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        pte::encode(entry, page)
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        Decoded::Entry(pte::decode(raw, page))
    }

    /// Never asked: there is one node.
    fn table_entry(_: PhysAddr, _: u8, _: bool) -> u64 {
        0
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        pte::FRAME & u64::MAX << page
    }

    #[inline]
    fn step(page: u8) -> u64 {
        1 << page
    }

    #[inline]
    fn set_status(raw: u64, attr: Attr) -> u64 {
        raw | status(attr)
    }

    #[inline]
    fn clear_status(raw: u64, attr: Attr) -> u64 {
        raw & !status(attr)
    }

    #[inline]
    fn is_quiet(raw: u64) -> bool {
        pte::is_quiet(raw)
    }
}
