//! Giving a child what its parent maps.
//!
//! ```text
//!   before            after, of a private range              of a shared one
//!   parent RW->f1     parent RO->f1<-RO child                parent RW->f1<-RW child
//!   parent swap 7     parent swap 7, child swap 7            the same
//! ```
//!
//! Which ranges are worth giving is the space's business: what a fault could find again in a file need
//! not be copied.

use super::rss::Tally;
use super::{Mmu, RssKind, each_frame, gather};
use crate::region::Sharing;
use crate::soft::Marker;
use crate::system::{Swap, System};
use vellum_cache::page::PageInfo;
use vellum_core::{Attr, Cause, Change, Entry, PageTable, RangeError, Run, Span, VirtAddr};

impl<S: System> Mmu<'_, S> {
    /// Gives `child`, which maps nothing there, every page of the range.
    ///
    /// The child must not run before this has returned. Both are borrowed, so nobody faults meanwhile.
    ///
    /// # Errors
    ///
    /// Out of memory. The child has exactly `[va, va + done)`, which the caller zaps or retires; the
    /// parent's pages may be read-only, which costs their next stores a fault.
    /// [`Cause::NonCanonical`] for a child of another engine, which would give the pages back elsewhere.
    pub fn copy_to(
        &mut self,
        child: &mut Self,
        va: VirtAddr,
        len: u64,
        sharing: Sharing,
    ) -> Result<(), RangeError> {
        if !core::ptr::eq(self.engine, child.engine) {
            return Err(RangeError { cause: Cause::NonCanonical(va), done: 0 });
        }
        let change = match sharing {
            Sharing::Private => Change::clearing(Attr::WRITE),
            Sharing::Shared => Change::default(),
        };
        let Self { engine, table, cpus, rss } = self;
        let Self { table: child_table, cpus: child_cpus, rss: child_rss, engine: child_engine } =
            child;
        let mut gather_parent = gather::<S, 8>(engine, cpus, rss);
        let mut gather_child = gather::<S, 2>(child_engine, child_cpus, child_rss);
        let shared = table.share(
            va,
            len,
            change,
            &mut gather_parent,
            (&mut **child_table, &mut gather_child),
            &mut |span| given(engine, child_rss, span),
        );
        gather_parent.finish();
        gather_child.finish();
        shared
    }
}

/// The child has got this: its shares.
fn given<S: System>(engine: &super::Engine<S>, rss: &super::Rss, span: Span) {
    match span.entry {
        Entry::Hole => {}
        Entry::Leaf(pa, attr) => {
            let run = Run::new(span.va, pa, span.len, attr);
            let mut came = Tally::default();
            each_frame(engine, run, |info: &PageInfo| {
                info.mapped_again();
                came.note(RssKind::of(info.state()));
            });
            came.each(|kind, pages| rss.add(span.va, kind, pages));
        }
        Entry::Soft(soft) => {
            if let Some(Marker::Swap(entry)) = Marker::of(soft) {
                let shared = engine.system().swap().share(entry);
                debug_assert!(shared, "the parent's entry has a share");
                rss.add(span.va, RssKind::Swap, 1);
            }
        }
    }
}
