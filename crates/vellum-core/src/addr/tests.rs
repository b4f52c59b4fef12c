use super::*;
use proptest::prelude::*;

#[test]
fn the_last_page_is_a_range() {
    let top = VirtAddr::new(0xffff_ffff_ffff_f000);
    assert_eq!(Canonical::signed(48).check(top, PAGE_SIZE, PAGE_SHIFT), Ok(()));
    assert_eq!(
        Canonical::signed(48).check(top, 2 * PAGE_SIZE, PAGE_SHIFT),
        Err(Cause::Wraps { va: top, len: 2 * PAGE_SIZE })
    );
}

#[test]
fn a_range_across_the_hole_names_the_first_bad_address() {
    let va = VirtAddr::new(0x7fff_ffff_f000);
    let first_bad = Cause::NonCanonical(VirtAddr::new(0x8000_0000_0000));
    let check = |len| Canonical::signed(48).check(va, len, PAGE_SHIFT);
    assert_eq!(check(PAGE_SIZE), Ok(()));
    assert_eq!(check(2 * PAGE_SIZE), Err(first_bad));
    // From the lower half into the upper one: both ends are canonical, the middle is not.
    assert_eq!(check(0xffff_8000_0000_0000), Err(first_bad));
}

#[test]
fn unsigned_spaces_end_where_their_bits_end() {
    let space = Canonical::unsigned(32);
    assert!(space.contains(VirtAddr::new(0xffff_ffff)));
    assert!(!space.contains(VirtAddr::new(0x1_0000_0000)));
    assert!(!space.contains(VirtAddr::new(u64::MAX)));
    assert_eq!(space.check(VirtAddr::new(0), 1 << 32, PAGE_SHIFT), Ok(()));
    assert_eq!(
        space.check(VirtAddr::new(0), (1 << 32) + PAGE_SIZE, PAGE_SHIFT),
        Err(Cause::NonCanonical(VirtAddr::new(1 << 32)))
    );
}

#[test]
fn sixty_four_bits_hold_everything() {
    for space in [Canonical::signed(64), Canonical::unsigned(64)] {
        assert!(space.contains(VirtAddr::new(0)));
        assert!(space.contains(VirtAddr::new(u64::MAX)));
        assert!(space.contains(VirtAddr::new(1 << 63)));
        let across = VirtAddr::new((1 << 63) - PAGE_SIZE);
        assert_eq!(space.check(across, 2 * PAGE_SIZE, PAGE_SHIFT), Ok(()));
    }
}

#[test]
fn halves_are_all_there_is() {
    let upper = |bits: u8| VirtAddr::new((1u64 << (bits - 1)).wrapping_neg());
    for (space, second) in [
        (Canonical::signed(48), upper(48)),
        (Canonical::signed(64), upper(64)),
        (Canonical::unsigned(64), upper(64)),
        (Canonical::unsigned(32), VirtAddr::new(1 << 31)),
    ] {
        let [lower, higher] = space.halves();
        assert_eq!((lower.0, higher.0), (VirtAddr::new(0), second));
        for (va, len) in [lower, higher] {
            assert_eq!(space.check(va, len, PAGE_SHIFT), Ok(()), "{va}");
        }
    }
}

#[test]
fn an_empty_range_is_checked_by_its_start() {
    let space = Canonical::signed(48);
    assert_eq!(space.check(VirtAddr::new(0x1000), 0, PAGE_SHIFT), Ok(()));
    let hole = VirtAddr::new(1 << 50);
    assert_eq!(space.check(hole, 0, PAGE_SHIFT), Err(Cause::NonCanonical(hole)));
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn canonical_means_sign_extended(raw: u64, bits in 13u8..=64) {
        let shift = 64 - u32::from(bits);
        let extended = ((raw << shift).cast_signed() >> shift).cast_unsigned();
        prop_assert_eq!(Canonical::signed(bits).contains(VirtAddr::new(raw)), extended == raw);
        prop_assert_eq!(Canonical::signed(bits).extend(raw), VirtAddr::new(extended));
        let cut = (raw << shift) >> shift;
        prop_assert_eq!(Canonical::unsigned(bits).extend(raw), VirtAddr::new(cut));
        prop_assert_eq!(Canonical::unsigned(bits).contains(VirtAddr::new(raw)), cut == raw);
    }

    #[test]
    fn alignment_brackets_the_address(raw: u64, log2 in 0u8..64) {
        let pa = PhysAddr::new(raw);
        let down = pa.align_down(log2);
        prop_assert!(down <= pa && down.is_aligned(log2));
        match pa.align_up(log2) {
            Some(up) => {
                prop_assert!(up >= pa && up.is_aligned(log2));
                prop_assert!(up.as_u64() - down.as_u64() <= 1 << log2);
            }
            None => prop_assert!(u128::from(raw) + (1u128 << log2) > u128::from(u64::MAX)),
        }
    }
}
