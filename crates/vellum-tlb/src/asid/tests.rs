//! Identifiers by themselves: never two spaces' at once, never used with another's leftovers.

mod properties;

use super::{AsidTag, Global, Load, Recent, Slots, SpaceId, Stale, Tags, TooFew, Turn};
use core::num::NonZeroU64;
use std::vec::Vec;
use vellum_core::Asid;

fn space(number: u64) -> SpaceId {
    SpaceId(NonZeroU64::new(number + 1).unwrap())
}

fn turn(number: u64, generation: u64) -> Turn {
    Turn { space: space(number), generation, left: None }
}

fn asid(n: u16) -> Asid {
    Asid::new(n).unwrap()
}

#[test]
fn a_space_that_comes_back_to_its_slot_is_stale_only_if_it_has_changed() {
    let mut slots = Slots::<6>::new(12, false);
    let first = slots.load(turn(0, 4));
    assert_eq!(first, Load { tags: Tags { kernel: asid(1), user: None }, stale: Stale::Tags });
    assert_eq!(slots.load(turn(1, 0)).tags.kernel, asid(2));
    assert_eq!(slots.load(turn(0, 4)), Load { stale: Stale::Nothing, ..first });
    assert_eq!(slots.load(turn(0, 5)), Load { stale: Stale::Tags, ..first });
    // What was seen while it was loaded counts.
    let _ = slots.load(Turn { left: Some((space(0), 9)), ..turn(1, 0) });
    assert_eq!(slots.load(turn(0, 9)).stale, Stale::Nothing);
    assert_eq!(slots.load(turn(0, 10)).stale, Stale::Tags);
}

#[test]
fn the_slot_that_was_not_used_for_longest_is_taken_over_and_flushed() {
    let mut slots = Slots::<3>::new(12, false);
    for number in [0, 1, 2, 0] {
        let _ = slots.load(turn(number, 0));
    }
    let taken = slots.load(turn(3, 0));
    assert_eq!(taken, Load { tags: Tags { kernel: asid(2), user: None }, stale: Stale::Tags });
    assert_eq!(slots.load(turn(0, 0)).stale, Stale::Nothing);
    assert_eq!(slots.load(turn(1, 0)).stale, Stale::Tags);
    slots.clear();
    assert_eq!(slots.load(turn(1, 0)).stale, Stale::Tags);
}

#[test]
fn pairs_differ_in_the_highest_bit_alone() {
    let mut slots = Slots::<6>::new(12, true);
    let _ = slots.load(turn(0, 0));
    let tags = slots.load(turn(1, 0)).tags;
    assert_eq!(tags, Tags { kernel: asid(2), user: Some(asid(0x802)) });
}

#[test]
fn tags_of_every_width_are_apart_and_within_it() {
    for (bits, paired) in (0..=16).flat_map(|bits| [(bits, false), (bits, true)]) {
        let mut slots = Slots::<12>::new(bits, paired);
        assert!(slots.usable() >= 1);
        let tags = (0..slots.usable() as u64).map(|number| slots.load(turn(number, 0)).tags);
        let mut all: Vec<_> =
            tags.flat_map(|tags| [Some(tags.kernel), tags.user]).flatten().collect();
        let limit = 1_u32 << bits;
        assert!(all.iter().all(|tag| u32::from(tag.as_u16()) < limit), "{bits} bits: {all:?}");
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "{bits} bits, paired: {paired}");
        assert_eq!(count, slots.usable() * if paired && bits > 0 { 2 } else { 1 });
    }
}

#[test]
fn without_identifiers_only_the_same_space_again_is_clean() {
    let mut slots = Slots::<6>::new(0, true);
    assert_eq!(slots.usable(), 1);
    assert_eq!(slots.load(turn(0, 0)), Load { tags: Tags::default(), stale: Stale::Tags });
    assert_eq!(slots.load(turn(0, 0)).stale, Stale::Nothing);
    assert_eq!(slots.load(turn(1, 0)).stale, Stale::Tags);
    assert_eq!(slots.load(turn(0, 0)).stale, Stale::Tags);
}

#[test]
fn too_few_identifiers_for_the_cpus_are_refused() {
    assert_eq!(Global::<4, 1>::new(2).unwrap_err(), TooFew { asids: 3, cpus: 4 });
    assert_eq!(Global::<3, 1>::new(2).unwrap_err(), TooFew { asids: 3, cpus: 3 });
    assert_eq!(Global::<2, 1>::new(2).unwrap().len(), 3);
    assert_eq!(Global::<2, 1>::new(16).unwrap().len(), 63, "as many as the bitmap holds");
    assert_eq!(Global::<2, 1024>::new(16).unwrap().len(), 65534, "65535 is none");
    assert_eq!(Global::<0, 1>::new(1).unwrap().len(), 1);
}

#[test]
fn all_identifiers_are_handed_out_before_any_cpu_has_to_flush_again() {
    let (bits, last) = if cfg!(miri) { (7, 127) } else { (16, 65534) };
    let global = Global::<2, 1024>::new(bits).unwrap();
    let mut recent = Recent::<8>::new();
    let load = |number, recent: &mut Recent<8>| {
        let tag = AsidTag::new();
        global.load(0, &tag, recent, turn(number, 0))
    };
    assert_eq!(load(0, &mut recent).stale, Stale::All, "whatever was there before");
    for number in 1..last {
        assert_ne!(load(number, &mut recent).stale, Stale::All, "{number}");
    }
    let rolled = load(last, &mut recent);
    assert_eq!((rolled.stale, rolled.tags.kernel), (Stale::All, asid(1)));
}

#[test]
fn a_space_that_runs_keeps_its_identifier_across_rollovers() {
    let global = Global::<2, 1>::new(2).unwrap();
    let mut recent = [Recent::<4>::new(), Recent::new()];
    let kept = AsidTag::new();
    let first = global.load(1, &kept, &mut recent[1], turn(0, 0)).tags.kernel;
    for number in 1..20 {
        let other = global.load(0, &AsidTag::new(), &mut recent[0], turn(number, 0));
        assert_ne!(other.tags.kernel, first);
        assert_eq!(kept.asid(), Some(first));
    }
    // On the other CPU, which has flushed at the rollover, it is the same as well.
    assert_eq!(global.load(0, &kept, &mut recent[0], turn(0, 0)).tags.kernel, first);
    let back = global.load(1, &kept, &mut recent[1], turn(0, 0));
    assert_eq!((back.tags.kernel, back.stale), (first, Stale::All));
}

#[test]
fn a_cpu_beyond_the_last_gets_nobodys_identifier_and_flushes_everything() {
    let global = Global::<2, 1>::new(4).unwrap();
    let load = global.load(2, &AsidTag::new(), &mut Recent::<4>::new(), turn(0, 0));
    assert_eq!(load, Load { tags: Tags::default(), stale: Stale::All });
}
