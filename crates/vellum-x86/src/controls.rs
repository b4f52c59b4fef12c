//! The control bits that paging rests on, and in which order they may be set.
//!
//! ```text
//!   EFER   11 NXE                         before an entry with bit 63 is loaded
//!          15 TCE                         AMD; cleared: `plan` counts on INVLPG without it
//!   CR0    16 WP                          the kernel keeps to R/W too
//!   CR4     7 PGE   11 UMIP   12 LA57     LA57: with paging off, or never
//!          17 PCIDE                       in long mode, and while CR3[11:0] = 0; else #GP
//!          20 SMEP  21 SMAP               SMAP: EFLAGS.AC says whether it counts, so clear AC first
//!
//!   on:    EFER.NXE -> CR0.WP -> CLAC -> CR4 but PCIDE -> CR3[11:0] = 0 -> CR4.PCIDE
//!   off:   CR3[11:0] = 0 -> CR4.PCIDE     (bits 3 and 4 would be read as PWT and PCD)
//! ```
//!
//! The steps are computed here, from register values; [`Cpu`](crate::Cpu) carries them out.
//!
//! # Invariants
//!
//! - No step faults if those before it were made, and a step that would change nothing is left out.
//! - Bits that are not asked about keep their value.
//!
//! Source: Intel SDM vol. 3A, 2.5 "Control Registers", 5.1.1 to 5.1.3, 5.10.1; vol. 2A, "CLAC".

use crate::cpuid::{Feature, Features};
use crate::errata;

/// CR0.WP: supervisor writes keep to R/W.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.PG: paging.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE: entries of 64 bits.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.PGE: global translations.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.UMIP: no SGDT, SIDT, SLDT, SMSW, STR in user mode.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.LA57: five levels.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.PCIDE: CR3\[11:0\] is a tag.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.SMEP: no supervisor fetches from user pages.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP: no supervisor loads and stores to user pages.
pub const CR4_SMAP: u64 = 1 << 21;
/// EFER.LMA: the processor is in long mode.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE: bit 63 of an entry forbids execution.
pub const EFER_NXE: u64 = 1 << 11;
/// EFER.TCE (AMD): INVLPG and INVPCID drop only those interior entries that lead to the page.
pub const EFER_TCE: u64 = 1 << 15;

/// CR3\[11:0\]: the tag.
const CR3_PCID: u64 = 0xfff;

/// What can be turned on, beside CR0.WP, which always is.
pub const SWITCHABLE: Feature = Feature::NX
    .union(Feature::PGE)
    .union(Feature::SMEP)
    .union(Feature::SMAP)
    .union(Feature::UMIP)
    .union(Feature::PCID);

/// The registers, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names for registers need no words")]
pub struct Controls {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// One register written, or EFLAGS.AC cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names for registers need no words")]
pub enum Step {
    Efer(u64),
    Cr0(u64),
    Cr3(u64),
    Cr4(u64),
    /// CLAC.
    ClearAc,
}

/// How many steps there can be.
const STEPS: usize = 6;

/// Steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps([Option<Step>; STEPS]);

impl IntoIterator for Steps {
    type Item = Step;
    type IntoIter = core::iter::Flatten<core::array::IntoIter<Option<Step>, STEPS>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl Controls {
    /// The steps that turn on CR0.WP and, of `wanted`, what the processor has and can have now
    /// (PCIDs only in long mode). What is on and not wanted stays on, but for [`EFER_TCE`], with
    /// which the flushes here would leave interior entries behind: whoever ran before may have set it.
    ///
    /// ```
    /// use vellum_x86::{Controls, Feature, Features, Registers, Step};
    ///
    /// let features = Features::parse(|_, _| Registers::default()); // has nothing
    /// let now = Controls { cr0: 1 << 31, cr3: 0x1000, cr4: 1 << 5, efer: 1 << 10 };
    /// let steps: Vec<_> = now.steps_on(&features, Feature::all()).into_iter().collect();
    /// assert_eq!(steps, [Step::Cr0(1 << 31 | 1 << 16)]);
    /// ```
    #[must_use]
    pub fn steps_on(self, features: &Features, wanted: Feature) -> Steps {
        let on = features.set & wanted;
        let efer = self.efer & !EFER_TCE | bits(on, &[(Feature::NX, EFER_NXE)]);
        let cr0 = self.cr0 | CR0_WP;
        let cr4 = self.cr4
            | bits(
                on,
                &[
                    (Feature::PGE, CR4_PGE),
                    (Feature::UMIP, CR4_UMIP),
                    (Feature::SMEP, CR4_SMEP),
                    (Feature::SMAP, CR4_SMAP),
                ],
            );
        let tags = on.contains(Feature::PCID) && efer & EFER_LMA != 0 && cr4 & CR4_PCIDE == 0;
        Steps([
            (efer != self.efer).then_some(Step::Efer(efer)),
            (cr0 != self.cr0).then_some(Step::Cr0(cr0)),
            (cr4 & !self.cr4 & CR4_SMAP != 0).then_some(Step::ClearAc),
            (cr4 != self.cr4).then_some(Step::Cr4(cr4)),
            (tags && self.cr3 & CR3_PCID != 0).then_some(Step::Cr3(self.cr3 & !CR3_PCID)),
            tags.then_some(Step::Cr4(cr4 | CR4_PCIDE)),
        ])
    }

    /// [`steps_on`](Self::steps_on) without PCIDs where an erratum forbids them: then they are turned
    /// off first, if whoever ran before had them on.
    pub(crate) fn steps_to(
        self,
        features: &Features,
        microcode: Option<u32>,
        wanted: Feature,
    ) -> impl Iterator<Item = Step> {
        let sound = errata::pcids_are_sound(features, microcode);
        let off = if sound { Steps([None; STEPS]) } else { self.steps_without_pcids() };
        let wanted = if sound { wanted } else { wanted - Feature::PCID };
        let then = off.into_iter().fold(self, Self::after);
        off.into_iter().chain(then.steps_on(features, wanted))
    }

    /// What the registers are after a step.
    const fn after(self, step: Step) -> Self {
        match step {
            Step::Efer(efer) => Self { efer, ..self },
            Step::Cr0(cr0) => Self { cr0, ..self },
            Step::Cr3(cr3) => Self { cr3, ..self },
            Step::Cr4(cr4) => Self { cr4, ..self },
            Step::ClearAc => self,
        }
    }

    /// The steps that turn PCIDs off; the last flushes everything.
    #[must_use]
    pub fn steps_without_pcids(self) -> Steps {
        let on = self.cr4 & CR4_PCIDE != 0;
        let mut steps = [None; STEPS];
        steps[0] = (on && self.cr3 & CR3_PCID != 0).then_some(Step::Cr3(self.cr3 & !CR3_PCID));
        steps[1] = on.then_some(Step::Cr4(self.cr4 & !CR4_PCIDE));
        Steps(steps)
    }

    /// What of [`SWITCHABLE`] is on.
    #[must_use]
    pub fn enabled(self) -> Feature {
        let mut on = Feature::empty();
        on.set(Feature::NX, self.efer & EFER_NXE != 0);
        on.set(Feature::PGE, self.cr4 & CR4_PGE != 0);
        on.set(Feature::UMIP, self.cr4 & CR4_UMIP != 0);
        on.set(Feature::SMEP, self.cr4 & CR4_SMEP != 0);
        on.set(Feature::SMAP, self.cr4 & CR4_SMAP != 0);
        on.set(Feature::PCID, self.cr4 & CR4_PCIDE != 0);
        on
    }
}

/// The bits of those features that are in `on`.
fn bits(on: Feature, of: &[(Feature, u64)]) -> u64 {
    of.iter().filter(|(feature, _)| on.contains(*feature)).fold(0, |all, (_, bit)| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpuid::tests::{alder_lake, ivy_bridge};
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A processor that takes a step or faults, by the manual's rules.
    struct Processor {
        now: Controls,
        features: Features,
        ac: bool,
    }

    impl Processor {
        fn take(&mut self, step: Step) -> Result<(), &'static str> {
            let has = |feature| self.features.has(feature);
            match step {
                Step::ClearAc if !has(Feature::SMAP) => return Err("#UD: no CLAC"),
                Step::ClearAc => self.ac = false,
                Step::Cr0(bits) if bits & CR0_PG == 0 => {
                    return Err("#GP: PG cleared in 64-bit mode");
                }
                Step::Cr0(bits) => self.now.cr0 = bits,
                Step::Efer(bits) if bits & EFER_NXE != 0 && !has(Feature::NX) => {
                    return Err("#GP: NXE");
                }
                Step::Efer(bits) => self.now.efer = bits,
                Step::Cr3(bits) if bits & !(1 << self.features.physical_bits) >> 52 != 0 => {
                    return Err("#GP: reserved bits of CR3");
                }
                Step::Cr3(bits) => self.now.cr3 = bits,
                Step::Cr4(bits) => self.take_cr4(bits)?,
            }
            Ok(())
        }

        fn take_cr4(&mut self, bits: u64) -> Result<(), &'static str> {
            let has = |feature| self.features.has(feature);
            let known = [
                (CR4_PGE, Feature::PGE),
                (CR4_UMIP, Feature::UMIP),
                (CR4_PCIDE, Feature::PCID),
                (CR4_SMEP, Feature::SMEP),
                (CR4_SMAP, Feature::SMAP),
            ];
            if known.iter().any(|&(bit, feature)| bits & bit != 0 && !has(feature)) {
                return Err("#GP: reserved bit of CR4");
            }
            let changed = bits ^ self.now.cr4;
            if changed & (CR4_LA57 | CR4_PAE) != 0 {
                return Err("#GP: the form of the tables changed");
            }
            if changed & bits & CR4_PCIDE != 0 {
                if self.now.efer & EFER_LMA == 0 {
                    return Err("#GP: PCIDE outside of long mode");
                }
                if self.now.cr3 & CR3_PCID != 0 {
                    return Err("#GP: PCIDE with a tag in CR3");
                }
            }
            if changed & self.now.cr4 & CR4_PCIDE != 0 && self.now.cr3 & CR3_PCID != 0 {
                return Err("what was a tag is PWT and PCD now");
            }
            if changed & bits & CR4_SMAP != 0 && self.ac {
                return Err("SMAP is on and does not count");
            }
            self.now.cr4 = bits;
            Ok(())
        }
    }

    fn start() -> Controls {
        Controls { cr0: CR0_PG | 1, cr3: 0x5000, cr4: CR4_PAE, efer: EFER_LMA | 1 << 8 }
    }

    #[test]
    fn everything_is_turned_on_in_order() {
        let now = Controls { cr3: 0x5018, ..start() };
        let steps: Vec<_> = now.steps_on(&alder_lake(), SWITCHABLE).into_iter().collect();
        let cr4 = CR4_PAE | CR4_PGE | CR4_UMIP | CR4_SMEP | CR4_SMAP;
        let expected = [
            Step::Efer(now.efer | EFER_NXE),
            Step::Cr0(now.cr0 | CR0_WP),
            Step::ClearAc,
            Step::Cr4(cr4),
            Step::Cr3(0x5000),
            Step::Cr4(cr4 | CR4_PCIDE),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn pcids_that_an_erratum_forbids_are_turned_off_if_they_were_on() {
        let now = Controls { cr3: 0x5007, cr4: CR4_PAE | CR4_PCIDE, ..start() };
        for (microcode, pcids) in [(None, false), (Some(0x2d), false), (Some(0x2e), true)] {
            let mut processor = Processor { now, features: alder_lake(), ac: false };
            for step in now.steps_to(&alder_lake(), microcode, SWITCHABLE) {
                processor.take(step).unwrap();
            }
            let on = processor.now.enabled();
            assert_eq!(on.contains(Feature::PCID), pcids, "{microcode:?}");
            assert_eq!(on | Feature::PCID, SWITCHABLE, "the rest is on");
        }
    }

    #[test]
    fn translation_cache_extension_is_turned_off() {
        let now = Controls { efer: start().efer | EFER_NXE | EFER_TCE, ..start() };
        let steps: Vec<_> = now.steps_on(&ivy_bridge(), Feature::NX).into_iter().collect();
        assert_eq!(steps, [Step::Efer(now.efer & !EFER_TCE), Step::Cr0(now.cr0 | CR0_WP)]);
    }

    #[test]
    fn outside_of_long_mode_there_are_no_tags() {
        let now = Controls { efer: 0, ..start() };
        let steps = now.steps_on(&alder_lake(), Feature::PCID);
        assert_eq!(steps.into_iter().collect::<Vec<_>>(), [Step::Cr0(now.cr0 | CR0_WP)]);
    }

    #[test]
    fn what_is_not_there_is_not_touched() {
        let mut processor = Processor { now: start(), features: ivy_bridge(), ac: true };
        for step in start().steps_on(&ivy_bridge(), SWITCHABLE) {
            processor.take(step).unwrap();
        }
        let on = Feature::NX | Feature::PGE | Feature::SMEP | Feature::PCID;
        assert_eq!(processor.now.enabled(), on);
    }

    proptest! {
        #![proptest_config(crate::proptest_config())]

        #[test]
        fn no_step_faults_and_all_that_can_be_is_on(
            (has, wanted) in any::<(u32, u32)>(), (low, cr4, nxe, ac) in any::<(u16, u64, bool, bool)>(),
        ) {
            let features = Features { set: Feature::from_bits_truncate(has), ..alder_lake() };
            let wanted = Feature::from_bits_truncate(wanted);
            // Any state that such a processor could be in.
            let mut now = start();
            now.cr3 |= u64::from(low) & CR3_PCID;
            let possible = bits(features.set, &[
                (Feature::PGE, CR4_PGE), (Feature::UMIP, CR4_UMIP), (Feature::SMEP, CR4_SMEP),
                (Feature::SMAP, CR4_SMAP), (Feature::PCID, CR4_PCIDE),
            ]);
            now.cr4 |= cr4 & (possible | CR4_LA57);
            now.efer |= if nxe && features.has(Feature::NX) { EFER_NXE } else { 0 };

            let mut processor = Processor { now, features, ac };
            for step in now.steps_on(&features, wanted) {
                let before = processor.now;
                prop_assert_eq!(processor.take(step), Ok(()), "{:?}", step);
                prop_assert!(processor.now != before || step == Step::ClearAc, "{:?} is idle", step);
            }
            let on = now.enabled() | features.set & wanted & SWITCHABLE;
            prop_assert_eq!(processor.now.enabled(), on);
            prop_assert!(processor.now.cr0 & CR0_WP != 0);

            let then = processor.now;
            for step in then.steps_without_pcids() {
                prop_assert_eq!(processor.take(step), Ok(()), "{:?}", step);
            }
            prop_assert_eq!(processor.now.enabled(), on - Feature::PCID);
            prop_assert_eq!(processor.now.cr4 | CR4_PCIDE, then.cr4 | CR4_PCIDE);
        }
    }
}
