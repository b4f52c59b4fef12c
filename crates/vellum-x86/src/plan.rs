//! Which instructions make this CPU forget: a decision about data, apart from carrying it out.
//!
//! ```text
//!   operation             TLB, this PCID  others  global    interior entries
//!   --------------------  --------------  ------  ------    ----------------
//!   Page(va)  INVLPG      the page        -       the page  of the loaded PCID, all
//!   PageOf    INVPCID 0   the page        -       -         of its PCID, those for the page
//!   Loaded    MOV CR3     all             -       -         of the loaded PCID, all
//!   Space     INVPCID 1   all             -       -         of its PCID, all
//!   Everything            all             all     all       all
//!             INVPCID 2, or CR4.PGE changed; without global entries and PCIDs, MOV CR3
//! ```
//!
//! Three things in this table are easy to miss, and each decides something here:
//!
//! - INVPCID by page or by space leaves global translations alone: INVLPG is what drops one.
//! - No instruction but the last drops another PCID's interior entries with the page's global
//!   translations. So a node of the kernel's half, whose entries every PCID may have cached, is
//!   flushed by dropping everything.
//! - Without INVPCID there is no way to another PCID that does not load its root: that too drops
//!   everything, as does KPTI's other half.
//!
//! On AMD's processors the table holds while EFER.TCE is clear, as it is at reset and after
//! [`Cpu::enable`](crate::Cpu::enable): with it, INVLPG and INVPCID drop only those interior entries that
//! lead to the page.
//!
//! # Invariants
//!
//! - What a plan drops includes all that its flushes ask for, by the least that the manual promises of
//!   each operation. (The tests hold it against a model of that least.)
//! - A plan has no page that is not canonical: INVPCID would fault, and none can be cached.
//!
//! Source: Intel SDM vol. 3A, 5.10.4.1 "Operations that Invalidate TLBs and Paging-Structure
//! Caches"; 5.10.2.3 (large pages held as small ones); vol. 2A, "INVPCID"; AMD APM vol. 2, 3.1.7
//! (EFER.TCE).

use crate::cr3::Pcid;
use vellum_core::{Canonical, Flush, Scope, VirtAddr};

/// What the CPU can do now: features that are turned on, not only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// CR4.PCIDE is set. Without it, every space has [`Pcid::ZERO`].
    pub pcids: bool,
    /// INVPCID exists.
    pub invpcid: bool,
    /// CR4.PGE is set: translations can be global.
    pub globals: bool,
    /// What the MMU translates: 48 bits, or 57 with CR4.LA57.
    pub canonical: Canonical,
}

/// Whose translations go, and which space the CPU runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The tag of the space in question on this CPU.
    pub pcid: Pcid,
    /// The tag of its user half under KPTI.
    pub user: Option<Pcid>,
    /// Tables of other spaces lead to the same pages, and not by global entries alone: a kernel's
    /// half that is shared by all. What is cached under every tag goes.
    pub shared: bool,
    /// The tag in CR3 now.
    pub loaded: Pcid,
}

impl Target {
    /// The space that the CPU runs on, without KPTI.
    #[must_use]
    pub const fn current(loaded: Pcid) -> Self {
        Self { pcid: loaded, user: None, shared: false, loaded }
    }
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The page of this address, under the loaded tag, and its global translations.
    Page(VirtAddr),
    /// The page of this address under this tag; not its global translations.
    PageOf(Pcid, VirtAddr),
    /// Everything under the loaded tag that is not global.
    Loaded,
    /// Everything under this tag that is not global.
    Space(Pcid),
    /// Everything.
    Everything,
}

/// What to do; see [`plan`].
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    flushes: &'a [Flush],
    target: Target,
    canonical: Canonical,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Nothing,
    ByPage,
    BySpace,
    Everything,
}

/// Decides how this CPU forgets what `flushes` cover. More than `ceiling` invalidations of single
/// pages are not made: then whole spaces go, or everything. What is [`Scope::Fresh`] needs nothing,
/// for x86 caches no absence. Linear in the number of flushes.
///
/// ```
/// use vellum_core::{Attr, Canonical, Flush, VirtAddr};
/// use vellum_x86::{Mode, Operation, Pcid, Target, plan};
///
/// let canonical = Canonical::signed(48);
/// let mode = Mode { pcids: false, invpcid: false, globals: true, canonical };
/// let target = Target::current(Pcid::ZERO);
/// let pages = [Flush::new(VirtAddr::new(0x5000), 0x2000, 12, Attr::NONE)];
///
/// let mut done = Vec::new();
/// plan(&pages, target, mode, 32).each(|operation| done.push(operation));
/// assert_eq!(done, [0x5000, 0x6000].map(|va| Operation::Page(VirtAddr::new(va))));
///
/// plan(&pages, target, mode, 1).each(|operation| assert_eq!(operation, Operation::Loaded));
/// ```
#[must_use]
pub fn plan(flushes: &[Flush], target: Target, mode: Mode, ceiling: u64) -> Plan<'_> {
    // What other tags hold cannot matter where there are none.
    let target = match mode.pcids {
        true => target,
        false => Target::current(Pcid::ZERO),
    };
    Plan { flushes, target, canonical: mode.canonical, how: how(flushes, target, mode, ceiling) }
}

fn how(flushes: &[Flush], target: Target, mode: Mode, ceiling: u64) -> How {
    let stale = || flushes.iter().filter(|flush| flush.scope > Scope::Fresh);
    if stale().next().is_none() {
        return How::Nothing;
    }
    let beyond = target.pcid != target.loaded || target.user.is_some();
    let everywhere = target.shared || stale().any(|flush| flush.has_tables() && flush.global);
    if mode.pcids && (everywhere || beyond && !mode.invpcid) {
        return How::Everything;
    }
    let each = if target.user.is_some() { 2 } else { 1 };
    let pages = stale().fold(0, |sum: u64, flush| sum.saturating_add(flush.steps()));
    if pages.saturating_mul(each) <= ceiling {
        How::ByPage
    } else if mode.globals && stale().any(|flush| flush.global) {
        How::Everything
    } else {
        How::BySpace
    }
}

impl Plan<'_> {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.how == How::Nothing
    }

    /// Gives each operation to `f`, in an order that need not be kept. At most the ceiling and two.
    pub fn each(&self, mut f: impl FnMut(Operation)) {
        match self.how {
            How::Nothing => {}
            How::Everything => f(Operation::Everything),
            How::BySpace => self.tags().for_each(|tag| f(self.whole(tag))),
            How::ByPage => self.by_page(&mut f),
        }
    }

    fn tags(&self) -> impl Iterator<Item = Pcid> {
        [Some(self.target.pcid), self.target.user].into_iter().flatten()
    }

    fn whole(&self, tag: Pcid) -> Operation {
        if tag == self.target.loaded { Operation::Loaded } else { Operation::Space(tag) }
    }

    fn by_page(&self, f: &mut impl FnMut(Operation)) {
        let loaded = self.target.loaded;
        let stale = || self.flushes.iter().filter(|flush| flush.scope > Scope::Fresh);
        for tag in self.tags() {
            if tag == loaded {
                stale().for_each(|flush| self.pages(flush, |va| f(Operation::Page(va))));
            } else if stale().any(|flush| flush.has_tables()) {
                // By page, it would drop the interior entries that lead to these pages: not one
                // for a node that was empty, and that no step need have come to.
                f(Operation::Space(tag));
            } else {
                stale().for_each(|flush| self.pages(flush, |va| f(Operation::PageOf(tag, va))));
            }
        }
        if self.tags().all(|tag| tag != loaded) {
            let global = stale().filter(|flush| flush.global);
            global.for_each(|flush| self.pages(flush, |va| f(Operation::Page(va))));
        }
    }

    fn pages(&self, flush: &Flush, f: impl FnMut(VirtAddr)) {
        let page = flush.page.min(63);
        let first = flush.first.as_u64() >> page;
        let addresses = (0..flush.steps()).map(|step| {
            let aligned = VirtAddr::new((first + step) << page);
            // A wide stride may begin before the half that the range is in.
            if self.canonical.contains(aligned) { aligned } else { aligned.max(flush.first) }
        });
        addresses.filter(|va| self.canonical.contains(*va)).for_each(f);
    }
}

#[cfg(test)]
mod tests;
