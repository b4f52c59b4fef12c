//! Giving a child what its parent maps.
//!
//! ```text
//!   before            after, of a private range              of a shared one
//!   parent RW->f1     parent RO->f1<-RO child                parent RW->f1<-RW child
//!   parent swap 7     parent swap 7, child swap 7            the same
//! ```
//!
//! Where the table can, whole parts of it are linked in the child's instead, and nothing is counted but
//! what the child shows (mmu/linked.rs).
//!
//! Which ranges are worth giving is the space's business: what a fault could find again in a file need
//! not be copied.

use super::linked::shown;
use super::rss::Tally;
use super::{Mmu, RssKind, each_frame, gather};
use crate::engine::Engine;
use crate::region::{Backing, Region, Sharing};
use crate::soft::Marker;
use crate::system::System;
use core::sync::atomic::Ordering::Relaxed;
use vellum_cache::page::PageInfo;
use vellum_core::{
    Cause, Change, Entry, Given, PAGE_SIZE, PageTable, RangeError, Run, Span, Swap, VirtAddr,
};

impl<S: System> Mmu<'_, S> {
    /// Gives `child`, which maps nothing there, every page of the region.
    ///
    /// The child must not run before this has returned. Both are borrowed, so nobody faults meanwhile.
    ///
    /// # Errors
    ///
    /// Out of memory. The child has exactly the first `done` bytes, which the caller zaps or retires; the
    /// parent's pages may be read-only, which costs their next stores a fault.
    /// [`Cause::NonCanonical`] for a child of another engine, which would give the pages back elsewhere.
    pub fn copy_to(&mut self, child: &mut Self, region: &Region) -> Result<(), RangeError> {
        let Region { start: va, len, sharing, backing, .. } = *region;
        if !core::ptr::eq(self.engine, child.engine) {
            return Err(RangeError { cause: Cause::NonCanonical(va), done: 0 });
        }
        child.has_large.fetch_or(self.may_have_large(), Relaxed);
        child.has_guards |= self.has_guards;
        if sharing == Sharing::Shared || len == 0 {
            return self.share_with(child, va, len);
        }
        let links = backing == Backing::Anon;
        let (mut done, mut refused) = (0, None);
        loop {
            let rest = (va.wrapping_add(done), len - done);
            match self.fork_to(child, rest, links) {
                // A part that is linked already, and cannot be once more.
                Err(RangeError { cause: Cause::Shared(at), done: more }) if refused != Some(at) => {
                    done += more;
                    refused = Some(at);
                    self.make_own(at, PAGE_SIZE).map_err(|e| RangeError { done, ..e })?;
                }
                result => return result.map_err(|e| RangeError { done: done + e.done, ..e }),
            }
        }
    }

    /// Pages of a private region; parts of the table are linked, or entries copied.
    fn fork_to(
        &mut self,
        child: &mut Self,
        (va, len): (VirtAddr, u64),
        links: bool,
    ) -> Result<(), RangeError> {
        let Self { engine, table, cpus, rss, links: may_link, .. } = self;
        let mut gather_parent = gather::<S, 8>(engine, cpus, rss);
        let mut gather_child = gather::<S, 2>(child.engine, &child.cpus, &child.rss);
        let (theirs, counts) = (&mut *child.table, &child.rss);
        let change = Change::clearing(vellum_core::Attr::WRITE);
        let mut linked = Tally::default();
        let mut any = false;
        let given_to = (theirs, &mut gather_child);
        let shared = if links {
            table.fork(va, len, &mut gather_parent, given_to, &mut |what| match what {
                Given::Own(span) => given(engine, counts, span),
                Given::Linked(span) => {
                    any = true;
                    shown(engine, span, &mut linked);
                }
            })
        } else {
            let each = &mut |span| given(engine, counts, span);
            table.share(va, len, change, &mut gather_parent, given_to, each)
        };
        linked.each(|kind, pages| counts.add(va, kind, pages));
        gather_parent.finish();
        gather_child.finish();
        // Of a part without an entry nothing was told, and it is linked all the same.
        any |= links && !any && table.next_linked(va, len).is_some();
        *may_link |= any;
        child.links |= any;
        shared
    }

    /// Pages of a shared region.
    fn share_with(&mut self, child: &mut Self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        let Self { engine, table, cpus, rss, .. } = self;
        let mut gather_parent = gather::<S, 8>(engine, cpus, rss);
        let mut gather_child = gather::<S, 2>(child.engine, &child.cpus, &child.rss);
        let counts = &child.rss;
        let shared = table.share(
            va,
            len,
            Change::default(),
            &mut gather_parent,
            (&mut *child.table, &mut gather_child),
            &mut |span| given(engine, counts, span),
        );
        gather_parent.finish();
        gather_child.finish();
        shared
    }
}

/// The child has got this: its shares.
fn given<S: System>(engine: &Engine<S>, rss: &super::Rss, span: Span) {
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
