//! The model of walk caches (x86: paging-structure caches): interior entries of a walk that the
//! walker need not read again.
//!
//! ```text
//!   walk of a radix tree     PML4E      PDPTE      PDE        PTE
//!   span                     39         30         21         12 = the leaf's own: never cached
//!                                                  ^
//!   the deepest span whose block is cached: all references up to it are skipped
//! ```
//!
//! Nothing here knows of levels: a reference is interior where the block of addresses that shares
//! it is larger than the leaf that the walk ends at. So the PDE of a 2 MiB leaf is not cached, and
//! a hashed walk, whose references are the leaf's own, has nothing to cache.
//!
//! # Invariants
//!
//! - An entry is in use only for addresses of its own block and address space.
//!
//! Source: Intel SDM vol. 3A, 5.10.3 "Paging-Structure Caches". Which of several hits is used,
//! and which hits count as a use, is open there: here the deepest, and that one alone.

use crate::tag::{Owner, Tag, has_tag};
use crate::{Asid, Geometry, LruSets, WalkCacheSize};
use alloc::vec::Vec;
use vellum_core::{Ref, VirtAddr};

/// One fully associative LRU cache per span.
///
/// ```
/// use vellum_core::{PhysAddr, Ref, VirtAddr};
/// use vellum_tlb::{Asid, WALK_CACHE_X86, WalkCaches};
///
/// let entry = |span| Ref { pa: PhysAddr::new(0x1000), bytes: 8, span, parallel: false };
/// let walk = [entry(39), entry(30), entry(21), entry(12)];
/// let asid = Asid::default();
///
/// let mut caches = WalkCaches::new(WALK_CACHE_X86);
/// assert_eq!(caches.walk(VirtAddr::new(0x0000_0000), asid, 12, &walk), 0);
/// assert_eq!(caches.walk(VirtAddr::new(0x001f_f000), asid, 12, &walk), 3); // the same PDE
/// assert_eq!(caches.walk(VirtAddr::new(0x0020_0000), asid, 12, &walk), 2); // the same PDPTE
/// ```
#[derive(Clone, Debug)]
pub struct WalkCaches {
    caches: Vec<Cache>,
    /// Of each span the number of its cache; beyond the last: none.
    of_span: [u8; 64],
}

#[derive(Clone, Debug)]
struct Cache {
    span: u8,
    blocks: LruSets,
}

impl Cache {
    fn touch(&mut self, va: VirtAddr, asid: Asid) -> bool {
        self.blocks.touch(0, Tag::of_block(va, self.span, Owner::One(asid)).raw())
    }

    /// Puts in a block that is known not to be there.
    fn insert(&mut self, va: VirtAddr, asid: Asid) {
        self.blocks.insert(0, Tag::of_block(va, self.span, Owner::One(asid)).raw());
    }

    fn fill(&mut self, va: VirtAddr, asid: Asid) {
        self.blocks.touch_or_insert(0, Tag::of_block(va, self.span, Owner::One(asid)).raw());
    }
}

impl WalkCaches {
    /// Empty caches of these sizes. Of several sizes for one span the first counts; spans below
    /// 13 or above 63 hold nothing that a walk could share.
    #[must_use]
    pub fn new(sizes: &[WalkCacheSize]) -> Self {
        let caches: Vec<_> = sizes
            .iter()
            .filter(|size| (13..64).contains(&size.span))
            .map(|size| Cache {
                span: size.span,
                blocks: LruSets::new(Geometry::full(size.entries)),
            })
            .collect();
        let mut of_span = [u8::MAX; 64];
        for (cache, number) in caches.iter().zip(0..u8::MAX).rev() {
            of_span[usize::from(cache.span)] = number;
        }
        Self { caches, of_span }
    }

    /// How many leading references of a walk of `va` are skipped; the interior ones among the
    /// rest are then cached. `leaf` is log2 of the bytes of the leaf that the walk ended at.
    pub fn walk(&mut self, va: VirtAddr, asid: Asid, leaf: u8, refs: &[Ref]) -> usize {
        if self.caches.is_empty() || !has_tag(va) {
            return 0;
        }
        let skipped = self.skipped(va, asid, leaf, refs);
        let mut filled = 0u64; // a bit for each span
        for interior in refs.iter().skip(skipped).filter(|r| r.span > leaf) {
            let Some(cache) = self.of_span(interior.span) else { continue };
            // The first of its span was looked for just now, in vain.
            match filled >> interior.span & 1 {
                0 => cache.insert(va, asid),
                _ => cache.fill(va, asid),
            }
            filled |= 1 << interior.span;
        }
        skipped
    }

    fn skipped(&mut self, va: VirtAddr, asid: Asid, leaf: u8, refs: &[Ref]) -> usize {
        for (i, interior) in refs.iter().enumerate().rev().filter(|(_, r)| r.span > leaf) {
            if self.of_span(interior.span).is_some_and(|cache| cache.touch(va, asid)) {
                return i + 1;
            }
        }
        0
    }

    fn of_span(&mut self, span: u8) -> Option<&mut Cache> {
        let number = *self.of_span.get(usize::from(span))?;
        self.caches.get_mut(usize::from(number))
    }

    /// Drops everything.
    pub fn flush_all(&mut self) {
        self.caches.iter_mut().for_each(|cache| cache.blocks.clear());
    }

    /// Drops what belongs to one address space; as INVLPG does, which spares no interior entry of
    /// the current one (SDM vol. 3A, 5.10.4.1).
    pub fn flush_asid(&mut self, asid: Asid) {
        for cache in &mut self.caches {
            cache.blocks.retain(|raw| !Tag::from_raw(raw).belongs_to(asid));
        }
    }

    /// Drops the interior entries on the way to `va` in one address space: all that is asked for
    /// where the architecture can invalidate so narrowly (Arm: TLBI VAE1).
    pub fn flush_page(&mut self, va: VirtAddr, asid: Asid) {
        for cache in &mut self.caches {
            let gone = Tag::of_block(va, cache.span, Owner::One(asid)).raw();
            cache.blocks.retain(|raw| raw != gone);
        }
    }
}

#[cfg(test)]
mod tests;
