//! The processor that this code runs on, in ring 0: the one door to its instructions.
//!
//! ```text
//!   Cpu::new()  --> Features, erratum --> enable(wanted): Controls::steps_on, one by one
//!                                    --> flush(target, flushes, ceiling): plan, operation by operation
//!                                    --> load(cr3), set_pat(), user_access()
//! ```
//!
//! # Invariants
//!
//! - A [`Cpu`] exists only in ring 0 of one processor, and stays there: it is neither `Send` nor
//!   `Sync`.
//! - It never turns on what the processor lacks, nor PCIDs where an erratum forbids them; what it
//!   finds on and cannot flush with (those, and EFER.TCE), `enable` turns off.

use crate::access::UserAccess;
use crate::controls::{CR4_LA57, CR4_PCIDE, CR4_PGE, Controls, Step};
use crate::cpuid::{Feature, Features, Vendor};
use crate::cr3::Cr3;
use crate::instructions::{self as cpu, ByTag};
use crate::pat::Pat;
use crate::plan::{Mode, Operation, Target, plan};
use core::marker::PhantomData;
use vellum_core::{Attr, Canonical, Flush, PAGE_SHIFT, VirtAddr};

/// IA32_BIOS_SIGN_ID: the microcode's revision, in bits 63:32.
const BIOS_SIGN_ID: u32 = 0x8b;
/// IA32_PAT.
const IA32_PAT: u32 = 0x277;
/// IA32_EFER.
const EFER: u32 = 0xc000_0080;
/// CR0.CD: no new lines in the caches.
const CR0_CD: u64 = 1 << 30;
/// CR0.NW: with CD, what the caches hold goes on serving, and is not written through.
const CR0_NW: u64 = 1 << 29;

/// The processor that this code runs on, in ring 0. Neither `Send` nor `Sync`: it stays here.
#[derive(Debug)]
pub struct Cpu {
    features: Features,
    microcode: Option<u32>,
    _here: PhantomData<*const ()>,
}

impl Cpu {
    /// Reads what this processor is.
    ///
    /// # Safety
    ///
    /// In 64-bit mode and ring 0; while the value exists, the code that uses it stays on this
    /// processor (no migration), and nobody else writes CR0, CR3, CR4 or EFER in the middle of one
    /// of its calls (an interrupt handler that does so restores them).
    ///
    /// Before any flush but [`flush_everything`](Self::flush_everything), [`enable`](Self::enable) is
    /// called once, or what it sees to is so: EFER.TCE is clear (AMD), and PCIDs are off where an
    /// erratum forbids them. Nobody changes that afterwards.
    #[must_use]
    pub unsafe fn new() -> Self {
        let features = Features::read();
        // A hypervisor's revision says nothing, and it may refuse the question.
        let ask = features.signature.vendor == Vendor::Intel && !features.has(Feature::HYPERVISOR);
        let microcode = ask.then(|| {
            // SAFETY: ring 0; on Intel's processors of family 6 and above, all that have 64-bit
            // mode, the register exists, takes 0, and is filled by CPUID (SDM vol. 3A, 11.11.7).
            let [_, _, _, _, revision @ ..] = unsafe {
                cpu::set_msr(BIOS_SIGN_ID, 0);
                let _ = cpu::cpuid(1, 0);
                cpu::msr(BIOS_SIGN_ID)
            }
            .to_le_bytes();
            u32::from_le_bytes(revision)
        });
        Self { features, microcode, _here: PhantomData }
    }

    /// What [`new`](Self::new) found on this processor before: without CPUID, which takes long where
    /// a hypervisor answers it.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new); and the processor has these features. (Those of another one of the
    /// same machine will do where all its processors are alike.)
    #[must_use]
    pub const unsafe fn known(features: Features, microcode: Option<u32>) -> Self {
        Self { features, microcode, _here: PhantomData }
    }

    /// What it has.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// Its microcode's revision, where that is known and says something.
    #[must_use]
    pub const fn microcode(&self) -> Option<u32> {
        self.microcode
    }

    /// The registers that paging rests on.
    #[must_use]
    pub fn controls(&self) -> Controls {
        // SAFETY: ring 0 (`new`); every processor with 64-bit mode has EFER.
        unsafe {
            Controls { cr0: cpu::cr0(), cr3: cpu::cr3(), cr4: cpu::cr4(), efer: cpu::msr(EFER) }
        }
    }

    /// Turns on CR0.WP and what of `wanted` the processor has, in the order that it asks for;
    /// PCIDs only where no erratum forbids them: there they are turned off, as by
    /// [`disable_pcids`](Self::disable_pcids). So is EFER.TCE. Returns all that is on then.
    ///
    /// # Safety
    ///
    /// What then comes into force forbids nothing that the kernel does: it writes to no page that
    /// is read-only (WP), neither executes from user pages (SMEP) nor has its stack or data there
    /// (SMAP), and what is mapped as global is the same in every table that is loaded (PGE).
    pub unsafe fn enable(&self, wanted: Feature) -> Feature {
        let steps = self.controls().steps_to(&self.features, self.microcode, wanted);
        // SAFETY: the caller's promise, and `steps_to` gives steps that do not fault.
        unsafe { self.take(steps) };
        self.controls().enabled()
    }

    /// Turns PCIDs off: afterwards CR3 has tag 0, and nothing is cached.
    pub fn disable_pcids(&self) {
        // SAFETY: the root stays loaded; the steps do not fault, and change no translation.
        unsafe { self.take(self.controls().steps_without_pcids()) };
    }

    /// # Safety
    ///
    /// None of the steps faults or forbids what the kernel does.
    unsafe fn take(&self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            // SAFETY: ring 0 (`new`); the rest is the caller's promise.
            unsafe {
                match step {
                    Step::Efer(bits) => cpu::set_msr(EFER, bits),
                    Step::Cr0(bits) => cpu::set_cr0(bits),
                    Step::Cr3(bits) => cpu::set_cr3(bits),
                    Step::Cr4(bits) => cpu::set_cr4(bits),
                    Step::ClearAc => cpu::deny_user(),
                }
            }
        }
    }

    /// What is loaded; `None` if CR3 has a bit that [`Cr3`] does not know.
    #[must_use]
    pub fn loaded(&self) -> Option<Cr3> {
        // SAFETY: ring 0 (`new`).
        Cr3::from_bits(unsafe { cpu::cr3() })
    }

    /// Goes to another table. Bit 63 and the tag are left out while CR4.PCIDE is clear: then a load
    /// flushes all that is not global.
    ///
    /// # Safety
    ///
    /// The table maps the running code, its stack, and everything that is in use, as the one before
    /// did, for as long as it is loaded; its root fits the processor. With
    /// [`keeping`](Cr3::keeping), nothing that is cached under its tag is wrong for it.
    pub unsafe fn load(&self, cr3: Cr3) {
        let cr3 = if self.mode().pcids { cr3 } else { cr3.without_tag() };
        // SAFETY: ring 0 (`new`); the caller's promise. Bits 11:0 and 63 are set with PCIDs only.
        unsafe { cpu::set_cr3(cr3.bits()) };
    }

    /// What can be done about flushing, as the registers are now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        // SAFETY: ring 0 (`new`).
        let cr4 = unsafe { cpu::cr4() };
        Mode {
            pcids: cr4 & CR4_PCIDE != 0,
            invpcid: self.features.has(Feature::INVPCID),
            globals: cr4 & CR4_PGE != 0,
            canonical: Canonical::signed(if cr4 & CR4_LA57 != 0 { 57 } else { 48 }),
        }
    }

    /// Makes this processor forget what `flushes` cover, with at most `ceiling` invalidations of
    /// single pages. Where it returns, no later access here uses what they cover.
    pub fn flush(&self, target: Target, flushes: &[Flush], ceiling: u64) {
        let mode = self.mode();
        plan(flushes, target, mode, ceiling).each(|operation| self.perform(operation, mode));
    }

    /// Forgets all of the target's space that is not global, whatever its size.
    pub fn flush_space(&self, target: Target) {
        let page = Flush::new(VirtAddr::new(0), 1, PAGE_SHIFT, Attr::NONE);
        self.flush(target, &[page], 0);
    }

    /// Forgets the page at `va` under the loaded tag, its global translations, and the loaded tag's
    /// interior entries.
    pub fn flush_page(&self, va: VirtAddr) {
        // SAFETY: ring 0 (`new`).
        unsafe { cpu::flush_page(va.as_u64()) };
    }

    /// Forgets everything, global translations and all tags included.
    pub fn flush_everything(&self) {
        self.perform(Operation::Everything, self.mode());
    }

    fn perform(&self, operation: Operation, mode: Mode) {
        match operation {
            Operation::Page(va) => self.flush_page(va),
            // SAFETY: ring 0 (`new`); a plan has these only with INVPCID and with PCIDs on,
            // and only canonical addresses.
            Operation::PageOf(pcid, va) => unsafe {
                cpu::flush_by_tag(ByTag::Address, pcid.as_u16().into(), va.as_u64());
            },
            // SAFETY: as above.
            Operation::Space(pcid) => unsafe {
                cpu::flush_by_tag(ByTag::Tag, pcid.as_u16().into(), 0);
            },
            // SAFETY: ring 0; the same root and tag again, without bit 63, which reads as 0: no
            // translation changes.
            Operation::Loaded => unsafe { cpu::set_cr3(cpu::cr3()) },
            Operation::Everything => self.perform_everything(mode),
        }
    }

    fn perform_everything(&self, mode: Mode) {
        // SAFETY: ring 0 (`new`); INVPCID where there is one. Without, PGE is changed and changed
        // back, which alters no translation and drops all (SDM vol. 3A, 5.10.4.1), with interrupts
        // off so that no handler sees it or writes CR4 between; a processor without PGE has neither
        // global translations nor tags, and loading CR3 drops all.
        unsafe {
            if mode.invpcid {
                cpu::flush_by_tag(ByTag::Everything, 0, 0);
            } else if self.features.has(Feature::PGE) {
                cpu::without_interrupts(|| {
                    let cr4 = cpu::cr4();
                    cpu::set_cr4(cr4 ^ CR4_PGE);
                    cpu::set_cr4(cr4);
                });
            } else {
                cpu::set_cr3(cpu::cr3());
            }
        }
    }

    /// The page-attribute table; `None` without one.
    #[must_use]
    pub fn pat(&self) -> Option<Pat> {
        // SAFETY: ring 0 (`new`), and the register exists with the feature.
        let bits = self.features.has(Feature::PAT).then(|| unsafe { cpu::msr(IA32_PAT) })?;
        Pat::new(bits)
    }

    /// Loads the page-attribute table by the manual's sequence: caches off and emptied, TLBs
    /// emptied, before and after. False, and nothing done, without the feature. Nothing is done
    /// either where the value is loaded already.
    ///
    /// # Safety
    ///
    /// All processors that share tables with this one do the same before any uses an entry whose
    /// type changes ([`Pat::differs_from`]), and no memory that is in use changes its type.
    pub unsafe fn set_pat(&self, pat: Pat) -> bool {
        if self.pat() == Some(pat) {
            return true;
        }
        if !self.features.has(Feature::PAT) {
            return false;
        }
        // SAFETY: ring 0 (`new`); SDM vol. 3A, 13.11.8, steps 3 to 13: with CD set and NW clear
        // caches fill no more, WBINVD loses nothing, and `Pat` has no reserved type. The rest is
        // the caller's promise.
        unsafe {
            cpu::without_interrupts(|| {
                let cr0 = cpu::cr0();
                cpu::set_cr0((cr0 | CR0_CD) & !CR0_NW);
                cpu::write_back_caches();
                self.flush_everything();
                cpu::set_msr(IA32_PAT, pat.bits());
                cpu::write_back_caches();
                self.flush_everything();
                cpu::set_cr0(cr0);
            });
        }
        true
    }

    /// Lets the kernel reach user pages until the guard is dropped; see [`UserAccess`].
    pub fn user_access(&self) -> UserAccess {
        // SAFETY: ring 0 (`new`), and STAC only with SMAP.
        unsafe { UserAccess::open(self.features.has(Feature::SMAP)) }
    }
}
