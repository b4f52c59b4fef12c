//! The map as text: a line for each region, with the gaps between them.
//!
//! ```text
//!   VmaMap, 3 regions, 1 level, 4 KiB
//!     0x400000..=0x402fff          3 pages  "text"
//!                                  1 page
//!     0x404000..=0x404fff          1 page   "data"
//! ```

use super::VmaMap;
use core::fmt;
use vellum_core::Memory;

/// `1 page`, `2 pages`.
struct Pages(u64);

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>16} {:<5}", self.0, if self.0 == 1 { "page" } else { "pages" })
    }
}

/// A line for each region, and for each gap between two.
impl<V: Copy + fmt::Debug, M: Memory> fmt::Debug for VmaMap<V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = if self.is_empty() { 0 } else { self.height + 1 };
        let (len, kib) = (self.len, self.bytes() >> 10);
        write!(f, "VmaMap, regions: {len}, levels: {levels}, {kib} KiB")?;
        let mut end = None;
        for (range, value) in self.iter(self.bounds) {
            if let Some(gap) = end.map(|end| range.first_page() - end).filter(|&gap| gap > 0) {
                write!(f, "\n  {:40}{}", "", Pages(gap))?;
            }
            write!(f, "\n  {:40}{} {value:?}", Text(range), Pages(range.count_pages()))?;
            end = Some(range.end_page());
        }
        Ok(())
    }
}

/// A range, filled up with spaces to the width that is asked for.
struct Text(super::PageRange);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, last) = (self.0.start().as_u64(), self.0.last().as_u64());
        let digits = |n: u64| 2 + (n.max(1).ilog2() / 4 + 1) as usize;
        let len = digits(start) + 3 + digits(last);
        write!(f, "{}", self.0)?;
        write!(f, "{:1$}", "", f.width().unwrap_or(0).saturating_sub(len))
    }
}
