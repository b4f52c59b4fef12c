//! Tables as text: merged ranges to read, or a leaf a line, as QEMU's `info tlb` prints them.
//!
//! ```text
//! ffff800000000000-ffff80003fffffff       1G 0000000000000-000003fffffff   1G rw--g WB  ad --- k1
//! |                                  length  |                             |  |     |   |  |   |
//! first and last byte, virtual                and physical      leaf size -'  |     |   |  |   |
//!                    effective rights (all levels together), user, global ----'     |   |  |   |
//!                                                       memory type ----------------'   |  |   |
//!                                                       accessed, dirty ----------------'  |   |
//!                                                       software's bits -------------------'   |
//!                                                       protection key, if not 0 --------------'
//!
//! ffff800000000000: 0000000000000000 XGPDA---W   1G rw--g WB
//! virtual           physical         |          |  |     memory type
//!                     QEMU's flags --'          |  effective rights, user, global
//!                                    leaf size -'
//! ```
//!
//! QEMU's flags are those of the leaf alone: no-execute (X), global, large page (P), dirty,
//! accessed, cache-disable (C), write-through (T), user, write. C and T are the two bits of the
//! memory type that x86-64 has in the same place in all leaves: PAT is not among QEMU's flags.
//!
//! Every line fits 100 columns. Corrupt places have lines of their own, which begin with `!`.
//!
//! Source: QEMU 7.2, `target/i386/monitor.c`, which prints `info tlb`.

use crate::format::{Format, base_shift};
use crate::walker::{Corrupt, Item, Walker};
use core::fmt::{self, Display, Write};
use core::ops::ControlFlow;
use vellum_core::{Attr, Entry, MemoryType, PhysAddr, PhysMap, Span};

/// A whole table as merged ranges, a line each; see the [module](self).
#[derive(Debug)]
pub struct Ranges<'w, W>(&'w W);

/// A whole table, a line for each leaf; see the [module](self).
#[derive(Debug)]
pub struct Leaves<'w, W>(&'w W);

impl<F: Format, P: PhysMap, R: Fn(PhysAddr) -> bool> Walker<F, P, R> {
    /// The whole table as merged ranges, when displayed. Bounded as [`visit`](Self::visit) is, in
    /// each half.
    pub const fn ranges(&self) -> Ranges<'_, Self> {
        Ranges(self)
    }

    /// The whole table, leaf by leaf, when displayed. Bounded as [`visit`](Self::visit) is, in each
    /// half.
    pub const fn leaves(&self) -> Leaves<'_, Self> {
        Leaves(self)
    }
}

impl<F: Format, P: PhysMap, R: Fn(PhysAddr) -> bool> Display for Ranges<'_, Walker<F, P, R>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lines(f, |half, tell| {
            let (va, len) = F::CANONICAL.halves()[half];
            // A half is canonical.
            let _ = self.0.visit_runs(va, len, &mut |told| tell(&told.map(Range)));
        })
    }
}

impl<F: Format, P: PhysMap, R: Fn(PhysAddr) -> bool> Display for Leaves<'_, Walker<F, P, R>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lines(f, |half, tell| {
            let (va, len) = F::CANONICAL.halves()[half];
            // A half is canonical.
            let _ = self.0.visit(va, len, &mut |told| tell(&told.map(Leaf::of::<F>)));
        })
    }
}

/// Writes both halves, a line for each thing told, until writing fails.
fn lines<L: Display>(
    f: &mut fmt::Formatter<'_>,
    visit: impl Fn(usize, &mut dyn FnMut(&Result<L, Corrupt>) -> ControlFlow<()>),
) -> fmt::Result {
    let mut written = Ok(());
    for half in [0, 1] {
        if written.is_ok() {
            visit(half, &mut |told| {
                written = match told {
                    Ok(line) => writeln!(f, "{line}"),
                    Err(corrupt) => writeln!(f, "! {corrupt}"),
                };
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
    }
    written
}

/// An [`Item`] as a range.
#[derive(Clone, Copy, Debug)]
pub struct Range(pub Item);

impl Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Item { span: Span { va, len, entry }, page, .. } = self.0;
        let last = len.wrapping_sub(1);
        write!(f, "{va:016x}-{:016x} {:>8} ", va.wrapping_add(last), Bytes(len))?;
        let (pa, attr) = match entry {
            Entry::Leaf(pa, attr) => (pa, attr),
            Entry::Soft(soft) => return write!(f, "soft {:#x}", soft.get()),
            Entry::Hole => return f.write_str("hole"),
        };
        write!(f, "{pa:013x}-{:013x} {:>4} ", pa.wrapping_add(last), Bytes(1 << page))?;
        write!(f, "{} {:<3} ", Rights(attr), memory_name(attr))?;
        letters(f, attr, &[(Attr::ACCESSED, 'a'), (Attr::DIRTY, 'd')])?;
        f.write_char(' ')?;
        letters(f, attr, &[(Attr::SOFT[0], '0'), (Attr::SOFT[1], '1'), (Attr::SOFT[2], '2')])?;
        if attr.key() != 0 {
            write!(f, " k{}", attr.key())?;
        }
        Ok(())
    }
}

/// An [`Item`] as a line of `info tlb`, with its size, effective rights and memory type behind it.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    item: Item,
    is_large: bool,
}

impl Leaf {
    /// The line of an item of a table of format `F`.
    #[must_use]
    pub fn of<F: Format>(item: Item) -> Self {
        Self { item, is_large: item.page > base_shift::<F>() }
    }
}

impl Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Item { span: Span { va, entry, .. }, page, own, .. } = self.item;
        write!(f, "{va:016x}: ")?;
        let (pa, attr) = match entry {
            Entry::Leaf(pa, attr) => (pa, attr),
            Entry::Soft(soft) => return write!(f, "soft {:#x}", soft.get()),
            Entry::Hole => return f.write_str("hole"),
        };
        write!(f, "{pa:016x} ")?;
        let (uncached, through) = cache_bits(own);
        let flags = [
            (!own.contains(Attr::EXEC), 'X'),
            (own.contains(Attr::GLOBAL), 'G'),
            (self.is_large, 'P'),
            (own.contains(Attr::DIRTY), 'D'),
            (own.contains(Attr::ACCESSED), 'A'),
            (uncached, 'C'),
            (through, 'T'),
            (own.contains(Attr::USER), 'U'),
            (own.contains(Attr::WRITE), 'W'),
        ];
        for (is_set, letter) in flags {
            f.write_char(if is_set { letter } else { '-' })?;
        }
        write!(f, " {:>4} {} {}", Bytes(1 << page), Rights(attr), memory_name(attr))
    }
}

/// What an entry grants in the end: read, write, execute; user; global.
struct Rights(Attr);

impl Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (Attr::READ, 'r'),
            (Attr::WRITE, 'w'),
            (Attr::EXEC, 'x'),
            (Attr::USER, 'u'),
            (Attr::GLOBAL, 'g'),
        ];
        letters(f, self.0, &named)
    }
}

/// The letters of the attributes that are there, `-` for the others.
fn letters(f: &mut fmt::Formatter<'_>, attr: Attr, named: &[(Attr, char)]) -> fmt::Result {
    for &(bit, letter) in named {
        f.write_char(if attr.contains(bit) { letter } else { '-' })?;
    }
    Ok(())
}

/// The memory type as the manuals abbreviate it.
const fn memory_name(attr: Attr) -> &'static str {
    match attr.memory() {
        Some(MemoryType::WriteBack) => "WB",
        Some(MemoryType::WriteThrough) => "WT",
        Some(MemoryType::UncachedMinus) => "UC-",
        Some(MemoryType::Uncached) => "UC",
        Some(MemoryType::WriteCombining) => "WC",
        Some(MemoryType::WriteProtect) => "WP",
        _ => "?",
    }
}

/// PCD and PWT, by which a leaf of x86-64 says its memory type, as `vellum_core::pte` has it.
const fn cache_bits(attr: Attr) -> (bool, bool) {
    match attr.memory() {
        Some(MemoryType::Uncached) => (true, true),
        Some(MemoryType::UncachedMinus) => (true, false),
        Some(MemoryType::WriteThrough | MemoryType::WriteProtect) => (false, true),
        _ => (false, false),
    }
}

/// A number of bytes in the largest unit that divides it: exact, and short for what tables have.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, char); 6] =
            [(60, 'E'), (50, 'P'), (40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
        let zeros = if self.0 == 0 { 0 } else { self.0.trailing_zeros() };
        let unit = UNITS.into_iter().find(|(shift, _)| *shift <= zeros);
        let (shift, letter) = unit.unwrap_or((0, 'B'));
        let number = self.0 >> shift;
        // Padded as a whole, the unit counted.
        let width = f.width().unwrap_or(0).saturating_sub(1);
        write!(f, "{number:>width$}{letter}")
    }
}
