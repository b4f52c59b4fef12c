//! Entries written out by hand from the manual, and the laws of every format.

use super::*;
use crate::format::{laws, leaves};
use proptest::prelude::*;
use std::vec;

type Sv39 = RiscV<3>;
type Sv48 = RiscV<4>;
type Sv57 = RiscV<5>;
/// Without any extension.
type Bare = RiscV<3, 0>;

const RW: Attr = Attr::RW;

fn leaf(pa: u64, attr: Attr) -> Entry {
    Entry::Leaf(PhysAddr::new(pa), attr)
}

fn soft(value: u64) -> Entry {
    Entry::Soft(Soft::new(value).expect("not 0"))
}

/// Entries, the log2 of their size, and their bits, each from the section that is named beside it.
const WIDE: [(Entry, u8, u64); 20] = {
    const fn leaf(pa: u64, attr: Attr) -> Entry {
        Entry::Leaf(PhysAddr::new(pa), attr)
    }
    const READ: Attr = Attr::READ;
    const NC: MemoryType = MemoryType::WriteCombining;
    const IO: MemoryType = MemoryType::Uncached;
    [
        // "Sv32 page table entry": V is bit 0, R 1, W 2, X 3; the PPN begins at bit 10.
        (leaf(0x8000_0000, READ), 12, 0x2000_0003),
        (leaf(0x8000_0000, RW), 12, 0x2000_0007),
        (leaf(0x8000_0000, Attr::RX), 12, 0x2000_000b),
        (leaf(0x8000_0000, Attr::RWX), 12, 0x2000_000f),
        // "Encoding of PTE R/W/X fields": execute-only is 1, 0, 0.
        (leaf(0x1000, Attr::EXEC), 12, 0x0000_0409),
        // U is bit 4, G 5, A 6, D 7.
        (leaf(0x1000, Attr::from_bits(READ.bits() | Attr::USER.bits())), 12, 0x0000_0413),
        (leaf(0x1000, Attr::from_bits(READ.bits() | Attr::GLOBAL.bits())), 12, 0x0000_0423),
        (leaf(0x1000, Attr::from_bits(READ.bits() | Attr::ACCESSED.bits())), 12, 0x0000_0443),
        (leaf(0x1000, Attr::from_bits(RW.bits() | Attr::DIRTY.bits())), 12, 0x0000_0487),
        // RSW: bits 9:8.
        (leaf(0x1000, Attr::from_bits(READ.bits() | Attr::SOFT[0].bits())), 12, 0x0000_0503),
        (leaf(0x1000, Attr::from_bits(READ.bits() | Attr::SOFT[1].bits())), 12, 0x0000_0603),
        // "Sv39 page table entry": the PPN is bits 53:10. The last frame there is.
        (leaf(0x00ff_ffff_ffff_f000, READ), 12, 0x003f_ffff_ffff_fc03),
        // Any level may hold a leaf: a megapage, a gigapage.
        (leaf(0x4020_0000, RW), 21, 0x1008_0007),
        (leaf(0x4000_0000, RW), 30, 0x1000_0007),
        // "Svpbmt": bits 62:61, 1 is NC, 2 is IO.
        (leaf(0x1000, READ.with_memory(NC)), 12, 0x2000_0000_0000_0403),
        (leaf(0x1000, READ.with_memory(IO)), 12, 0x4000_0000_0000_0403),
        // "Svnapot": N is bit 63, and 64 KiB are ppn[0] = x xxxx 1000.
        (leaf(0x1_0000, RW), 16, 0x8000_0000_0000_6007),
        // Ours: not valid, with R, and the rest as it was.
        (leaf(0x1000, Attr::NONE), 12, 0x0000_0402),
        (leaf(0x1_0000, Attr::USER), 16, 0x8000_0000_0000_6012),
        (Entry::Hole, 12, 0),
    ]
};

#[test]
fn entries_are_as_the_manual_has_them() {
    for (entry, page, raw) in WIDE {
        assert_eq!(Sv57::encode(entry, page), Ok(raw), "{entry:?}");
        assert_eq!(Sv57::decode(raw, page), Decoded::Entry(entry), "{raw:#x}");
        assert!(!Sv57::has_reserved_bits(raw, if page == 16 { 12 } else { page }), "{raw:#x}");
    }
    assert_eq!(Sv57::encode(soft(5), 12), Ok(0x14));
}

/// The same, of 32 bits: "Sv32 page table entry", PPN in bits 31:10.
#[test]
fn narrow_entries_are_as_the_manual_has_them() {
    let all = Attr::RWX | Attr::USER | Attr::GLOBAL | Attr::STATUS | Attr::SOFT[0] | Attr::SOFT[1];
    for (entry, page, raw) in [
        (leaf(0x8000_0000, Attr::READ), 12, 0x2000_0003),
        (leaf(0x8000_0000, RW), 12, 0x2000_0007),
        (leaf(0x1000, Attr::RX | Attr::USER), 12, 0x41b),
        (leaf(0x1000, Attr::EXEC), 12, 0x409),
        (leaf(0x1000, Attr::READ | Attr::GLOBAL), 12, 0x423),
        (leaf(0x1000, RW | Attr::ACCESSED), 12, 0x447),
        (leaf(0x1000, RW | Attr::STATUS), 12, 0x4c7),
        (leaf(0x1000, all), 12, 0x7ff),
        // 34 bits of physical address: the last page, and the last megapage of 4 MiB.
        (leaf(0x3_ffff_f000, Attr::READ), 12, 0xffff_fc03),
        (leaf(0x3_ffc0_0000, RW), 22, 0xfff0_0007),
        (leaf(0x1000, Attr::NONE), 12, 0x402),
        (leaf(0x40_0000, Attr::NONE | Attr::DIRTY), 22, 0x10_0082),
        (soft((1 << 30) - 1), 12, 0xffff_fffc),
        (soft(1), 22, 4),
        (Entry::Hole, 12, 0),
    ] {
        assert_eq!(Sv32::encode(entry, page), Ok(raw), "{entry:?}");
        assert_eq!(Sv32::decode(raw, page), Decoded::Entry(entry), "{raw:#x}");
        assert!(!Sv32::has_reserved_bits(raw, page), "{raw:#x}");
    }
}

/// "A PTE with R, W and X 0 points to the next level"; D, A and U are to be 0 there.
#[test]
fn links_are_as_the_manual_has_them() {
    let node = PhysAddr::new(0x8020_1000);
    for user in [false, true] {
        assert_eq!(Sv48::table_entry(node, 39, user), 0x2008_0401);
        assert_eq!(Sv32::table_entry(node, 22, user), 0x2008_0401);
    }
    assert_eq!(Sv48::decode(0x2008_0401, 39), Decoded::Table(node));
    for bit in [USER, ACCESSED, DIRTY, NAPOT, 1 << 61, 1 << 54] {
        assert!(Sv48::has_reserved_bits(0x2008_0401 | bit, 39), "{bit:#x}");
    }
    assert!(!Sv48::has_reserved_bits(0x2008_0401 | GLOBAL, 39));
    // On the lowest level it faults, and leads nowhere.
    assert_eq!(Sv48::decode(0x2008_0401, 12).entry(), leaf(0x8020_1000, Attr::NONE));
    assert!(Sv48::has_reserved_bits(0x2008_0401, 12) && Sv32::has_reserved_bits(0x401, 12));
    assert!(Sv32::check_table(PhysAddr::new(1 << 34)).is_err());
    assert!(Sv39::check_table(PhysAddr::new(1 << 56)).is_err());
    assert!(Sv39::check_table(PhysAddr::new((1 << 56) - 4096)).is_ok());
}

/// What the manual reserves: hardware faults, so that nothing is granted.
#[test]
fn reserved_entries_grant_nothing() {
    // W without R: 0x5, with X: 0xd.
    for raw in [0x405, 0x40d] {
        assert_eq!(Sv39::decode(raw, 12).entry(), leaf(0x1000, Attr::NONE));
        assert!(Sv39::has_reserved_bits(raw, 12) && Sv32::has_reserved_bits(raw, 12));
    }
    // A misaligned superpage; a memory type of 3; an N where none may be, or with another end.
    assert!(Sv39::has_reserved_bits(0x403, 21) && Sv32::has_reserved_bits(0x403, 22));
    assert!(Sv39::has_reserved_bits(0x6000_0000_0000_0403, 12));
    assert!(Sv39::has_reserved_bits(0x8000_0000_0008_0003, 21));
    assert!(Sv39::has_reserved_bits(0x8000_0000_0000_1007, 12));
    // What an extension adds is reserved without it.
    assert!(Bare::has_reserved_bits(0x2000_0000_0000_0403, 12));
    assert!(Bare::has_reserved_bits(0x8000_0000_0000_6007, 12));
    assert!(!Bare::is_grouped(0x8000_0000_0000_6007, 12));
    // Not valid: hardware looks at nothing else.
    assert!(!Sv39::has_reserved_bits(0x6000_0000_0000_0402, 12));
}

#[test]
fn what_there_are_no_bits_for_is_refused() {
    let third = Attr::READ | Attr::SOFT[2];
    let mut lacking = vec![Attr::WRITE, Attr::WRITE | Attr::EXEC, third, Attr::READ.with_key(1)];
    lacking.extend(
        [MemoryType::WriteThrough, MemoryType::UncachedMinus, MemoryType::WriteProtect]
            .map(|memory| Attr::READ.with_memory(memory)),
    );
    let narrow = [MemoryType::Uncached, MemoryType::WriteCombining];
    for attr in lacking {
        assert_eq!(Sv39::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)));
        assert_eq!(Sv32::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)));
    }
    for attr in narrow.map(|memory| Attr::READ.with_memory(memory)) {
        assert_eq!(Bare::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)));
        assert_eq!(Sv32::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)));
        assert!(Sv39::encode(leaf(0, attr), 12).is_ok());
    }
}

#[test]
fn spaces_and_leaves_are_those_of_the_manual() {
    let span = |levels: &[Level]| levels[0].span();
    assert_eq!(span(Sv39::LEVELS), 39);
    assert_eq!(span(Sv48::LEVELS), 48);
    assert_eq!(span(Sv57::LEVELS), 57);
    assert_eq!(span(Sv32::LEVELS), 32);
    assert_eq!(Sv48::CANONICAL, Canonical::signed(48));
    assert_eq!(leaves::<Sv39>(), 1 << 30 | 1 << 21 | 1 << 16 | 1 << 12);
    assert_eq!(leaves::<Bare>(), 1 << 30 | 1 << 21 | 1 << 12);
    assert_eq!(leaves::<Sv32>(), 1 << 22 | 1 << 12);
    assert_eq!(leaves::<Sv57>() ^ leaves::<Sv48>(), 1 << 48);
}

#[test]
fn a_fence_is_owed_unless_the_extension_spares_it() {
    assert_eq!(Sv39::fresh(12), Some(Scope::Fresh));
    assert_eq!(Sv32::fresh(22), Some(Scope::Fresh));
    assert_eq!(<RiscV<3, { RVA23 | SVVPTC }>>::fresh(12), None);
}

#[test]
fn a_group_is_sixteen_equal_entries() {
    let attr = RW | Attr::USER;
    let raw = Sv39::encode(leaf(0x7_0000, attr), 16).expect("a group");
    assert_eq!(Sv39::step(16), 0);
    assert!(Sv39::is_grouped(raw, 12));
    assert_eq!(Sv39::decode(raw, 16).entry(), leaf(0x7_0000, attr));
    assert_eq!(Sv39::decode(raw, 12).entry(), leaf(0x7_0000, attr), "the whole of it");
    // A page that happens to be the ninth of 16, and a soft value with that bit.
    let ninth = Sv39::encode(leaf(0x7_8000, attr), 12).expect("a page");
    assert_eq!(ninth, raw & !NAPOT);
    assert!(!Sv39::is_grouped(ninth, 12) && !Sv39::is_grouped(raw, 21));
    let value = (NAPOT | NAPOT_ENDS) >> SOFT_SHIFT;
    assert!(!Sv39::is_grouped(Sv39::encode(soft(value), 12).expect("a value"), 12));
    // Without any right it is a group still.
    assert!(Sv39::is_grouped(Sv39::encode(leaf(0x7_0000, Attr::NONE), 16).expect("a group"), 12));
}

fn all_laws<F: Format>(width: u8) {
    laws::leaves_survive::<F>(width);
    laws::soft_values_survive::<F>();
    laws::every_value_decodes::<F>();
    laws::status_is_only_status::<F>(width);
    laws::frames_follow_by_steps::<F>(width);
    laws::links_lead_to_their_nodes::<F>(width);
    laws::the_lowest_level_links_nothing::<F>();
    laws::bad_frames_are_refused::<F>(width);
}

#[test]
fn laws_hold_for_wide_entries() {
    all_laws::<Sv39>(56);
    all_laws::<Sv57>(56);
    all_laws::<Bare>(56);
}

#[test]
fn laws_hold_for_narrow_entries() {
    all_laws::<Sv32>(34);
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(512))]

    /// What hardware would use is what the entry grants.
    #[test]
    fn an_entry_is_valid_where_it_grants_something(bits: u32, frame in 0u64..1 << 44) {
        let attr = Attr::from_bits(bits).with_key(0) - Attr::SOFT[2] - Attr::MEMORY_MASK;
        if let Ok(raw) = Sv39::encode(leaf(frame << 12, attr), 12) {
            prop_assert_eq!(raw & VALID != 0, attr.intersects(Attr::RX));
            prop_assert!(!is_link(raw) && !Sv39::has_reserved_bits(raw, 12));
        } else {
            prop_assert!(attr.contains(Attr::WRITE) && !attr.contains(Attr::READ));
        }
    }
}
