use super::*;
use crate::format::{laws, leaves};
use proptest::prelude::*;

type L4 = LoongArch64<12>;
type L16 = LoongArch64<14>;

fn leaf(pa: u64, attr: Attr) -> Entry {
    Entry::Leaf(PhysAddr::new(pa), attr)
}

fn check<F: Format>(golden: &[(Entry, u8, u64)]) {
    for &(entry, page, raw) in golden {
        assert_eq!(F::encode(entry, page), Ok(raw), "{entry:?}: {:#x?}", F::encode(entry, page));
        assert_eq!(F::decode(raw, page), Decoded::Entry(entry), "{raw:#x}");
    }
}

/// Written out by hand from the two tables of "Multi-level page table structure": V 0, D 1, PLV
/// 3:2, MAT 5:4, G or H 6, P 7, W 8, G of a huge page 12, NR 61, NX 62; software's are 9, 10, 11,
/// 59, 60.
#[test]
fn golden_entries() {
    let uncached = Attr::RW.with_memory(MemoryType::Uncached) | Attr::GLOBAL | Attr::STATUS;
    let wc = Attr::RW.with_memory(MemoryType::WriteCombining) | Attr::STATUS;
    check::<L4>(&[
        // Kernel's code, not used yet: P, MAT 1 (coherent cached).
        (leaf(0x1000, Attr::RX), 12, 0x1090),
        // The same, used: V.
        (leaf(0x1000, Attr::RX | Attr::ACCESSED), 12, 0x1091),
        // Kernel's data, global, written to: V D MAT 1 G P W, NX.
        (leaf(0x1000, Attr::RW | Attr::STATUS | Attr::GLOBAL), 12, 0x4000_0000_0000_11d3),
        // User's data, clean: PLV 3, W without D.
        (leaf(0x1000, Attr::RW | Attr::USER | Attr::ACCESSED), 12, 0x4000_0000_0000_119d),
        // The same, written to: D.
        (leaf(0x1000, Attr::RW | Attr::USER | Attr::STATUS), 12, 0x4000_0000_0000_119f),
        // Dirty and not writable: bit 9, and no D.
        (leaf(0x1000, Attr::READ | Attr::STATUS), 12, 0x4000_0000_0000_1291),
        // A UART: MAT 0, strongly ordered and uncached.
        (leaf(0x1fe0_1000, uncached), 12, 0x4000_0000_1fe0_11c3),
        // A frame buffer: MAT 2, weakly ordered and uncached; H.
        (leaf(0x20_0000, wc), 21, 0x4000_0000_0020_01e3),
        // 1 GiB, global: H, and G in bit 12.
        (leaf(0x4000_0000, Attr::RX | Attr::GLOBAL), 30, 0x4000_10d0),
        // Software's bits.
        (leaf(0x1000, Attr::RX | Attr::SOFT[0]), 12, 0x1890),
        (leaf(0x1000, Attr::RX | Attr::SOFT[1]), 12, 0x0800_0000_0000_1090),
        (leaf(0x1000, Attr::RX | Attr::SOFT[2]), 12, 0x1000_0000_0000_1090),
        // The last frame of 48 bits.
        (leaf(0xffff_ffff_f000, Attr::RX), 12, 0xffff_ffff_f090),
        // PROT_NONE: neither P nor V, bit 10; accessed in 8, dirty in 9; a huge one keeps H.
        (leaf(0x1000, Attr::USER | Attr::STATUS), 12, 0x4000_0000_0000_171c),
        (leaf(0x20_0000, Attr::GLOBAL), 21, 0x4000_0000_0020_1450),
        // Soft entries: from bit 11 on; in a directory with H.
        (Entry::Soft(Soft::new(5).unwrap()), 12, 0x2800),
        (Entry::Soft(Soft::new(5).unwrap()), 21, 0x2840),
        (Entry::Hole, 12, 0),
    ]);
    check::<L16>(&[
        (leaf(0x4000, Attr::RX), 14, 0x4090),
        (leaf(0x200_0000, Attr::RX | Attr::GLOBAL | Attr::ACCESSED), 25, 0x200_10d1),
    ]);
}

/// "Multi-level page table structure": a directory's entry is the address of what is below.
#[test]
fn golden_tables() {
    let pa = PhysAddr::new(0x1234_5000);
    assert_eq!(L4::table_entry(pa, 21, true), 0x1234_5000);
    assert_eq!(L4::table_entry(pa, 21, false), 0x1234_5000);
    assert_eq!(L4::decode(0x1234_5000, 21), Decoded::Table(pa));
    assert_eq!(L16::decode(0x1234_4000, 47), Decoded::Table(PhysAddr::new(0x1234_4000)));
}

#[test]
fn no_node_lies_where_walks_of_holes_go() {
    for pa in [PhysAddr::new(0), PhysAddr::new(1 << 48), PhysAddr::new(1 << 51)] {
        assert_eq!(L4::check_table(pa), Err(Cause::PhysTooWide(pa)));
    }
    assert_eq!(L4::check_table(PhysAddr::new(0xffff_ffff_f000)), Ok(()));
}

/// 7.5.8 and 7.5.9, PWCL and PWCH: fields of five bits and of six, by pairs of start and width.
#[test]
fn walk_controls_describe_the_levels() {
    let pwcl = |word: u32| [0, 5, 10, 15, 20, 25].map(|at| word >> at & 0x1f);
    let pwch = |word: u32| [0, 6, 12, 18].map(|at| word >> at & 0x3f);
    assert_eq!(pwcl(L4::PWCL), [12, 9, 21, 9, 30, 9]);
    assert_eq!(pwch(L4::PWCH), [39, 9, 0, 0]);
    assert_eq!(pwcl(L16::PWCL), [14, 11, 25, 11, 0, 0]);
    assert_eq!(pwch(L16::PWCH), [36, 11, 47, 1]);
    let spans = |levels: &[Level]| levels.iter().map(|level| u32::from(level.bits)).sum::<u32>();
    assert_eq!((spans(L4::LEVELS), spans(L16::LEVELS)), (36, 34), "48 bits with the offset");
    assert_eq!(leaves::<L4>(), 1 << 12 | 1 << 21 | 1 << 30);
    assert_eq!(leaves::<L16>(), 1 << 14 | 1 << 25);
}

#[test]
fn what_loongarch_cannot_express_is_refused() {
    for attr in [
        Attr::WRITE,
        Attr::EXEC,
        Attr::READ.with_key(9),
        Attr::READ.with_memory(MemoryType::WriteThrough),
        Attr::READ.with_memory(MemoryType::UncachedMinus),
        Attr::READ.with_memory(MemoryType::WriteProtect),
        Attr::READ | Attr::MEMORY_MASK,
    ] {
        assert_eq!(L4::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)), "{attr:?}");
    }
    laws::bad_frames_are_refused::<L4>(48);
    laws::bad_frames_are_refused::<L16>(48);
}

#[test]
fn bits_that_mislead_a_walk_are_named() {
    assert!(!L4::has_reserved_bits(0x1234_5000, 21));
    assert!(L4::has_reserved_bits(0x1234_5080, 21), "LDDIR would add the index to that");
    assert!(L4::has_reserved_bits(0x9000_0000_1234_5000, 21));
    assert!(!L4::has_reserved_bits(0x20_10d1, 21));
    for level in [1 << 13, 1 << 14, 1 << 20] {
        assert!(L4::has_reserved_bits(0x20_00d1 | level, 21), "{level:#x}");
    }
    assert!(!L4::has_reserved_bits(0x2840, 21), "a soft entry is no leaf");
    assert!(!L4::has_reserved_bits(u64::MAX, 12));
}

/// Entries of a system that has no hardware walker, and leaves P and W to itself or unset.
#[test]
fn what_only_the_tlb_is_told_is_kept_when_status_goes() {
    let raw = 0x1013; // V D, MAT 1
    let rights = Attr::RWX;
    assert_eq!(L4::decode(raw, 12).entry(), leaf(0x1000, rights | Attr::STATUS));
    assert_eq!(L4::decode(L4::clear_status(raw, Attr::STATUS), 12).entry(), leaf(0x1000, rights));
    let old = L4::clear_status(raw, Attr::ACCESSED);
    assert_eq!(L4::decode(old, 12).entry(), leaf(0x1000, rights | Attr::DIRTY));
    // NR, bit 61: loads trap, fetches do not.
    assert_eq!(L4::decode(1 << 61 | 0x1091, 12).entry(), leaf(0x1000, Attr::EXEC | Attr::ACCESSED));
    // PLV 1 and 2 are not the user's.
    assert_eq!(L4::decode(0x1099, 12).entry(), leaf(0x1000, Attr::RX | Attr::ACCESSED));
}

fn all_laws<F: Format>() {
    laws::leaves_survive::<F>(48);
    laws::soft_values_survive::<F>();
    laws::every_value_decodes::<F>();
    laws::status_is_only_status::<F>(48);
    laws::frames_follow_by_steps::<F>(48);
    laws::links_lead_to_their_nodes::<F>(48);
    laws::the_lowest_level_links_nothing::<F>();
}

#[test]
fn laws_hold_for_4_kib() {
    all_laws::<L4>();
}

#[test]
fn laws_hold_for_16_kib() {
    all_laws::<L16>();
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(256))]

    #[test]
    fn nothing_reaches_a_tlb_but_what_may_be_used(
        bits: u32,
        frame: u64,
        page in prop::sample::select(&[12u8, 21, 30][..]),
    ) {
        let attr = Attr::from_bits(bits).with_key(0).with_memory(MemoryType::WriteBack);
        let pa = PhysAddr::new(frame & FRAME).align_down(page);
        for attr in [attr | Attr::READ, attr - Attr::RWX] {
            let raw = L4::encode(Entry::Leaf(pa, attr), page).unwrap();
            let (valid, stores) = (raw & 1 != 0, raw & 2 != 0);
            prop_assert_eq!(valid, attr.contains(Attr::READ | Attr::ACCESSED));
            prop_assert_eq!(stores, attr.contains(Attr::RW | Attr::DIRTY));
            // A hardware walker raises V and D where P and W say that it may.
            prop_assert_eq!(raw & 0x80 != 0, attr.contains(Attr::READ));
            if attr.contains(Attr::READ) {
                prop_assert_eq!(raw & 0x100 != 0, attr.contains(Attr::WRITE));
            }
            // Nor does status let through what the rights do not.
            let noted = L4::set_status(raw, Attr::STATUS);
            prop_assert_eq!(noted & 1 != 0, attr.contains(Attr::READ));
            prop_assert_eq!(noted & 2 != 0, attr.contains(Attr::RW));
        }
    }
}
