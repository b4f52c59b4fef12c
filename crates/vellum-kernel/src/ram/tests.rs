//! Stretches against a page-by-page count.

use super::*;
use crate::start_info::tests::with_regions;
use proptest::prelude::*;
use std::vec::Vec;

fn spans(stretches: &[Extent]) -> Vec<(u64, u64)> {
    stretches.iter().map(|stretch| (stretch.start(), stretch.end())).collect()
}

#[test]
fn ram_is_sorted_joined_and_rounded_inward() {
    let info =
        with_regions(&[(0x10_0000, 0x5_0000, 1), (0x800, 0x9_f000, 1), (0x14_0000, 0x2_0800, 1)]);
    assert_eq!(spans(&ram(&info, u64::MAX)), [(0x1000, 0x9_f000), (0x10_0000, 0x16_0000)]);
}

#[test]
fn what_is_not_ram_wins_where_they_overlap() {
    let info = with_regions(&[(0x10_0000, 0x10_0000, 1), (0x14_0800, 0x100, 2)]);
    let expected = [(0x10_0000, 0x14_0000), (0x14_1000, 0x20_0000)];
    assert_eq!(spans(&ram(&info, u64::MAX)), expected);
}

#[test]
fn nothing_at_or_above_the_limit_is_taken() {
    let info = with_regions(&[(0x10_0000, 0x10_0000, 1), (0x1_0000_0000, 0x10_0000, 1)]);
    assert_eq!(spans(&ram(&info, 0x18_0800)), [(0x10_0000, 0x18_0000)]);
}

#[test]
fn a_hole_in_the_middle_leaves_both_ends() {
    let all = [Extent::new(0x1000, 0x4000).unwrap()];
    let hole = Extent::new(0x2000, 0x1000).unwrap();
    assert_eq!(spans(&without(&all, hole)), [(0x1000, 0x2000), (0x3000, 0x5000)]);
    let everything = Extent::new(0, 0x10_0000).unwrap();
    assert!(without(&all, everything).is_empty());
}

proptest! {
    #[test]
    fn each_page_is_ram_exactly_if_the_map_says_so(
        regions in prop::collection::vec((0_u64..64, 1_u64..16, 0_u64..3, 1_u32..4), 1..24),
    ) {
        // Region starts and lengths in quarter pages, so that some are not whole.
        let quarters: Vec<_> = regions
            .iter()
            .map(|&(page, pages, odd, kind)| (page * PAGE + odd * PAGE / 4, pages * PAGE, kind))
            .chain([(100 * PAGE, PAGE, 1)])
            .collect();
        let found = ram(&with_regions(&quarters), 128 * PAGE);
        for page in 0..128 {
            let (start, end) = (page * PAGE, (page + 1) * PAGE);
            let touches = |kind_is_ram: bool, from: u64, to: u64| {
                quarters.iter().any(|&(s, len, kind)| {
                    (kind == 1) == kind_is_ram && s < to && from < s + len
                })
            };
            // Every quarter page is in some RAM, and no byte in anything else.
            let all_ram = (0..4).all(|q| {
                touches(true, start + q * PAGE / 4, start + (q + 1) * PAGE / 4)
            });
            let expected = all_ram && !touches(false, start, end);
            let is = found.iter().any(|s| s.start() <= start && end <= s.end());
            prop_assert_eq!(is, expected, "page {}", page);
        }
        for pair in found.windows(2) {
            prop_assert!(pair[0].end() < pair[1].start());
        }
    }
}
