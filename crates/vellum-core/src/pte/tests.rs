use super::*;
use crate::MemoryType;
use proptest::prelude::*;

/// Entries written out by hand from the SDM's tables 5-17, 5-18 and 5-20.
#[test]
fn golden_entries() {
    let at = |pa: u64, attr| Entry::Leaf(PhysAddr::new(pa), attr);
    let uc_user = (Attr::RW | Attr::USER).with_memory(MemoryType::Uncached);
    let wc = Attr::RW.with_memory(MemoryType::WriteCombining);
    for (entry, page, raw) in [
        (at(0x1000, Attr::RX), 12, 0x1001),
        (at(0x1000, Attr::RW | Attr::STATUS), 12, 0x8000_0000_0000_1063),
        (at(0xf_ffff_ffff_f000, uc_user), 12, 0x800f_ffff_ffff_f01f),
        (at(0x20_0000, Attr::RX | Attr::GLOBAL), 21, 0x20_0181),
        (at(0x4000_0000, Attr::READ.with_key(15)), 30, 0xf800_0000_4000_0081),
        (at(0x1000, wc), 12, 0x8000_0000_0000_1083),
        (at(0x20_0000, wc), 21, 0x8000_0000_0020_1083),
        (at(0x1000, Attr::USER), 12, 0x8000_0000_0000_1006),
        (Entry::Hole, 12, 0),
    ] {
        assert_eq!(encode(entry, page), Ok(raw), "{entry:?}");
        assert_eq!(decode(raw, page), entry, "{raw:#x}");
    }
}

#[test]
fn pat_agrees_with_the_table_of_types() {
    // Encodings of IA32_PAT: 00 UC, 01 WC, 04 WT, 05 WP, 06 WB, 07 UC-.
    for index in 0..8u64 {
        let raw = PRESENT | (index & 0b11) << 3 | (index >> 2) << 7;
        let memory = decode_attr(raw, 12).memory().unwrap();
        let byte = PAT >> (8 * index) & 0xff;
        let expected = match byte {
            0x00 => MemoryType::Uncached,
            0x01 => MemoryType::WriteCombining,
            0x04 => MemoryType::WriteThrough,
            0x05 => MemoryType::WriteProtect,
            0x06 => MemoryType::WriteBack,
            0x07 => MemoryType::UncachedMinus,
            other => panic!("{other:#x} is reserved"),
        };
        assert_eq!(memory, expected, "entry {index}");
    }
}

#[test]
fn what_x86_cannot_express_is_refused() {
    for attr in [Attr::WRITE, Attr::EXEC, Attr::WRITE | Attr::USER, Attr::READ | Attr::MEMORY_MASK]
    {
        let leaf = Entry::Leaf(PhysAddr::new(0), attr);
        assert_eq!(encode(leaf, 12), Err(Cause::Unencodable(attr)));
    }
    let wide = PhysAddr::new(1 << 52);
    assert_eq!(encode(Entry::Leaf(wide, Attr::READ), 12), Err(Cause::PhysTooWide(wide)));
    assert_eq!(
        encode(Entry::Leaf(PhysAddr::new(0x1000), Attr::READ), 21),
        Err(Cause::Misaligned { value: 0x1000, page: 21 })
    );
    let soft = Soft::new(1 << 62).unwrap();
    assert_eq!(encode(Entry::Soft(soft), 12), Err(Cause::SoftTooWide(1 << 62)));
}

#[test]
fn only_leaves_that_hardware_may_write_are_not_quiet() {
    let raw = |attr| encode_attr(attr, 12).unwrap();
    assert!(is_quiet(0));
    assert!(is_quiet(raw(Attr::USER)));
    assert!(is_quiet(raw(Attr::READ | Attr::ACCESSED)));
    assert!(is_quiet(raw(Attr::RW | Attr::STATUS)));
    assert!(!is_quiet(raw(Attr::READ)));
    assert!(!is_quiet(raw(Attr::RW | Attr::ACCESSED)));
}

fn pages() -> impl Strategy<Value = u8> {
    prop::sample::select(std::vec![12u8, 21, 30])
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn what_encodes_decodes_to_itself(bits: u32, frame: u64, page in pages()) {
        let pa = PhysAddr::new(frame & FRAME).align_down(page);
        let leaf = Entry::Leaf(pa, Attr::from_bits(bits));
        if let Ok(raw) = encode(leaf, page) {
            prop_assert_eq!(decode(raw, page), leaf);
            prop_assert_eq!(raw & 0x07f0_0000_0000_0000, 0, "bits 58:52 are the table's");
        }
    }

    #[test]
    fn soft_values_survive(value in 1..1u64 << SOFT_BITS, page in pages()) {
        let soft = Entry::Soft(Soft::new(value).unwrap());
        prop_assert_eq!(decode(encode(soft, page).unwrap(), page), soft);
    }

    #[test]
    fn every_value_decodes_and_what_is_kept_encodes_again(raw: u64, page in pages()) {
        let entry = decode(raw, page);
        prop_assert_eq!(encode(entry, page).map(|raw| decode(raw, page)), Ok(entry));
    }
}
