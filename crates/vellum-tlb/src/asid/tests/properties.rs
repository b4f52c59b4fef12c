//! Random loads on three CPUs, against what their TLBs would hold.

use super::{space, turn};
use crate::asid::{AsidTag, Global, Load, Recent, Slots, SpaceId, Stale, Turn};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;
use vellum_core::Asid;

/// One CPU: what it has cached, by tag: whose, and which generation at the oldest.
type Tlb = BTreeMap<Asid, (u64, u64)>;

/// Loads what a policy says; everything it leaves must be right.
fn apply(tlb: &mut Tlb, load: Load, number: u64, generation: u64) -> Result<(), TestCaseError> {
    for tag in [Some(load.tags.kernel), load.tags.user].into_iter().flatten() {
        match load.stale {
            Stale::Nothing => {}
            Stale::Tags => drop(tlb.remove(&tag)),
            Stale::All => tlb.clear(),
        }
        let (owner, seen) = *tlb.entry(tag).or_insert((number, generation));
        prop_assert_eq!(owner, number, "{} is another space's", tag);
        prop_assert!(seen >= generation, "{} is older than {}", tag, generation);
    }
    Ok(())
}

/// CPU, space, whether the space changes first, whether it ends first.
fn loads() -> impl Strategy<Value = Vec<(usize, usize, bool, bool)>> {
    let load = (0..3_usize, 0..8_usize, any::<bool>(), prop::bool::weighted(0.1));
    prop::collection::vec(load, 1..if cfg!(miri) { 30 } else { 300 })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn slots_bring_back_only_what_is_right(loads in loads(), bits in 0..5_u8, paired in any::<bool>()) {
        let mut slots: Vec<_> = (0..3).map(|_| Slots::<4>::new(bits, paired)).collect();
        let mut tlbs = vec![Tlb::new(); 3];
        let mut loaded = [None; 3];
        let mut spaces: Vec<(u64, u64)> = (0..8).map(|number| (number, 0)).collect();
        for (cpu, index, changes, ends) in loads {
            if ends {
                spaces[index] = (spaces.iter().map(|s| s.0).max().unwrap() + 1, 0);
            }
            spaces[index].1 += u64::from(changes);
            let (number, generation) = spaces[index];
            let turn = Turn { left: loaded[cpu], ..turn(number, generation) };
            let load = slots[cpu].load(turn);
            apply(&mut tlbs[cpu], load, number, generation)?;
            loaded[cpu] = Some((space(number), generation));
        }
    }

    #[test]
    fn identifiers_for_all_cpus_never_collide_and_bring_back_only_what_is_right(
        loads in loads(),
        bits in 3..6_u8,
    ) {
        let global = Global::<3, 1>::new(bits).unwrap();
        let mut recent: Vec<_> = (0..3).map(|_| Recent::<3>::new()).collect();
        let mut tlbs = vec![Tlb::new(); 3];
        let mut loaded: [Option<(SpaceId, u64, Asid)>; 3] = [None; 3];
        let mut spaces: Vec<(u64, u64, AsidTag)> =
            (0..8).map(|number| (number, 0, AsidTag::new())).collect();
        for (cpu, index, changes, ends) in loads {
            if ends {
                let next = spaces.iter().map(|s| s.0).max().unwrap() + 1;
                spaces[index] = (next, 0, AsidTag::new());
            }
            spaces[index].1 += u64::from(changes);
            let (number, generation, tag) = &spaces[index];
            let left = loaded[cpu].map(|(space, seen, _)| (space, seen));
            let turn = Turn { left, ..turn(*number, *generation) };
            let load = global.load(cpu, tag, &mut recent[cpu], turn);
            apply(&mut tlbs[cpu], load, *number, *generation)?;
            let own = load.tags.kernel;
            prop_assert!(own != Asid::ZERO && own.as_u16() < 1 << bits);
            loaded[cpu] = Some((space(*number), *generation, own));
            // What CPUs run has one identifier each, and each its own.
            for (one, other) in loaded.iter().flatten().flat_map(|a| loaded.iter().flatten().map(move |b| (a, b))) {
                prop_assert_eq!(one.0 == other.0, one.2 == other.2, "{:?} and {:?}", one, other);
            }
        }
    }
}
