use super::*;
use crate::format::{laws, leaves, node_order};
use proptest::prelude::*;

type K4 = AArch64<12, 48>;
type K16 = AArch64<14, 48>;
type K64 = AArch64<16, 48>;
type Small = AArch64<12, 36>;
type Both = AArch64<12, 48, 2>;

fn leaf(pa: u64, attr: Attr) -> Entry {
    Entry::Leaf(PhysAddr::new(pa), attr)
}

fn check<F: Format>(golden: &[(Entry, u8, u64)]) {
    for &(entry, page, raw) in golden {
        assert_eq!(F::encode(entry, page), Ok(raw), "{entry:?}: {:#x?}", F::encode(entry, page));
        assert_eq!(F::decode(raw, page), Decoded::Entry(entry), "{raw:#x}");
    }
}

/// Written out by hand from D8.3.2 "Page descriptor and block descriptor formats" (D8.3.1 in older
/// issues): kind in 1:0, AttrIndx 4:2, AP 7:6, SH 9:8, AF 10, nG 11, DBM 51, Contiguous 52, PXN 53,
/// UXN 54, software's 58:55.
#[test]
fn golden_entries_of_4_kib() {
    let device = Attr::RW.with_memory(MemoryType::Uncached) | Attr::GLOBAL | Attr::STATUS;
    let wc = Attr::RW.with_memory(MemoryType::WriteCombining) | Attr::STATUS;
    let wt = Attr::READ.with_memory(MemoryType::WriteThrough);
    check::<K4>(&[
        // Kernel's code: UXN; AP 0b10, read-only at EL1, none at EL0.
        (leaf(0x1000, Attr::RX), 12, 0x0040_0000_0000_1b83),
        // The same executable by nobody: PXN as well.
        (leaf(0x1000, Attr::READ), 12, 0x0060_0000_0000_1b83),
        // Kernel's data, used: DBM, AP 0b00, AF; nG clear.
        (leaf(0x1000, Attr::RW | Attr::STATUS | Attr::GLOBAL), 12, 0x0068_0000_0000_1703),
        // User's data, clean (table "dirty state"): DBM with AP 0b11, read-only at both.
        (leaf(0x1000, Attr::RW | Attr::USER), 12, 0x0068_0000_0000_1bc3),
        // The same, written to: AP 0b01, read and write at both.
        (leaf(0x1000, Attr::RW | Attr::USER | Attr::STATUS), 12, 0x0068_0000_0000_1f43),
        // User's code: PXN, UXN clear.
        (leaf(0x1000, Attr::RX | Attr::USER | Attr::ACCESSED), 12, 0x0020_0000_0000_1fc3),
        // Dirty and not writable: software's bit 58, no DBM.
        (leaf(0x1000, Attr::READ | Attr::DIRTY), 12, 0x0460_0000_0000_1b83),
        // A UART: AttrIndx 3, Device-nGnRnE.
        (leaf(0x0900_0000, device), 12, 0x0068_0000_0900_070f),
        // Blocks: bit 1 clear. A frame buffer: AttrIndx 4, Normal non-cacheable.
        (leaf(0x20_0000, wc), 21, 0x0068_0000_0020_0f11),
        // 1 GiB, AttrIndx 1, Normal write-through.
        (leaf(0x4000_0000, wt), 30, 0x0060_0000_4000_0b85),
        // Software's bits 55, 56, 57.
        (leaf(0x1000, Attr::READ | Attr::SOFT[0]), 12, 0x00e0_0000_0000_1b83),
        (leaf(0x1000, Attr::READ | Attr::SOFT[1]), 12, 0x0160_0000_0000_1b83),
        (leaf(0x1000, Attr::READ | Attr::SOFT[2]), 12, 0x0260_0000_0000_1b83),
        // The last frame of 48 bits.
        (leaf(0xffff_ffff_f000, Attr::READ), 12, 0x0060_ffff_ffff_fb83),
        // PROT_NONE: bits 1:0 are 10, of a page and of a block.
        (leaf(0x1000, Attr::USER | Attr::STATUS), 12, 0x0460_0000_0000_1fc2),
        (leaf(0x20_0000, Attr::NONE), 21, 0x0060_0000_0020_0b82),
        // Contiguous: bit 52; sixteen pages, and sixteen blocks of 2 MiB and of 1 GiB.
        (leaf(0x1_0000, Attr::READ | Attr::USER), 16, 0x0070_0000_0001_0bc3),
        (leaf(0x200_0000, Attr::RX), 25, 0x0050_0000_0200_0b81),
        (leaf(0x4_0000_0000, Attr::RX), 34, 0x0050_0004_0000_0b81),
        (Entry::Soft(Soft::new(1).unwrap()), 12, 0x4),
        (Entry::Hole, 12, 0),
    ]);
}

/// As above; for 64 KiB bits 15:12 are an address's 51:48 (`FEAT_LPA`).
#[test]
fn golden_entries_of_16_and_64_kib() {
    check::<K16>(&[
        (leaf(0x4000, Attr::RX), 14, 0x0040_0000_0000_4b83),
        // 128 pages, and 32 blocks, joined.
        (leaf(0x20_0000, Attr::RX), 21, 0x0050_0000_0020_0b83),
        (leaf(0x200_0000, Attr::READ), 25, 0x0060_0000_0200_0b81),
        (leaf(0x4000_0000, Attr::READ), 30, 0x0070_0000_4000_0b81),
    ]);
    check::<K64>(&[
        (leaf(0x1_0000, Attr::RX), 16, 0x0040_0000_0001_0b83),
        (leaf(0xa_1234_5678_0000, Attr::RX), 16, 0x0040_1234_5678_ab83),
        (leaf(0xf_0000_2000_0000, Attr::READ), 29, 0x0060_0000_2000_fb81),
        // 32 pages, and 32 blocks, joined.
        (leaf(0x20_0000, Attr::RX), 21, 0x0050_0000_0020_0b83),
        (leaf(0x4_0000_0000, Attr::RX), 34, 0x0050_0004_0000_0b81),
    ]);
}

/// D8.3.1 "Table descriptor format": kind 0b11, UXNTable 60, APTable 62:61.
#[test]
fn golden_tables() {
    let pa = PhysAddr::new(0x1234_5000);
    assert_eq!(K4::table_entry(pa, 21, true), 0x1234_5003);
    assert_eq!(K4::table_entry(pa, 21, false), 0x3000_0000_1234_5003);
    // A full node, of 512: bits 11:2.
    assert_eq!(K4::decode(0x1234_5003 + (512 << 2), 21), Decoded::Table(pa));
    let far = PhysAddr::new(0xa_1234_5678_0000);
    assert_eq!(K64::table_entry(far, 29, true), 0x1234_5678_a003);
    assert_eq!(K64::check_table(far), Ok(()));
    assert_eq!(K16::check_table(far), Err(Cause::PhysTooWide(far)));
}

/// D8.4.3 "Data accesses permissions": what a table takes from all below it.
#[test]
fn tables_take_rights() {
    let all = Attr::RWX | Attr::USER;
    let rights = |bits: u64| K4::table_rights(0x1234_5003 | bits, 21);
    assert_eq!(rights(0), all);
    assert_eq!(rights(1 << 61), all - Attr::USER);
    assert_eq!(rights(1 << 62), all - Attr::WRITE);
    assert_eq!(rights(0b11 << 59), all - Attr::EXEC);
    assert_eq!(rights(1 << 59), all, "what is the user's executes");
    assert_eq!(rights(1 << 60), all, "what is the kernel's executes");
    assert_eq!(K4::table_rights(K4::table_entry(PhysAddr::new(0), 21, false), 21), Attr::RWX);
}

/// D8.2.x "Translation using the 4KB/16KB/64KB granule": indices by granule and TnSZ.
#[test]
fn levels_are_those_of_the_manual() {
    let shape = |levels: &[Level]| -> std::vec::Vec<(u8, u8, u8)> {
        levels.iter().map(|level| (level.shift, level.bits, level.group)).collect()
    };
    assert_eq!(shape(K4::LEVELS), [(39, 9, 0), (30, 9, 4), (21, 9, 4), (12, 9, 4)]);
    assert_eq!(shape(K16::LEVELS), [(47, 1, 0), (36, 11, 0), (25, 11, 5), (14, 11, 7)]);
    assert_eq!(shape(K64::LEVELS), [(42, 6, 0), (29, 13, 5), (16, 13, 5)]);
    assert_eq!(shape(Small::LEVELS), [(30, 6, 4), (21, 9, 4), (12, 9, 4)]);
    assert_eq!(shape(AArch64::<14, 36>::LEVELS), [(25, 11, 5), (14, 11, 7)]);
    assert_eq!(shape(AArch64::<16, 42>::LEVELS), [(29, 13, 5), (16, 13, 5)]);
    // Two entries of 1 GiB are no group of sixteen.
    assert_eq!(shape(AArch64::<12, 32>::LEVELS), [(30, 2, 0), (21, 9, 4), (12, 9, 4)]);
    assert_eq!(shape(Both::LEVELS), [(39, 10, 0), (30, 9, 4), (21, 9, 4), (12, 9, 4)]);
    assert_eq!(leaves::<K64>(), 1 << 16 | 1 << 21 | 1 << 29 | 1 << 34);
    assert_eq!((K4::TNSZ, Small::TNSZ), (16, 28));
}

/// D8.2 "Translation table base registers": each root is aligned to its size.
#[test]
fn both_halves_are_neighbours() {
    assert_eq!(Both::CANONICAL, Canonical::signed(49));
    assert_eq!(node_order::<Both>(0), 1);
    let root = PhysAddr::new(0x4000_0000);
    assert_eq!(Both::upper_root(root), PhysAddr::new(0x4000_1000));
    // 64 entries each, of 512 bytes.
    assert_eq!(AArch64::<16, 48, 2>::upper_root(root), PhysAddr::new(0x4000_0200));
}

/// D13.2 "MAIR_EL1": Attr<n>, a byte each.
#[test]
fn memory_types_are_those_of_mair() {
    for index in 0..8u64 {
        let Decoded::Entry(Entry::Leaf(_, attr)) = K4::decode(0x783 | index << 2, 12) else {
            panic!("a page");
        };
        let expected = match K4::MAIR >> (8 * index) & 0xff {
            0xff => MemoryType::WriteBack,
            0xbb => MemoryType::WriteThrough,
            0x44 => MemoryType::WriteCombining,
            0x00 => MemoryType::Uncached,
            other => panic!("{other:#x} is not used here"),
        };
        assert_eq!(attr.memory(), Some(expected), "index {index}");
    }
}

#[test]
fn what_arm_cannot_express_is_refused() {
    for attr in [
        Attr::WRITE,
        Attr::EXEC,
        Attr::EXEC | Attr::USER,
        Attr::READ.with_key(1),
        Attr::READ.with_memory(MemoryType::UncachedMinus),
        Attr::READ.with_memory(MemoryType::WriteProtect),
        Attr::READ | Attr::MEMORY_MASK,
    ] {
        assert_eq!(K4::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)), "{attr:?}");
    }
    assert_eq!(K4::encode(leaf(0, Attr::READ), 39), Err(Cause::NoLeaf { page: 39 }));
    assert_eq!(K64::encode(leaf(0, Attr::READ), 42), Err(Cause::NoLeaf { page: 42 }));
    laws::bad_frames_are_refused::<K4>(48);
    laws::bad_frames_are_refused::<K16>(48);
    laws::bad_frames_are_refused::<K64>(52);
}

/// D8.3: 0b01 at the last level, and where a granule has no blocks, is reserved, and invalid.
#[test]
fn reserved_descriptors_are_named_and_are_holes() {
    let block = 0x40_0000_0701;
    for page in [12, 39] {
        assert!(K4::has_reserved_bits(block, page), "2^{page}");
        assert_eq!(K4::decode(block, page), Decoded::Entry(Entry::Hole));
    }
    assert!(K16::has_reserved_bits(block, 36) && K64::has_reserved_bits(block, 42));
    assert!(!K4::has_reserved_bits(block, 21) && !K4::has_reserved_bits(block, 30));
    assert!(!K4::has_reserved_bits(block | 2, 12) && !K4::has_reserved_bits(block & !1, 12));
}

/// Another system's page, writable by AP[2] alone, is written to without notice.
#[test]
fn writable_without_watching_is_dirty_until_watched() {
    let raw = 0x0060_0000_0000_1703;
    let (pa, rights) = (PhysAddr::new(0x1000), Attr::RW | Attr::ACCESSED | Attr::GLOBAL);
    assert_eq!(K4::decode(raw, 12), Decoded::Entry(Entry::Leaf(pa, rights | Attr::DIRTY)));
    let clean = K4::clear_status(raw, Attr::DIRTY);
    assert_eq!(K4::decode(clean, 12), Decoded::Entry(Entry::Leaf(pa, rights)));
    assert_eq!(clean, 0x0068_0000_0000_1783, "DBM and AP[2]: hardware sees the next store");
    assert!(K4::is_quiet(raw) && !K4::is_quiet(clean));
}

/// "Using break-before-make when updating translation table entries": the list, item by item.
#[test]
fn breaks_are_needed_for_what_the_manual_lists() {
    let raw = |pa, attr, page| K4::encode(leaf(pa, attr), page).unwrap();
    let rw = Attr::RW | Attr::USER;
    let old = raw(0x1000, rw, 12);
    for (new, why) in [
        (raw(0x2000, rw, 12), "the output address"),
        (raw(0x1000, rw.with_memory(MemoryType::WriteThrough), 12), "cacheability"),
        (raw(0x1000, rw.with_memory(MemoryType::Uncached), 12), "the memory type"),
        (raw(0x1000, rw | Attr::GLOBAL, 12), "a global entry over others"),
        (old ^ CONTIGUOUS, "the contiguous bit"),
        (old ^ 1 << 8, "shareability"),
    ] {
        assert!(K4::needs_break(old, new, 12) && K4::needs_break(new, old, 12), "{why}");
    }
    let table = K4::table_entry(PhysAddr::new(0x20_0000), 21, true);
    assert!(K4::needs_break(raw(0x20_0000, rw, 21), table, 21), "the block size");
    for new in
        [Attr::READ, Attr::RWX, rw | Attr::STATUS, rw | Attr::SOFT[2], Attr::READ | Attr::DIRTY]
    {
        assert!(!K4::needs_break(old, raw(0x1000, new, 12), 12), "{new:?}");
    }
    let none = raw(0x2000, Attr::NONE, 12);
    for invalid in [0, 4, none, K4::broken(old)] {
        assert!(!K4::needs_break(old, invalid, 12) && !K4::needs_break(invalid, old, 12));
    }
}

fn all_laws<F: Format>(width: u8) {
    laws::leaves_survive::<F>(width);
    laws::soft_values_survive::<F>();
    laws::every_value_decodes::<F>();
    laws::status_is_only_status::<F>(width);
    laws::frames_follow_by_steps::<F>(width);
    laws::links_lead_to_their_nodes::<F>(width);
    laws::the_lowest_level_links_nothing::<F>();
}

#[test]
fn laws_hold_for_4_kib() {
    all_laws::<K4>(48);
    all_laws::<Both>(48);
}

#[test]
fn laws_hold_for_small_roots() {
    all_laws::<Small>(48);
    all_laws::<AArch64<12, 39>>(48);
    all_laws::<AArch64<12, 32>>(48);
}

#[test]
fn laws_hold_for_16_kib() {
    all_laws::<K16>(48);
    all_laws::<AArch64<14, 36>>(48);
}

#[test]
fn laws_hold_for_64_kib() {
    all_laws::<K64>(52);
}

fn groups_are_made_of_their_entries<F: Format>(pa: u64, attr: Attr) {
    for level in F::LEVELS.iter().filter(|level| level.group > 0) {
        let (page, whole) = (level.shift, level.group_shift());
        let pa = PhysAddr::new(pa & LOW_48).align_down(whole);
        let first = F::encode(Entry::Leaf(pa, attr), whole).unwrap();
        assert!(!F::is_grouped(F::encode(Entry::Leaf(pa, attr), page).unwrap(), page));
        for i in 0..1 << level.group {
            let raw = first + i * F::step(whole);
            assert!(F::is_grouped(raw, page), "{raw:#x}");
            assert_eq!(F::decode(raw, whole), Decoded::Entry(Entry::Leaf(pa, attr)));
            let own = Entry::Leaf(pa.wrapping_add(i << page), attr);
            assert_eq!(F::decode(raw, page), Decoded::Entry(own));
            assert_eq!(raw & !F::frame_mask(whole), first & !F::frame_mask(whole));
        }
    }
}

#[test]
fn a_root_too_small_for_a_group_has_none() {
    let raw = 0x0050_0000_4000_0b81;
    assert!(K4::is_grouped(raw, 30));
    assert!(!AArch64::<12, 32>::is_grouped(raw, 30));
    assert!(AArch64::<12, 32>::is_grouped(raw, 21));
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(256))]

    #[test]
    fn any_entry_of_a_group_tells_the_whole(pa: u64, rights in 0usize..4, soft in 0u32..8) {
        let rights = [Attr::NONE, Attr::READ, Attr::RW | Attr::USER, Attr::RX][rights];
        let attr = rights | Attr::from_bits(soft << 9);
        groups_are_made_of_their_entries::<K4>(pa, attr);
        groups_are_made_of_their_entries::<K16>(pa, attr);
        groups_are_made_of_their_entries::<K64>(pa, attr);
    }

    #[test]
    fn a_broken_leaf_is_invalid_quiet_and_known(
        raw: u64,
        page in prop::sample::select(&[12u8, 16, 21, 25, 30][..]),
    ) {
        let kind = if page < 21 { 3 } else { 1 };
        let raw = raw & !3 | kind;
        let broken = K4::broken(raw);
        prop_assert_eq!(broken & 1, 0, "hardware does not use it");
        prop_assert_eq!(K4::decode(broken, page), K4::decode(raw, page));
        prop_assert!(K4::is_broken(broken) && !K4::is_broken(raw) && K4::is_quiet(broken));
        prop_assert_eq!(K4::broken(broken), broken);
    }

    #[test]
    fn what_decodes_encodes_again(raw: u64, page in prop::sample::select(&[12u8, 21, 30][..])) {
        let entry = K4::decode(raw, page).entry();
        let again = K4::encode(entry, page).map(|raw| K4::decode(raw, page).entry());
        prop_assert_eq!(again, Ok(entry));
    }

    #[test]
    fn unbroken_leaves_do_not_look_broken(pa: u64, bits: u32) {
        let attr = Attr::from_bits(bits).with_key(0).with_memory(MemoryType::WriteBack);
        let pa = PhysAddr::new(pa & LOW_48).align_down(12);
        for attr in [attr | Attr::READ, attr - Attr::RWX] {
            let raw = K4::encode(Entry::Leaf(pa, attr), 12).unwrap();
            prop_assert!(!K4::is_broken(raw));
        }
    }
}
