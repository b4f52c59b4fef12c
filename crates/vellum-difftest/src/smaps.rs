//! Reads /proc/PID/smaps, as far as it is about the arena.
//!
//! ```text
//!   1000000000-1000004000 rw-p 00000000 00:00 0                                    <-- a region
//!   Size:                 16 kB
//!   Rss:                   4 kB
//!   ...
//!   VmFlags: rd wr mr mw me ac sd
//! ```
//!
//! Source: Documentation/filesystems/proc.rst, 3.4 `/proc/PID/smaps`.

use crate::abi::PAGE;
use crate::compare::UNCOMPARED;
use crate::op::MARGIN;
use crate::trace::{Flags, KNOWN_FLAGS, Kind, Region, Sizes};

/// The regions from `low` on and near the arena at `base`, as the text has them: ascending.
pub(crate) fn regions(text: &str, low: u64, base: u64) -> Result<Vec<Region>, String> {
    let mut regions: Vec<Region> = Vec::new();
    // Whether the lines are about the last of them.
    let mut ours = false;
    let keeps_text = low != base;
    for line in text.lines() {
        if !line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let region = region(line, low, base).ok_or_else(|| format!("smaps: `{line}`"))?;
            ours = region.is_some();
            regions.extend(region);
        } else if let (true, Some(region)) = (ours, regions.last_mut()) {
            detail(line, region);
        }
        if let (true, Some(region)) = (ours && keeps_text, regions.last_mut()) {
            keep(line, &mut region.text);
        }
    }
    Ok(regions)
}

/// Where names begin in a region's first line.
const NAME_COLUMN: usize = 73;

/// Keeps a line, but for what differs between any two systems.
fn keep(line: &str, text: &mut String) {
    if line.starts_with(|c: char| c.is_ascii_uppercase()) {
        let name = line.split(':').next().unwrap_or_default();
        if UNCOMPARED.iter().all(|(other, _)| *other != name) {
            text.push_str(line);
            text.push('\n');
        }
        return;
    }
    // Device and inode are the system's own; the name stands in a column.
    for word in line.split(' ').take(3) {
        text.push_str(word);
        text.push(' ');
    }
    text.push_str(line.get(NAME_COLUMN..).unwrap_or_default());
    text.push('\n');
}

/// The region of a line; `Some(None)` if it lies elsewhere.
fn region(line: &str, low: u64, base: u64) -> Option<Option<Region>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hexadecimal = |digits| u64::from_str_radix(digits, 16).ok();
    let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
    // Of the heap, what lies below the arena may have become one with its first pages.
    if end <= low || start >= base + 2 * MARGIN {
        return Some(None);
    }
    let perms: [u8; 4] = words.next()?.as_bytes().try_into().ok()?;
    let offset = hexadecimal(words.next()?)?;
    // Device and inode.
    words.next()?;
    words.next()?;
    let kind = match words.next() {
        None => Kind::Anon,
        Some("[heap]") => Kind::Heap,
        Some("[stack]") => Kind::Stack,
        Some("/dev/zero") => Kind::SharedAnon,
        Some(name) if name.starts_with("/memfd:vellum") => Kind::File,
        // A program that is not moved lies low, and is not ours.
        Some(_) => return Some(None),
    };
    let pages = |address: u64| address.wrapping_sub(base).cast_signed() / PAGE.cast_signed();
    let (start, end) = (pages(start.max(low)), pages(end));
    let (sizes, flags) = (Sizes::default(), Flags::default());
    Some(Some(Region { start, end, perms, offset, kind, sizes, flags, text: String::new() }))
}

/// A line about a region.
fn detail(line: &str, region: &mut Region) {
    let Some((name, rest)) = line.split_once(':') else { return };
    if name == "VmFlags" {
        let bits = rest.split_ascii_whitespace().filter_map(|flag| {
            KNOWN_FLAGS.iter().position(|known| *known == flag).map(|bit| 1 << bit)
        });
        region.flags = Flags(bits.fold(0, |all, bit: u32| all | bit));
        return;
    }
    let sizes = &mut region.sizes;
    let place = match name {
        "Rss" => &mut sizes.rss,
        "Pss" => &mut sizes.pss,
        "Shared_Clean" | "Shared_Dirty" => &mut sizes.shared,
        "Private_Dirty" => &mut sizes.dirty,
        "Anonymous" => &mut sizes.anonymous,
        "LazyFree" => &mut sizes.lazy_free,
        "Swap" => &mut sizes.swap,
        "Locked" => &mut sizes.locked,
        _ => return,
    };
    let kib = rest.trim().trim_end_matches(" kB").parse().unwrap_or(u64::MAX);
    *place = place.saturating_add(kib);
    if name == "Shared_Dirty" {
        sizes.dirty = sizes.dirty.saturating_add(kib);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_read_with_its_sizes() {
        let text = "1000000000-1000004000 rw-s 00002000 00:01 77   /memfd:vellum (deleted)\n\
                    Size:                 16 kB\nRss:                   8 kB\n\
                    Shared_Clean:          0 kB\nShared_Dirty:          4 kB\n\
                    Private_Dirty:         4 kB\nVmFlags: rd wr sh lo\n\
                    7f0000000000-7f0000001000 r--p 00000000 00:00 0\nRss:    4 kB\n";
        let found = regions(text, 0, 0x10_0000_0000 - PAGE).expect("it is well formed");
        let [region] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(region.to_string(), "1-5 rw-s file 2");
        let sizes = Sizes { rss: 8, shared: 4, dirty: 8, ..Sizes::default() };
        assert_eq!(region.sizes, sizes);
        assert_eq!(region.flags.to_string(), "rd wr sh lo");
    }

    #[test]
    fn what_is_no_region_is_refused() {
        assert!(regions("something else\n", 0, 0).is_err());
    }
}
