//! A read-only view of somebody else's tables, which may change meanwhile, or be corrupt.
//!
//! ```text
//!   root --> +---+      +---+      +---+
//!            | T |----->| T |----->| L |    a link is followed only into memory; each entry is
//!            | T |--.   | T |--.   | L |    read once, and believed to be no more than bits
//!            | T |- |   +---+  |   +---+
//!            +---+ \|      ^   '--> not memory     Corrupt: NotMemory
//!                   \------'        node above     Corrupt: Loop (a visit; a single walk goes on)
//! ```
//!
//! A [`Walker`] needs no [`Memory`](vellum_core::Memory): it neither takes frames nor writes. What
//! it finds, it reports as [`Item`]s, with the rights that all levels together leave, and as
//! [`Corrupt`]s; it goes on behind those.
//!
//! # Invariants
//!
//! - No byte is read that `is_memory` does not accept.
//! - A walk reads at most one entry a level. A visit reads at most as many entries as its budget
//!   allows, whatever the table says: links shared many times over, and loops, end there.
//! - Not-present entries are read by this crate's conventions (`PROT_NONE`, soft entries): what
//!   another owner keeps in them, nobody else can know.
//!
//! Source: the format's manual; on x86-64, Intel SDM vol. 3A, 5.6 "Access Rights".

mod corrupt;
mod visit;

use crate::format::{Decoded, Format};
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vellum_core::{Attr, Entry, PhysAddr, PhysMap, Ref, Sink, Span, VirtAddr};

pub use corrupt::{Corrupt, Flaw, WalkError};

/// How many entries a visit may read, unless told: those of 4 GiB of 64-bit tables.
pub const BUDGET: u64 = 1 << 29;

/// One entry that links no node, as a walker found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where and what. Of a leaf, the rights are those that all levels together leave.
    pub span: Span,
    /// log2 of the bytes of the leaf, or that the entry spans.
    pub page: u8,
    /// Of a leaf, the attributes that it states itself.
    pub own: Attr,
    /// The entry.
    pub raw: u64,
}

/// Reads tables of format `F` through the map `P`, wherever `R` says that there is memory.
pub struct Walker<F, P, R> {
    root: PhysAddr,
    map: P,
    is_memory: R,
    budget: u64,
    width: u8,
    format: PhantomData<fn() -> F>,
}

/// An entry, and where it was found.
#[derive(Clone, Copy)]
struct Found {
    at: PhysAddr,
    raw: u64,
    depth: usize,
}

/// What a walker makes of an entry.
enum Step {
    /// The node at this address is next, under these rights.
    Node(PhysAddr, Attr),
    /// The way ends with this.
    End { entry: Entry, page: u8, own: Attr },
}

impl<F: Format, P: PhysMap, R: Fn(PhysAddr) -> bool> Walker<F, P, R> {
    /// A view of the table whose root node is at `root`. Nothing is read yet.
    ///
    /// # Safety
    ///
    /// For every 4 KiB frame that `is_memory` accepts and that the table, as it is found, leads to
    /// (a table that may be corrupt leads to all of them), while this value lives:
    ///
    /// - `map` reaches the frame, as [`PhysMap`] promises it, and its bytes are initialised;
    /// - nobody in this program has exclusive references to its bytes, or writes them other than
    ///   by atomic operations of an entry's size, at the same time as a method of this value runs.
    ///   Hardware, and whoever else is not part of this program, may write as they like.
    ///
    /// Nothing is demanded of `root`.
    #[allow(unsafe_code, reason = "the caller answers for what is_memory accepts")]
    pub const unsafe fn new(root: PhysAddr, map: P, is_memory: R) -> Self {
        Self { root, map, is_memory, budget: BUDGET, width: 64, format: PhantomData }
    }

    /// The same with visits that read at most `entries`, and end with [`Flaw::TooLong`] after that.
    #[must_use]
    pub fn with_budget(self, entries: u64) -> Self {
        Self { budget: entries, ..self }
    }

    /// The same with leaves held to physical addresses of `bits` bits.
    #[must_use]
    pub fn with_physical_bits(self, bits: u8) -> Self {
        Self { width: bits, ..self }
    }

    /// Where the root node lies.
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    /// What the byte at `va` is translated to, and with which attributes; `None` where hardware
    /// would find no translation.
    ///
    /// # Errors
    ///
    /// As [`walk`](Self::walk).
    pub fn translate(&self, va: VirtAddr) -> Result<Option<(PhysAddr, Attr)>, WalkError> {
        let Item { span, .. } = self.walk(va, &mut ())?;
        Ok(match span.entry {
            Entry::Leaf(pa, attr) if attr.intersects(Attr::RWX) => {
                Some((pa.wrapping_add(va.as_u64().wrapping_sub(span.va.as_u64())), attr))
            }
            _ => None,
        })
    }

    /// Finds what translates the byte at `va`, as hardware would, reporting every entry read: the
    /// whole leaf, or the entry without one. Links are followed also into nodes above: no further
    /// than there are levels.
    ///
    /// # Errors
    ///
    /// [`WalkError::NonCanonical`], before anything is read; [`WalkError::Corrupt`].
    pub fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Item, WalkError> {
        if !F::CANONICAL.contains(va) {
            return Err(WalkError::NonCanonical(va));
        }
        let mut node = self.root;
        let mut rights = Attr::RWX | Attr::USER;
        let mut link = Found { at: node, raw: node.as_u64(), depth: 0 };
        Self::check_node(node, 0).map_err(|flaw| link.is(flaw, va))?;
        for (depth, level) in F::LEVELS.iter().enumerate() {
            let at = Self::slot(node, va, depth);
            let raw = self.load(at).ok_or(Flaw::NotMemory).map_err(|flaw| link.is(flaw, va))?;
            let bytes = 1 << F::ENTRY_SHIFT;
            sink.reference(Ref { pa: at, bytes, span: level.shift, parallel: false });
            link = Found { at, raw, depth };
            match self.judge(raw, depth, rights).map_err(|flaw| link.is(flaw, va))? {
                Step::Node(next, left) => (node, rights) = (next, left),
                Step::End { entry, page, own } => {
                    let span = Span { va: va.align_down(page), len: 1 << page, entry };
                    return Ok(Item { span, page, own, raw });
                }
            }
        }
        // The lowest level links nothing (`judge`), so that the loop returned.
        Err(link.is(Flaw::Misplaced, va).into())
    }

    /// Where a node of this depth has its entry for `va`.
    fn slot(node: PhysAddr, va: VirtAddr, depth: usize) -> PhysAddr {
        let level = F::LEVELS[depth];
        let index = va.as_u64() >> level.shift & ((1 << level.bits) - 1);
        node.wrapping_add(index << F::ENTRY_SHIFT)
    }

    /// Refuses a node of this depth whose entries would not be aligned.
    fn check_node(node: PhysAddr, depth: usize) -> Result<(), Flaw> {
        if node.is_aligned(F::LEVELS[depth].bits + F::ENTRY_SHIFT) {
            Ok(())
        } else {
            Err(Flaw::Misaligned)
        }
    }

    /// The entry at `at`, which is aligned to an entry's size, if that is memory.
    fn load(&self, at: PhysAddr) -> Option<u64> {
        (self.is_memory)(at).then(|| self.load_memory(at))
    }

    /// The entry at `at`, which is aligned to an entry's size and in a frame that `is_memory`
    /// accepts.
    fn load_memory(&self, at: PhysAddr) -> u64 {
        // Acquire: what was written to a node before it was linked is seen behind the link.
        self.map.with(at, |p| {
            if F::ENTRY_SHIFT == 2 {
                // SAFETY: as below, for 4 bytes.
                #[allow(unsafe_code, reason = "reads table memory")]
                let entry = unsafe { AtomicU32::from_ptr(p.cast().as_ptr()) };
                u64::from(entry.load(Ordering::Acquire))
            } else {
                // SAFETY: by the contract of `new` the pointer is good to the end of the frame, and
                // as aligned as `at` is; 8 bytes at a multiple of 8 do not cross the frame's end.
                // They are initialised, and whoever writes them in the meantime does so by atomics
                // of this size.
                #[allow(unsafe_code, reason = "reads table memory")]
                let entry = unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) };
                entry.load(Ordering::Acquire)
            }
        })
    }

    /// What an entry of this depth says, where the levels above leave `rights`.
    fn judge(&self, raw: u64, depth: usize, rights: Attr) -> Result<Step, Flaw> {
        let level = F::LEVELS[depth];
        if F::has_reserved_bits(raw, level.shift) {
            return Err(Flaw::Reserved);
        }
        let end = |entry| Step::End { entry, page: level.shift, own: Attr::NONE };
        let (pa, own, page) = match F::decode(raw, level.shift) {
            Decoded::Table(_) if depth + 1 == F::LEVELS.len() => return Err(Flaw::Misplaced),
            Decoded::Table(pa) => {
                Self::check_node(pa, depth + 1)?;
                return Ok(Step::Node(pa, rights & F::table_rights(raw, level.shift)));
            }
            Decoded::Entry(Entry::Leaf(..)) if !level.leaf => return Err(Flaw::Misplaced),
            Decoded::Entry(Entry::Leaf(pa, own)) if !F::is_grouped(raw, level.shift) => {
                (pa, own, level.shift)
            }
            Decoded::Entry(Entry::Leaf(..)) => {
                // Any entry of a group decodes to the whole leaf.
                let page = level.group_shift();
                match F::decode(raw, page).entry() {
                    Entry::Leaf(pa, own) => (pa, own, page),
                    entry => return Ok(end(entry)),
                }
            }
            Decoded::Entry(entry) => return Ok(end(entry)),
        };
        let is_used = own.intersects(Attr::RWX);
        if is_used && self.width < 64 && (pa.as_u64() | ((1 << page) - 1)) >> self.width != 0 {
            return Err(Flaw::TooWide);
        }
        let limited = Attr::RWX | Attr::USER;
        let entry = Entry::Leaf(pa, own & (rights | !limited));
        Ok(Step::End { entry, page, own })
    }
}

impl Found {
    /// What is wrong with it, for `va`.
    fn is(self, flaw: Flaw, va: VirtAddr) -> Corrupt {
        let Self { at, raw, depth } = self;
        // A handful of levels, whatever the format.
        Corrupt { va, level: u8::try_from(depth).unwrap_or(u8::MAX), at, raw, flaw }
    }
}

impl<F: Format, P, R> fmt::Debug for Walker<F, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Walker({} levels, root at {})", F::LEVELS.len(), self.root)
    }
}
