//! Entries written out by hand from the manual, and the laws of every format.

use super::*;
use crate::format::{laws, leaves};
use vellum_core::{MemoryType, Scope, Soft};

const RWX: Attr = Attr::RWX;
const RX: Attr = Attr::RX;

fn leaf(pa: u64, attr: Attr) -> Entry {
    Entry::Leaf(PhysAddr::new(pa), attr)
}

fn soft(value: u64) -> Entry {
    Entry::Soft(Soft::new(value).expect("not 0"))
}

/// Each entry encodes to these bits, and they to it.
fn check<F: Format>(entries: &[(Entry, u8, u64)]) {
    for &(entry, page, raw) in entries {
        assert_eq!(F::encode(entry, page), Ok(raw), "{entry:?}");
        assert_eq!(F::decode(raw, page), Decoded::Entry(entry), "{raw:#x}");
        assert!(!F::has_reserved_bits(raw, page), "{raw:#x}");
    }
}

#[test]
fn entries_of_two_levels_are_as_the_manual_has_them() {
    let of = |memory| RX.with_memory(memory);
    check::<X86>(&[
        // Table 5-6, "Format of a 32-Bit Page-Table Entry": P 0, R/W 1, U/S 2, PWT 3, PCD 4, A 5,
        // D 6, PAT 7, G 8, and the frame from 12 on.
        (leaf(0x1234_5000, RX), 12, 0x1234_5001),
        (leaf(0x1234_5000, RWX), 12, 0x1234_5003),
        (leaf(0x1234_5000, RX | Attr::USER), 12, 0x1234_5005),
        (leaf(0x1234_5000, RX | Attr::ACCESSED), 12, 0x1234_5021),
        (leaf(0x1234_5000, RWX | Attr::STATUS), 12, 0x1234_5063),
        (leaf(0x1234_5000, RX | Attr::GLOBAL), 12, 0x1234_5101),
        (leaf(0xffff_f000, RX), 12, 0xffff_f001),
        // Bits 11:9 are ignored.
        (leaf(0x1000, RX | Attr::SOFT[0]), 12, 0x1201),
        (leaf(0x1000, RX | Attr::SOFT[1]), 12, 0x1401),
        (leaf(0x1000, RX | Attr::SOFT[2]), 12, 0x1801),
        // 5.9.2: PAT, PCD and PWT index the PAT; as vellum_core::pte::PAT has it.
        (leaf(0x1000, of(MemoryType::WriteThrough)), 12, 0x1009),
        (leaf(0x1000, of(MemoryType::UncachedMinus)), 12, 0x1011),
        (leaf(0x1000, of(MemoryType::Uncached)), 12, 0x1019),
        (leaf(0x1000, of(MemoryType::WriteCombining)), 12, 0x1081),
        (leaf(0x1000, of(MemoryType::WriteProtect)), 12, 0x1089),
        // Table 5-4, "Format of a 32-Bit Page-Directory Entry that Maps a 4-MByte Page": PS 7, PAT 12,
        // bits 39:32 of the address in 20:13, and 31:22 in their place.
        (leaf(0x0040_0000, RWX), 22, 0x0040_0083),
        (leaf(0x0040_0000, RX | Attr::GLOBAL), 22, 0x0040_0181),
        (leaf(0x0040_0000, of(MemoryType::WriteCombining)), 22, 0x0040_1081),
        (leaf(0x1_0040_0000, RX), 22, 0x0040_2081),
        (leaf(0x80_0000_0000, RX), 22, 0x0010_0081),
        (leaf(0xff_ffc0_0000, RWX), 22, 0xffdf_e083),
        // Ours: not present, with R/W; a value above two zeros.
        (leaf(0x1000, Attr::NONE), 12, 0x1002),
        (leaf(0x40_0000, Attr::USER | Attr::DIRTY), 22, 0x40_00c6),
        (soft((1 << 30) - 1), 12, 0xffff_fffc),
        (soft(1), 12, 4),
        (Entry::Hole, 12, 0),
    ]);
}

#[test]
fn entries_of_pae_are_as_the_manual_has_them() {
    const XD: u64 = 1 << 63;
    let of = |memory| RX.with_memory(memory);
    check::<X86Pae>(&[
        // Table 5-11, "Format of a PAE Page-Table Entry that Maps a 4-KByte Page": as above, the frame
        // in M-1:12, XD 63.
        (leaf(0x1234_5000, Attr::READ), 12, XD | 0x1234_5001),
        (leaf(0x1234_5000, Attr::RW), 12, XD | 0x1234_5003),
        (leaf(0x1234_5000, RX), 12, 0x1234_5001),
        (leaf(0x1234_5000, RWX | Attr::USER), 12, 0x1234_5007),
        (leaf(0x1000, Attr::READ | Attr::STATUS), 12, XD | 0x1061),
        (leaf(0x1000, RX | Attr::GLOBAL), 12, 0x1101),
        (leaf(0x1000, RX | Attr::SOFT[2]), 12, 0x1801),
        (leaf(0x1000, of(MemoryType::WriteThrough)), 12, 0x1009),
        (leaf(0x1000, of(MemoryType::WriteCombining)), 12, 0x1081),
        (leaf(0x000f_ffff_ffff_f000, RX), 12, 0x000f_ffff_ffff_f001),
        // Table 5-9, "Format of a PAE Page-Directory Entry that Maps a 2-MByte Page": PS 7, PAT 12.
        (leaf(0x0020_0000, Attr::RW), 21, XD | 0x0020_0083),
        (leaf(0x7_0020_0000, of(MemoryType::WriteCombining)), 21, 0x7_0020_1081),
        (leaf(0x1000, Attr::NONE), 12, XD | 0x1002),
        (soft((1 << 62) - 1), 12, !3),
        (Entry::Hole, 21, 0),
    ]);
}

/// Tables 5-5, 5-10 (page tables) and 5-8 (page directories of PAE).
#[test]
fn links_are_as_the_manual_has_them() {
    let node = PhysAddr::new(0x1234_5000);
    assert_eq!(X86::table_entry(node, 22, true), 0x1234_5027);
    assert_eq!(X86::table_entry(node, 22, false), 0x1234_5023);
    let high = PhysAddr::new(0x6_1234_5000);
    assert_eq!(X86Pae::table_entry(high, 21, true), 0x6_1234_5027);
    assert_eq!(X86Pae::table_entry(high, 21, false), 0x6_1234_5023);
    for user in [false, true] {
        assert_eq!(X86Pae::table_entry(high, 30, user), 0x6_1234_5001);
    }
    assert_eq!(X86::decode(0x1234_5027, 22), Decoded::Table(node));
    assert_eq!(X86Pae::decode(0x6_1234_5001, 30), Decoded::Table(high));
    // PS is reserved in the root, and leads nowhere else.
    assert_eq!(X86Pae::decode(0x6_1234_5081, 30), Decoded::Table(high));
    assert_eq!(X86::check_table(PhysAddr::new(0xffff_f000)), Ok(()));
    let above = PhysAddr::new(1 << 32);
    assert_eq!(X86::check_table(above), Err(Cause::PhysTooWide(above)));
    assert_eq!(X86Pae::check_table(above), Ok(()));
}

#[test]
fn rights_of_links_are_taken_as_they_are_found() {
    assert_eq!(X86::table_rights(0x1025, 22), RX | Attr::USER);
    assert_eq!(X86::table_rights(0x1023, 22), RWX);
    assert_eq!(X86Pae::table_rights(1 << 63 | 0x1027, 21), Attr::RW | Attr::USER);
    assert_eq!(X86Pae::table_rights(0x1001, 30), RWX | Attr::USER);
}

#[test]
fn reserved_bits_are_those_of_the_manual() {
    // Table 5-4: bit 21 of a 4 MiB page, and of nothing else.
    assert!(X86::has_reserved_bits(0x0060_0081, 22));
    assert!(!X86::has_reserved_bits(0x0060_0001, 22) && !X86::has_reserved_bits(0x0020_0081, 12));
    // Table 5-8: 2:1, 8:5 and 63:M.
    for bit in [1, 2, 5, 6, 7, 8, 52, 62, 63] {
        assert!(X86Pae::has_reserved_bits(0x1001 | 1 << bit, 30), "{bit}");
    }
    for bit in [3, 4, 9, 10, 11] {
        assert!(!X86Pae::has_reserved_bits(0x1001 | 1 << bit, 30), "{bit}");
    }
    // Tables 5-9 to 5-11: 62:M, where 4-level paging has a key; 20:13 of a large page.
    for bit in [52, 59, 62] {
        assert!(X86Pae::has_reserved_bits(0x1001 | 1 << bit, 12), "{bit}");
        assert!(X86Pae::has_reserved_bits(0x0020_0081 | 1 << bit, 21), "{bit}");
        assert!(!X86Pae::has_reserved_bits(0x1002 | 1 << bit, 12), "not present");
    }
    for bit in [13, 20] {
        assert!(X86Pae::has_reserved_bits(0x0020_0081 | 1 << bit, 21), "{bit}");
        assert!(!X86Pae::has_reserved_bits(0x0020_0001 | 1 << bit, 21), "a link");
    }
    assert!(!X86Pae::has_reserved_bits(0x0020_1081, 21), "PAT");
    // Where there is no key none is found, and an entry of 32 bits ends there.
    assert_eq!(X86Pae::decode(0b1001 << 59 | 0x1001, 12).entry(), leaf(0x1000, RX));
    assert_eq!(X86::decode(0x8800_0000_0000_1001, 12).entry(), leaf(0x1000, RX));
    assert_eq!(X86::decode(1 << 32, 12).entry(), Entry::Hole);
}

/// Whether each of these attributes is refused by name.
fn refuses<F: Format>(attrs: &[Attr]) {
    for &attr in attrs {
        assert_eq!(F::encode(leaf(0, attr), 12), Err(Cause::Unencodable(attr)));
    }
}

#[test]
fn what_there_are_no_bits_for_is_refused() {
    let nameless = RX | Attr::from_bits(Attr::MEMORY_MASK.bits());
    refuses::<X86>(&[Attr::READ, Attr::RW, Attr::EXEC, Attr::WRITE, Attr::WRITE | Attr::EXEC]);
    refuses::<X86>(&[RX.with_key(1), Attr::NONE.with_key(15), nameless]);
    refuses::<X86Pae>(&[Attr::WRITE, Attr::EXEC, RX.with_key(1), Attr::NONE.with_key(15)]);
    // Above 4 GiB there are large pages only, up to 1 TiB.
    for (pa, page) in [(1 << 32, 12), (1 << 40, 22)] {
        let refused = Err(Cause::PhysTooWide(PhysAddr::new(pa)));
        assert_eq!(X86::encode(leaf(pa, RX), page), refused);
    }
    let value = 1 << 30;
    assert_eq!(X86::encode(soft(value), 12), Err(Cause::SoftTooWide(value)));
}

#[test]
fn spaces_and_leaves_are_those_of_the_manual() {
    for levels in [X86::LEVELS, X86Pae::LEVELS] {
        assert_eq!(levels[0].span(), 32);
    }
    assert_eq!(leaves::<X86>(), 1 << 22 | 1 << 12);
    assert_eq!(leaves::<X86Pae>(), 1 << 21 | 1 << 12);
    assert_eq!(X86Pae::CANONICAL, Canonical::unsigned(32));
}

/// 5.4.1: the processor has copies of the root's entries, and of no others.
#[test]
fn only_the_root_of_pae_owes_a_reload() {
    assert_eq!([30, 21, 12].map(X86Pae::fresh), [Some(Scope::Tables), None, None]);
    assert_eq!([22, 12].map(X86::fresh), [None, None]);
}

/// A frame above 4 GiB keeps what is outside of the mask while steps stay within it.
#[test]
fn large_frames_above_4_gib_follow_by_steps_too() {
    let at = |pa| X86::encode(leaf(pa, RX), 22).expect("below 1 TiB");
    let first = at(0x5_0000_0000);
    assert_eq!(first + 3 * X86::step(22), at(0x5_00c0_0000));
    assert_eq!(first & X86::frame_mask(22), 0);
    assert_ne!(first & !X86::frame_mask(22), at(0) & !X86::frame_mask(22));
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
fn laws_hold_for_two_levels() {
    all_laws::<X86>(32);
}

#[test]
fn laws_hold_for_pae() {
    all_laws::<X86Pae>(52);
    laws::bad_frames_are_refused::<X86Pae>(52);
}
