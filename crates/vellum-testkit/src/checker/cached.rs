//! What may be cached of the page at one point, when it is wrong, and what makes it go.
//!
//! ```text
//!   walk     [root] --> [node] --> [node] --> leaf          cached: a leaf, and a link for each
//!             ^ link: all of the half    ^ link: 2^21       arrow, which names the node it leads to
//! ```
//!
//! Two valid entries of one address *clash* where a processor may not be made to choose between
//! them: another frame, size, memory type or GLOBAL, and an interior entry beside a leaf that takes its
//! place. What differs in rights and status alone does not.
//!
//! Source: for clashes, Arm ARM DDI 0487, D8.16.1 "Using break-before-make when updating
//! translation table entries".

use super::half_of;
use crate::Arena;
use vellum_core::{
    Attr, Canonical, Entry, Flush, PAGE_SHIFT, PageTable, PhysAddr, Ref, Scope, Span, VirtAddr,
};

/// A translation, as it holds for the page at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the leaf begins that it is part of.
    pub first: VirtAddr,
    /// log2 of that leaf's bytes.
    pub page: u8,
    /// The frame of the point itself.
    pub pa: PhysAddr,
    /// What the entry says.
    pub attr: Attr,
}

impl Leaf {
    fn last(&self) -> VirtAddr {
        self.first.wrapping_add((1 << self.page) - 1)
    }

    fn is_same_place(&self, other: &Self) -> bool {
        (self.first, self.page, self.pa) == (other.first, other.page, other.pa)
    }

    fn clashes(&self, other: &Self) -> bool {
        let differ = Attr::from_bits(self.attr.bits() ^ other.attr.bits());
        !self.is_same_place(other) || differ.intersects(Attr::MEMORY_MASK | Attr::GLOBAL)
    }
}

/// An interior entry, or the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How many entries lead to it from the root, whose own link has 0.
    pub depth: usize,
    /// The first address that it leads to.
    pub first: VirtAddr,
    /// The last.
    pub last: VirtAddr,
    /// A frame of the node that it leads to.
    pub node: PhysAddr,
    /// How often that frame had been freed when it was that node.
    pub freed: u64,
}

/// That an entry was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absence {
    /// log2 of the bytes that the entry spans.
    pub page: u8,
    /// What makes a processor forget it.
    pub scope: Scope,
}

/// Something that a CPU may have cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// In a TLB.
    Leaf(Leaf),
    /// In a cache of interior entries.
    Link(Link),
    /// Wherever.
    Absence(Absence),
}

impl Cached {
    pub(super) const fn is_absence(&self) -> bool {
        matches!(self, Self::Absence(_))
    }

    /// Whether one CPU may not have both of these for one address at a time.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(a), Self::Leaf(b)) => a.clashes(b),
            (Self::Leaf(leaf), Self::Link(link)) | (Self::Link(link), Self::Leaf(leaf)) => {
                // Of an entry that is above the leaf's own, a link is what it has to be.
                leaf.first <= link.first && link.last <= leaf.last()
            }
            (Self::Link(a), Self::Link(b)) => {
                (a.depth, a.first) == (b.depth, b.first) && (a.node, a.freed) != (b.node, b.freed)
            }
            (Self::Absence(_), _) | (_, Self::Absence(_)) => false,
        }
    }
}

/// What the processors are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    canonical: Canonical,
    /// log2 of the smallest page.
    pub(super) base: u8,
    /// The leaf sizes that are one entry: the entries of a larger one may be cached by themselves.
    entries: u64,
    /// What makes one forget that an entry of this span was empty.
    pub(super) absence: fn(u8) -> Option<Scope>,
    /// Entries that clash must not be met together.
    pub(super) breaks: bool,
}

impl Rules {
    pub(super) fn of<T: PageTable>(canonical: Canonical) -> Self {
        let base = T::LEAVES.trailing_zeros() as u8;
        Self { canonical, base, entries: T::REPLACEABLE, absence: |_| None, breaks: false }
    }

    /// log2 of the smallest piece in which a leaf of 2<sup>`page`</sup> bytes may be cached: an
    /// entry, if it is a group of several.
    fn piece(&self, page: u8) -> u8 {
        let fitting = self.entries & (u64::MAX >> (63 - u32::from(page)));
        (63 - (fitting | 1).leading_zeros()) as u8
    }

    /// Whether a flush makes every CPU forget what it has cached at a point.
    pub(super) fn forgets(&self, point: &Point, cached: &Cached, flush: Flush) -> bool {
        let last = point.va.wrapping_add((1 << self.base) - 1);
        let covers = flush.covers(point.va) && flush.covers(last);
        match *cached {
            Cached::Leaf(leaf) => {
                covers
                    && flush.scope >= Scope::Leaves
                    && (flush.global || !leaf.attr.contains(Attr::GLOBAL))
                    && flush.page <= self.stride(point, &leaf)
            }
            Cached::Link(link) => {
                flush.has_tables() && flush.first <= link.first && link.last <= flush.last
            }
            // An interior entry is one, whichever of its addresses is flushed.
            Cached::Absence(Absence { page, scope: Scope::Tables }) => {
                let (first, last) = point.block(page);
                flush.has_tables() && flush.first <= last && first <= flush.last
            }
            Cached::Absence(absence) => {
                covers && flush.scope >= absence.scope && flush.page <= absence.page
            }
        }
    }

    /// What a CPU forgets when it faults at a point though the table grants the access: the page
    /// alone, there alone. x86 does so by itself, elsewhere the handler says it.
    pub(super) fn fault(&self, point: &Point) -> Flush {
        Flush::new(point.va, 1 << self.base, self.base, Attr::GLOBAL)
    }

    /// The largest stride with which an invalidation meets every piece of this leaf. If the leaf
    /// has been split meanwhile, it is that of the parts: what one invalidation reaches goes by
    /// the size that the table says now (SDM vol. 3A, 5.10.4.1).
    fn stride(&self, point: &Point, leaf: &Leaf) -> u8 {
        let piece = self.piece(leaf.page);
        match point.now {
            Some(now) if now.pa == leaf.pa => piece.min(self.piece(now.page)),
            _ => piece,
        }
    }
}

/// A page at which the model looks, and what the table says there.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Its first address.
    pub(super) va: VirtAddr,
    /// What the table translates it to; `None` if a walker finds nothing that it could use.
    pub(super) now: Option<Leaf>,
    /// The interior entries on the way, as the table has them now, and absence.
    path: Vec<Cached>,
}

impl Point {
    pub(super) const fn new(va: VirtAddr) -> Self {
        Self { va, now: None, path: Vec::new() }
    }

    /// The table was walked for this point.
    pub(super) fn see(&mut self, span: Span, path: &[Ref], rules: &Rules, arena: &Arena) {
        let page = span.len.max(1).ilog2() as u8;
        self.now = match span.entry {
            // An entry without rights is invalid to hardware.
            Entry::Leaf(pa, attr) if attr.intersects(Attr::RWX) => {
                let offset = self.va.as_u64() - span.va.as_u64();
                Some(Leaf { first: span.va, page, pa: pa.wrapping_add(offset), attr })
            }
            _ => None,
        };
        self.path.clear();
        let mut reached = None;
        for r in path {
            // Led to by an entry that spans more than what it leads to: an interior one. A table
            // whose first entry spans more than a page has such, and a root.
            let range = match reached {
                Some(span) if span > r.span => Some(self.block(span)),
                None if r.span > rules.base => Some(half_of(rules.canonical, self.va)),
                _ => None,
            };
            if let Some((first, last)) = range {
                let node = r.pa.align_down(PAGE_SHIFT);
                let freed = arena.times_freed(node);
                let depth = self.path.len();
                self.path.push(Cached::Link(Link { depth, first, last, node, freed }));
            }
            reached = Some(r.span);
        }
        if let (None, Some(scope)) = (self.now, (rules.absence)(page)) {
            self.path.push(Cached::Absence(Absence { page, scope }));
        }
    }

    /// What may be cached, as the table has it now.
    pub(super) fn seen(&self) -> impl Iterator<Item = Cached> + '_ {
        self.now.map(Cached::Leaf).into_iter().chain(self.path.iter().copied())
    }

    /// There is no table any more that could say something.
    pub(super) fn see_nothing(&mut self) {
        self.now = None;
        self.path.clear();
    }

    /// The block of 2<sup>`span`</sup> bytes that the point is in: its first and last address.
    fn block(&self, span: u8) -> (VirtAddr, VirtAddr) {
        let first = self.va.align_down(span);
        (first, first.wrapping_add((1 << span) - 1))
    }

    /// Whether who uses this does other than the table says.
    pub(super) fn is_wrong(&self, cached: &Cached) -> bool {
        match (cached, self.now) {
            (Cached::Leaf(old), Some(new)) => !old.is_same_place(&new) || loses(old.attr, new.attr),
            (Cached::Leaf(_), None) => true,
            (Cached::Link(_), _) => !self.path.contains(cached),
            (Cached::Absence(_), now) => now.is_some(),
        }
    }
}

/// Whether an access that needs `need` faults by this, though it may be right.
pub(super) fn denies(cached: &Cached, need: Attr) -> bool {
    match cached {
        Cached::Leaf(leaf) => !leaf.attr.contains(need),
        Cached::Absence(_) => true,
        Cached::Link(_) => false,
    }
}

/// Whether `old` grants what `new` does not, or would keep hardware from noting what it should.
/// What is granted anew is found by the fault that follows, when the entry is walked to again.
fn loses(old: Attr, new: Attr) -> bool {
    let [a, b, c] = Attr::SOFT;
    let grows = Attr::RWX | Attr::STATUS;
    let rest = Attr::from_bits((old.bits() ^ new.bits()) & !(grows | a | b | c).bits());
    (old - new).intersects(grows) || rest != Attr::NONE
}
