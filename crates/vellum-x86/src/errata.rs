//! Processors on which flushing by the book leaves something behind.
//!
//! ```text
//!   with PCIDs on, INVLPG may leave global translations of the page in the TLB
//!
//!   family 6, model   97          9a           be         b7           ba             bf
//!                     AlderLake   AlderLake-L  Gracemont  RaptorLake   RaptorLake-P   RaptorLake-S
//!   fixed in          2e          42c          11         118          4117           2e
//! ```
//!
//! Without the microcode that fixes it, PCIDs stay off: INVLPG is right then, and every other way to
//! drop one page's global translations drops all of them.
//!
//! Intel limits it to running without VMX or as VMX root. A guest is not affected, and could not
//! tell: hypervisors report microcode revisions of their own making.
//!
//! Sources: Intel's specification updates 682436 (12th generation, erratum ADL063) and 740518 (13th,
//! RPL042); Linux, `arch/x86/mm/init.c`, for the list of models and the revisions.

use crate::cpuid::{Feature, Features, Vendor};

/// Models of Intel's family 6, and the microcode revision from which on each is right.
const INVLPG_LEAVES_GLOBALS: [(u8, u32); 6] =
    [(0x97, 0x2e), (0x9a, 0x42c), (0xbe, 0x11), (0xb7, 0x118), (0xba, 0x4117), (0xbf, 0x2e)];

/// Whether INVLPG may miss global translations on this processor while PCIDs are on. `microcode` is
/// its revision; one that is not known counts as too old.
///
/// ```
/// use vellum_x86::{Features, Registers, errata};
///
/// let unknown = Features::parse(|_, _| Registers::default());
/// assert!(!errata::invlpg_leaves_globals(&unknown, None));
/// ```
#[must_use]
pub fn invlpg_leaves_globals(features: &Features, microcode: Option<u32>) -> bool {
    let signature = features.signature;
    if signature.vendor != Vendor::Intel || signature.family != 6 {
        return false;
    }
    if features.has(Feature::HYPERVISOR) {
        return false;
    }
    INVLPG_LEAVES_GLOBALS.iter().any(|&(model, fixed)| {
        model == signature.model && microcode.is_none_or(|revision| revision < fixed)
    })
}

/// Whether PCIDs can be used: the processor has them, and no erratum says otherwise.
#[must_use]
pub fn pcids_are_sound(features: &Features, microcode: Option<u32>) -> bool {
    features.has(Feature::PCID) && !invlpg_leaves_globals(features, microcode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpuid::tests::{alder_lake, guest, ivy_bridge};

    #[test]
    fn alder_lake_needs_its_microcode() {
        let features = alder_lake();
        assert!(invlpg_leaves_globals(&features, None));
        assert!(invlpg_leaves_globals(&features, Some(0x2d)));
        assert!(!invlpg_leaves_globals(&features, Some(0x2e)));
        assert!(!pcids_are_sound(&features, Some(0x2d)));
        assert!(pcids_are_sound(&features, Some(0x2e)));
    }

    #[test]
    fn each_model_has_its_own_revision() {
        let fixed = [("97", 0x2e), ("9a", 0x42c), ("be", 0x11), ("b7", 0x118), ("ba", 0x4117)];
        for (model, revision) in fixed {
            let mut features = alder_lake();
            features.signature.model = u8::from_str_radix(model, 16).unwrap();
            assert!(invlpg_leaves_globals(&features, Some(revision - 1)), "{model}");
            assert!(!invlpg_leaves_globals(&features, Some(revision)), "{model}");
        }
    }

    #[test]
    fn others_are_not_affected() {
        assert!(pcids_are_sound(&guest(), None));
        assert!(pcids_are_sound(&ivy_bridge(), None));
        let mut features = alder_lake();
        features.set |= Feature::HYPERVISOR;
        assert!(!invlpg_leaves_globals(&features, None), "a guest is told nothing true");
        features = alder_lake();
        features.signature.vendor = Vendor::Amd;
        assert!(!invlpg_leaves_globals(&features, None));
    }

    #[test]
    fn without_the_feature_there_is_nothing_to_be_sound() {
        let mut features = guest();
        features.set -= Feature::PCID;
        assert!(!pcids_are_sound(&features, None));
    }
}
