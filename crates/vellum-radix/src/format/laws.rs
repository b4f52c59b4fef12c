//! What every format promises ([`Format`]), as properties; a format's tests call those that it
//! keeps.
//!
//! ```text
//!   leaf --encode--> raw --decode--> leaf         any raw --decode--> something
//!                    raw --set_status--> leaf with status, and nothing else
//!   leaf, next frame --encode--> raw + step
//! ```
//!
//! `width` is log2 of the first physical address that the format cannot hold.

use super::{Decoded, Format, Level, base_shift, is_shared, leaves};
use proptest::prelude::*;
use proptest::sample::select;
use std::vec::Vec;
use vellum_core::{Attr, Cause, Entry, PhysAddr, Soft};
use vellum_testkit::suite::config;

/// log2 of the sizes that the format has leaves of.
fn pages<F: Format>() -> Vec<u8> {
    (0..64).filter(|&n| leaves::<F>() >> n & 1 == 1).collect()
}

/// Whether a leaf of this size is several entries.
fn is_group<F: Format>(page: u8) -> bool {
    F::LEVELS.iter().all(|level| level.shift != page)
}

/// The level that has leaves of this size, in one entry or in several.
fn level_of<F: Format>(page: u8) -> Level {
    let has = |level: &&Level| level.leaf && [level.shift, level.group_shift()].contains(&page);
    *F::LEVELS.iter().find(has).expect("a leaf size")
}

/// A frame of this size, anywhere below 2<sup>`width`</sup>.
fn frame(number: u64, page: u8, width: u8) -> PhysAddr {
    PhysAddr::new(number & ((1 << width) - 1)).align_down(page)
}

/// The attributes, or the next best that any format expresses: without what it may lack, with rights
/// that it may want.
pub(super) fn expressible<F: Format>(bits: u32) -> Attr {
    let fits =
        |&attr: &Attr| F::encode(Entry::Leaf(PhysAddr::new(0), attr), pages::<F>()[0]).is_ok();
    let attr = Attr::from_bits(bits);
    let lean = attr.with_key(0) - Attr::SOFT[2];
    let plain = lean - Attr::MEMORY_MASK;
    [attr, attr.with_key(0), lean, plain]
        .into_iter()
        .flat_map(|attr| [attr, attr | Attr::READ, attr | Attr::RX])
        .find(fits)
        .unwrap_or(Attr::NONE)
}

/// Leaves of every size, with any attributes that the format expresses, come back as they were.
pub(super) fn leaves_survive<F: Format>(width: u8) {
    proptest!(config(1024), |(bits: u32, number: u64, page in select(pages::<F>()))| {
        let leaf = Entry::Leaf(frame(number, page, width), expressible::<F>(bits));
        let raw = F::encode(leaf, page);
        prop_assert!(raw.is_ok(), "{leaf:?} of 2^{page}: {raw:?}");
        let raw = raw.unwrap_or(0);
        prop_assert_ne!(raw, 0);
        prop_assert_eq!(F::decode(raw, page), Decoded::Entry(leaf));
        let level = level_of::<F>(page);
        if level.shift > base_shift::<F>() {
            prop_assert_eq!(F::child(raw, level.shift), None, "{:?} of 2^{}", leaf, page);
        }
    });
}

/// Soft values come back as they were, at places of every leaf size, and only those that fit.
pub(super) fn soft_values_survive<F: Format>() {
    let top = 1u64 << F::SOFT_BITS;
    proptest!(config(512), |(value in 1..top, page in select(pages::<F>()))| {
        let soft = Entry::Soft(Soft::new(value).unwrap());
        let raw = F::encode(soft, page).unwrap();
        prop_assert_ne!(raw, 0);
        prop_assert_eq!(F::decode(raw, page), Decoded::Entry(soft));
        prop_assert!(!F::is_grouped(raw, page) && !F::is_broken(raw) && F::is_quiet(raw));
    });
    let page = pages::<F>()[0];
    assert_eq!(F::encode(Entry::Soft(Soft::new(top).unwrap()), page), Err(Cause::SoftTooWide(top)));
    assert_eq!(F::encode(Entry::Hole, page), Ok(0));
    assert_eq!(F::decode(0, page), Decoded::Entry(Entry::Hole));
}

/// Every value decodes at every level, to frames of the right size; of what it decodes to, whatever
/// the format encodes comes back.
pub(super) fn every_value_decodes<F: Format>() {
    let mut all = pages::<F>();
    all.extend(F::LEVELS.iter().map(|level| level.shift));
    proptest!(config(2048), |(raw: u64, low in 0u64..4, page in select(all))| {
        for raw in [raw, raw & !3 | low, raw & 0xfff] {
            let entry = F::decode(raw, page).entry();
            let _ = (F::is_quiet(raw), F::has_reserved_bits(raw, page), F::is_grouped(raw, page));
            if let Entry::Leaf(pa, _) = entry {
                prop_assert!(pa.is_aligned(page), "{pa} of 2^{page}");
            }
            if let Ok(again) = F::encode(entry, page) {
                prop_assert_eq!(F::decode(again, page).entry(), entry, "{:#x}", raw);
            }
        }
    });
}

/// Setting and clearing status does that, and hardware is done exactly with what has the status
/// that it could set.
pub(super) fn status_is_only_status<F: Format>(width: u8) {
    let statuses = [Attr::NONE, Attr::ACCESSED, Attr::DIRTY, Attr::STATUS];
    proptest!(config(1024), |(bits: u32, number: u64, page in select(pages::<F>()))| {
        let (pa, attr) = (frame(number, page, width), expressible::<F>(bits));
        let raw = F::encode(Entry::Leaf(pa, attr), page).unwrap();
        for status in statuses {
            let (set, clear) = (F::set_status(raw, status), F::clear_status(raw, status));
            prop_assert_eq!(F::decode(set, page).entry(), Entry::Leaf(pa, attr | status));
            prop_assert_eq!(F::decode(clear, page).entry(), Entry::Leaf(pa, attr - status));
            prop_assert_eq!((set ^ raw | clear ^ raw) & F::frame_mask(page), 0);
        }
        let clean = attr.contains(Attr::WRITE) && !attr.contains(Attr::DIRTY);
        let usable = attr.intersects(Attr::RWX);
        let done = !usable || attr.contains(Attr::ACCESSED) && !clean;
        prop_assert_eq!(F::is_quiet(raw), done, "{:?}", attr);
        prop_assert!(F::is_quiet(F::set_status(raw, Attr::STATUS)));
        // What is asked of it beside status is passed over.
        prop_assert_eq!(F::set_status(raw, !Attr::STATUS), raw);
        prop_assert_eq!(F::clear_status(raw, !Attr::STATUS), raw);
    });
}

/// Neighbouring frames differ by `step`, and nothing outside of the mask depends on the frame.
pub(super) fn frames_follow_by_steps<F: Format>(width: u8) {
    let single: Vec<u8> = pages::<F>().into_iter().filter(|&page| !is_group::<F>(page)).collect();
    proptest!(config(1024), |(
        bits: u32, number: u64, other: u64, ahead in 0u64..512, page in select(single),
    )| {
        let attr = expressible::<F>(bits);
        let entry = |pa| F::encode(Entry::Leaf(pa, attr), page).unwrap();
        let (first, mask) = (frame(number, page, width), F::frame_mask(page));
        // What a shared node that is copied takes from its leaves.
        let narrowed = Entry::Leaf(first, attr - Attr::WRITE);
        prop_assert!(F::LINK_WRITE == 0 || F::encode(narrowed, page).is_ok());
        let raw = entry(first);
        prop_assert_eq!(raw & !mask, entry(frame(other, page, width)) & !mask);
        let next = first.wrapping_add(ahead << page);
        let moved = raw.wrapping_add(F::step(page).wrapping_mul(ahead));
        // Where it stays within the field: then no bit beside it has changed.
        if next.as_u64() >> width == 0 && next.as_u64() >> 48 == first.as_u64() >> 48 {
            prop_assert_eq!(moved, entry(next));
        }
    });
}

/// Links lead where they should from every level that has any, whatever their counts.
pub(super) fn links_lead_to_their_nodes<F: Format>(width: u8) {
    let depths: Vec<usize> = (1..F::LEVELS.len()).collect();
    proptest!(config(512), |(
        number: u64, count in 0u64..1024, depth in select(depths), user: bool,
    )| {
        let Level { bits, .. } = F::LEVELS[depth];
        let above = F::LEVELS[depth - 1].shift;
        let pa = frame(number, bits + F::ENTRY_SHIFT, width);
        prop_assume!(F::check_table(pa).is_ok());
        let link = F::table_entry(pa, above, user);
        let counted = F::COUNT_SHIFT.map_or(link, |shift| link + (count << shift));
        prop_assert_ne!(link, 0);
        prop_assert_eq!(F::decode(link, above), Decoded::Table(pa));
        prop_assert_eq!(F::decode(counted, above), Decoded::Table(pa));
        prop_assert_eq!(F::child(counted, above), Some(pa));
        prop_assert_eq!(F::child(0, above), None);
        if let Some(shift) = F::COUNT_SHIFT {
            prop_assert_eq!(link & 0x3ff << shift, 0);
        }
        prop_assert!(!F::is_grouped(counted, above) && !F::has_reserved_bits(counted, above));
        prop_assert!(F::table_rights(counted, above).contains(Attr::RWX));
        prop_assert!(!user || F::table_rights(counted, above).contains(Attr::USER));
        if F::LINK_WRITE != 0 && depth + 1 == F::LEVELS.len() {
            let shared = counted ^ F::LINK_WRITE;
            prop_assert_eq!(F::decode(shared, above), Decoded::Table(pa));
            let kept = F::table_rights(counted, above) - Attr::WRITE;
            prop_assert_eq!(F::table_rights(shared, above), kept);
            prop_assert!(is_shared::<F>(shared, above) && !is_shared::<F>(counted, above));
            prop_assert!(!F::has_reserved_bits(shared, above));
        }
    });
}

/// At the lowest level nothing links a node, or one could walk on for ever.
pub(super) fn the_lowest_level_links_nothing<F: Format>() {
    let page = F::LEVELS[F::LEVELS.len() - 1].shift;
    proptest!(config(512), |(raw: u64)| {
        for low in 0..4 {
            prop_assert!(matches!(F::decode(raw & !3 | low, page), Decoded::Entry(_)));
        }
    });
}

/// Frames that are misaligned or too high are refused, each by its name.
pub(super) fn bad_frames_are_refused<F: Format>(width: u8) {
    for page in pages::<F>() {
        let attr = expressible::<F>(Attr::READ.bits());
        let at = |pa| F::encode(Entry::Leaf(PhysAddr::new(pa), attr), page);
        let half = 1 << (page - 1);
        assert_eq!(at(half), Err(Cause::Misaligned { value: half, page }));
        assert!(at((1 << width) - (1 << page)).is_ok());
        for high in [width, 56, 63] {
            let pa = PhysAddr::new(1 << high);
            assert_eq!(at(pa.as_u64()), Err(Cause::PhysTooWide(pa)), "2^{high}");
        }
    }
}
