//! Visiting a range, bounded whatever the table says.
//!
//! ```text
//!   path     root <-- node <-- node          on the stack: a link to any of these is a loop
//!   budget   one for each entry read         links shared a thousand times over end here
//! ```
//!
//! A loop is not entered: behind it lie nodes that have their proper place elsewhere, read as if
//! they were of another level. Owners that map their tables recursively make such loops; they, too,
//! are reported, once each, and cost nothing.

use super::{Corrupt, Flaw, Found, Item, Step, Walker};
use crate::format::Format;
use core::ops::ControlFlow;
use vellum_core::{Attr, Cause, Entry, PAGE_SHIFT, PhysAddr, PhysMap, Span, VirtAddr};

/// What a visit tells.
type Told = Result<Item, Corrupt>;

/// A node that is being visited, with all above it.
#[derive(Clone, Copy)]
struct Path<'p> {
    node: PhysAddr,
    /// The entry that links it; for the root as [`Corrupt`] has it.
    link: Found,
    /// The depth of the node.
    depth: usize,
    /// What the levels above leave.
    rights: Attr,
    above: Option<&'p Self>,
}

impl Path<'_> {
    /// Whether `node` is this one or one above.
    fn has(&self, node: PhysAddr) -> bool {
        let mut path = Some(self);
        while let Some(Self { node: other, above, .. }) = path {
            if *other == node {
                return true;
            }
            path = *above;
        }
        false
    }
}

/// One visit.
struct Visit<'w, W, V> {
    walker: &'w W,
    /// Entries that may still be read.
    budget: u64,
    f: &'w mut V,
}

impl<F: Format, P: PhysMap, R: Fn(PhysAddr) -> bool> Walker<F, P, R> {
    /// Visits what is in `len` bytes from `va` and is no hole, ascending, an entry at a time; each
    /// corrupt place once, and what is below it not at all. Leaves are cut to the range.
    ///
    /// Reads every entry of the range in every node there, at most as many as the budget allows
    /// ([`with_budget`](Self::with_budget)), and ends early when `f` breaks.
    ///
    /// # Errors
    ///
    /// [`Cause::NonCanonical`] or [`Cause::Wraps`], before anything is read.
    pub fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Told) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        F::CANONICAL.check(va, len, 0)?;
        let mut visit = Visit { walker: self, budget: self.budget, f };
        // A break has been asked for; there is nobody else to tell.
        let _ = visit.all((va, len));
        Ok(())
    }

    /// The same with leaves joined that continue each other: same size, same attributes, addresses
    /// adjacent on both sides. The raw entry is that of the first.
    ///
    /// # Errors
    ///
    /// As [`visit`](Self::visit).
    pub fn visit_runs(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Told) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        let mut joined: Option<Item> = None;
        self.visit(va, len, &mut |told| {
            match (&mut joined, &told) {
                (Some(run), Ok(item)) if continues(run, item) => {
                    run.span.len += item.span.len;
                    return ControlFlow::Continue(());
                }
                _ => {}
            }
            // Taken first: after a break there is nothing left to tell.
            if let Some(run) = joined.take() {
                f(Ok(run))?;
            }
            match told {
                Ok(item) => joined = Some(item),
                Err(corrupt) => f(Err(corrupt))?,
            }
            ControlFlow::Continue(())
        })?;
        if let Some(run) = joined {
            // The last one; there is nothing left to stop.
            let _ = f(Ok(run));
        }
        Ok(())
    }
}

impl<F, P, R, V> Visit<'_, Walker<F, P, R>, V>
where
    F: Format,
    P: PhysMap,
    R: Fn(PhysAddr) -> bool,
    V: FnMut(Told) -> ControlFlow<()>,
{
    fn all(&mut self, (va, len): (VirtAddr, u64)) -> ControlFlow<()> {
        let node = self.walker.root;
        let link = Found { at: node, raw: node.as_u64(), depth: 0 };
        if let Err(flaw) = Walker::<F, P, R>::check_node(node, 0) {
            return (self.f)(Err(link.is(flaw, va)));
        }
        let rights = Attr::RWX | Attr::USER;
        self.node(&Path { node, link, depth: 0, rights, above: None }, (va, len))
    }

    /// Visits the part of a node that translates the range.
    fn node(&mut self, path: &Path<'_>, (mut va, mut left): (VirtAddr, u64)) -> ControlFlow<()> {
        let size = 1u64 << F::LEVELS[path.depth].shift;
        let mut reached = None;
        while left > 0 {
            let len = left.min(size - (va.as_u64() & (size - 1)));
            let at = Walker::<F, P, R>::slot(path.node, va, path.depth);
            let frame = at.align_down(PAGE_SHIFT);
            if reached != Some(frame) {
                if !(self.walker.is_memory)(at) {
                    // The rest of a node that begins in memory is not looked for.
                    return (self.f)(Err(path.link.is(Flaw::NotMemory, va)));
                }
                reached = Some(frame);
            }
            let Some(budget) = self.budget.checked_sub(1) else {
                let _ = (self.f)(Err(path.link.is(Flaw::TooLong, va)));
                return ControlFlow::Break(());
            };
            self.budget = budget;
            let raw = self.walker.load_memory(at);
            let found = Found { at, raw, depth: path.depth };
            // Most entries of a sparse table are holes, and cost no decoding.
            if raw != 0 {
                self.entry(path, found, (va, len))?;
            }
            va = va.wrapping_add(len);
            left -= len;
        }
        ControlFlow::Continue(())
    }

    /// Visits what one entry says about the range, which lies within it.
    fn entry(
        &mut self,
        path: &Path<'_>,
        found: Found,
        (va, len): (VirtAddr, u64),
    ) -> ControlFlow<()> {
        let (entry, page, own) = match self.walker.judge(found.raw, found.depth, path.rights) {
            Err(flaw) => return (self.f)(Err(found.is(flaw, va))),
            Ok(Step::Node(node, _)) if path.has(node) => {
                return (self.f)(Err(found.is(Flaw::Loop, va)));
            }
            Ok(Step::Node(node, rights)) => {
                let (link, depth) = (found, found.depth + 1);
                return self
                    .node(&Path { node, link, depth, rights, above: Some(path) }, (va, len));
            }
            Ok(Step::End { entry: Entry::Hole, .. }) => return ControlFlow::Continue(()),
            Ok(Step::End { entry: Entry::Leaf(pa, attr), page, own }) => {
                let within = va.as_u64() & ((1 << page) - 1);
                (Entry::Leaf(pa.wrapping_add(within), attr), page, own)
            }
            Ok(Step::End { entry, page, own }) => (entry, page, own),
        };
        (self.f)(Ok(Item { span: Span { va, len, entry }, page, own, raw: found.raw }))
    }
}

/// Whether `next` begins where `run` ends, with leaves that go on as its do.
fn continues(run: &Item, next: &Item) -> bool {
    match (run.span.entry, next.span.entry) {
        (Entry::Leaf(a, attr), Entry::Leaf(b, other)) => {
            (attr, run.own, run.page) == (other, next.own, next.page)
                && run.span.va.checked_add(run.span.len) == Some(next.span.va)
                && a.checked_add(run.span.len) == Some(b)
        }
        _ => false,
    }
}
