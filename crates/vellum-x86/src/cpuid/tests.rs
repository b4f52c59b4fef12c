//! Leaves as real processors gave them, and what has to be read out of them.

use super::*;
use proptest::prelude::*;

/// eax, ebx, ecx and edx of some leaves, each with sub-leaf 0.
type Recording = &'static [(u32, [u32; 4])];

/// Core i9-12900K (Alder Lake, stepping C0), from the InstLatx64 collection.
const ALDER_LAKE: Recording = &[
    (0, [0x0000_0020, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    (1, [0x0009_0672, 0x0080_0800, 0x7ffa_fbff, 0xbfeb_fbff]),
    (7, [0x0000_0001, 0x239c_a7eb, 0x98c0_27ac, 0xfc1c_c410]),
    (0x8000_0000, [0x8000_0008, 0, 0, 0]),
    (0x8000_0001, [0, 0, 0x0000_0121, 0x2c10_0000]),
    (0x8000_0008, [0x0000_302e, 0, 0, 0]),
];

/// Core i7-3770K (Ivy Bridge), from the same collection: PCID without INVPCID.
const IVY_BRIDGE: Recording = &[
    (0, [0x0000_000d, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    (1, [0x0003_06a9, 0x0010_0800, 0x7f9a_e3bf, 0xbfeb_fbff]),
    (7, [0, 0x0000_0281, 0, 0]),
    (0x8000_0000, [0x8000_0008, 0, 0, 0]),
    (0x8000_0001, [0, 0, 0x0000_0001, 0x2810_0000]),
    (0x8000_0008, [0x0000_3024, 0, 0, 0]),
];

/// EPYC, family 25, model 17, as a guest of KVM.
const GUEST: Recording = &[
    (0, [0x0000_001c, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
    (1, [0x00a1_0f11, 0x0002_0800, 0xfffa_3203, 0x178b_fbff]),
    (7, [0x0000_0001, 0xf1bf_07ab, 0x0040_5fc6, 0x0000_0010]),
    (0x8000_0000, [0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
    (0x8000_0001, [0x00a1_0f11, 0x4000_0000, 0x0040_03f3, 0x2fd3_fbff]),
    (0x8000_0008, [0x0030_3030, 0x5002_0005, 0x0000_7001, 0]),
];

/// What a processor with this recording answers; with nothing but ones above its highest leaves, as
/// the worst that may come back there.
fn answers(recording: Recording) -> impl Fn(u32, u32) -> Registers {
    move |leaf, sub| {
        assert_eq!(sub, 0);
        let found = recording.iter().find(|(number, _)| *number == leaf);
        let [eax, ebx, ecx, edx] = found.map_or([u32::MAX; 4], |(_, registers)| *registers);
        Registers { eax, ebx, ecx, edx }
    }
}

fn parsed(recording: Recording) -> Features {
    Features::parse(answers(recording))
}

/// What an i9-12900K says.
pub(crate) fn alder_lake() -> Features {
    parsed(ALDER_LAKE)
}

/// What an i7-3770K says.
pub(crate) fn ivy_bridge() -> Features {
    parsed(IVY_BRIDGE)
}

/// What an EPYC says to a guest.
pub(crate) fn guest() -> Features {
    parsed(GUEST)
}

#[test]
fn alder_lake_is_read_from_its_leaves() {
    let features = alder_lake();
    let signature = Signature { vendor: Vendor::Intel, family: 6, model: 0x97, stepping: 2 };
    assert_eq!(features.signature, signature);
    assert_eq!((features.physical_bits, features.linear_bits), (46, 48));
    assert_eq!(features.set, Feature::all() - Feature::LA57 - Feature::HYPERVISOR);
}

#[test]
fn ivy_bridge_has_tags_and_no_instruction_to_flush_by_them() {
    let features = ivy_bridge();
    assert_eq!((features.signature.family, features.signature.model), (6, 0x3a));
    assert_eq!((features.physical_bits, features.linear_bits), (36, 48));
    let has = Feature::LONG_MODE | Feature::NX | Feature::PGE | Feature::PAT;
    assert_eq!(features.set, has | Feature::PCID | Feature::SMEP);
}

#[test]
fn a_guest_knows_that_it_is_one() {
    let features = guest();
    let signature = Signature { vendor: Vendor::Amd, family: 25, model: 17, stepping: 1 };
    assert_eq!(features.signature, signature);
    assert_eq!((features.physical_bits, features.linear_bits), (48, 48));
    let without = Feature::LA57 | Feature::PKU | Feature::PKS;
    assert_eq!(features.set, Feature::all() - without);
}

#[test]
fn no_leaf_above_the_highest_counts() {
    // The same, with highest leaves that leave the others out: what lies above answers with ones.
    let answers = |leaf, sub| match leaf {
        0 => Registers { eax: 1, ..answers(ALDER_LAKE)(0, sub) },
        7 | 0x8000_0008 => Registers { eax: !0, ebx: !0, ecx: !0, edx: !0 },
        0x8000_0000 => Registers { eax: 0x8000_0001, ..Registers::default() },
        _ => answers(ALDER_LAKE)(leaf, sub),
    };
    let features = Features::parse(answers);
    let of_leaf_7 = Feature::SMEP | Feature::SMAP | Feature::INVPCID | Feature::LA57;
    assert!(!features.set.intersects(of_leaf_7), "{features:?}");
    assert!(features.has(Feature::PCID | Feature::NX));
    assert_eq!((features.physical_bits, features.linear_bits), (36, 48));
}

#[test]
fn without_extended_leaves_there_is_no_long_mode() {
    // Old processors answer 8000_0000 with the bits of their highest basic leaf.
    let answers = |leaf: u32, sub| match leaf >> 31 {
        0 => answers(ALDER_LAKE)(leaf, sub),
        _ => Registers { eax: 0xbfeb_fbff, ebx: !0, ecx: !0, edx: !0 },
    };
    let features = Features::parse(answers);
    assert!(!features.set.intersects(Feature::LONG_MODE | Feature::NX | Feature::GIB_LEAVES));
    assert_eq!((features.physical_bits, features.linear_bits), (32, 32));
}

#[test]
fn families_and_models_take_their_extensions_by_the_vendors_rules() {
    let name = |recording: Recording| answers(recording)(0, 0);
    let of = |recording, eax| {
        let signature = Signature::parse(name(recording), eax);
        (signature.family, signature.model, signature.stepping)
    };
    assert_eq!(of(ALDER_LAKE, 0x000b_0671), (6, 0xb7, 1)); // Raptor Lake
    assert_eq!(of(ALDER_LAKE, 0x0000_0f29), (15, 2, 9)); // Pentium 4
    assert_eq!(of(GUEST, 0x0087_0f10), (23, 0x71, 0)); // Zen 2
    // Only family 15 is extended.
    assert_eq!(of(ALDER_LAKE, 0x0ffb_0671), (6, 0xb7, 1));
    // AMD's family 6 has no extended model.
    assert_eq!(of(GUEST, 0x0009_0681), (6, 8, 1));
}

#[test]
fn names_are_shown_as_vendors_write_them() {
    use std::string::ToString;
    assert_eq!(alder_lake().signature.vendor.to_string(), "Intel");
    assert_eq!(Vendor::Other(*b"CentaurHauls").to_string(), "CentaurHauls");
    assert_eq!(Vendor::Other([0xff; 12]).to_string(), "unknown");
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn whatever_the_leaves_hold_widths_are_possible(words in any::<[u32; 4]>(), high in any::<u32>()) {
        let [eax, ebx, ecx, edx] = words;
        let features = Features::parse(|leaf, _| match leaf {
            0x8000_0000 => Registers { eax: 0x8000_0000 | high & 0xffff, ..Registers::default() },
            _ => Registers { eax, ebx, ecx, edx },
        });
        prop_assert!((32..=52).contains(&features.physical_bits));
        prop_assert!((32..=57).contains(&features.linear_bits));
    }
}
