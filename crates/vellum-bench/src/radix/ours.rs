//! vellum-radix, through the `PageTable` trait, as every caller uses it.
//!
//! ```text
//!   Ours     Direct   no CPU reaches the table: beside the peers, who take no more care
//!   live()   Batch    some CPU may be using it: rows of our own (`live`)
//! ```

use super::ram::Ram;
use super::table::{PAGE, Table, firsts};
use vellum_core::{
    Attr, Batch, Change, Direct, Entry, Flush, Gone, Invalidate, PageTable, PhysAddr, Run,
    VirtAddr, Walk,
};
use vellum_radix::{Radix, X86_64};

/// The table itself.
pub type Inner = Radix<X86_64<4>, Ram>;

/// Data of a user program.
pub const DATA_ATTR: Attr = Attr::from_bits(Attr::RW.bits() | Attr::USER.bits());

/// Ours, as long as nobody has loaded it.
#[derive(Debug)]
pub struct Ours(pub Inner);

/// Flushes nothing: there is no CPU, and every peer's flush does nothing either.
#[derive(Clone, Copy, Debug)]
pub struct NoCpu;

// SAFETY: no CPU walks a table of this bench, so none holds a translation.
unsafe impl Invalidate for NoCpu {
    #[inline]
    fn flush(&self, _: &[Flush]) {}
}

/// The gather of a live table: 32 items.
pub type Live<S> = Batch<NoCpu, S, <Inner as PageTable>::Detached, 32>;

/// A gather for a live table.
pub fn live<S: FnMut(Gone)>(sink: S) -> Live<S> {
    // SAFETY: no CPU walks a table of this bench, so every flush of them is complete.
    unsafe { Batch::new(NoCpu, sink) }
}

/// A gather for a table that nobody has loaded.
pub fn direct<S: FnMut(Gone)>(sink: S) -> Direct<S> {
    // SAFETY: no CPU walks a table of this bench.
    unsafe { Direct::new(sink) }
}

/// A run of data pages.
pub const fn run(va: u64, pa: u64, len: u64) -> Run {
    Run::new(VirtAddr::new(va), PhysAddr::new(pa), len, DATA_ATTR)
}

/// What a sink of frames makes of what is gone.
pub fn frames(sink: &mut impl FnMut(u64, u64)) -> impl FnMut(Gone) {
    move |gone| {
        if let Gone::Run(run) = gone {
            sink(run.pa.as_u64(), run.len);
        }
    }
}

impl Table for Ours {
    const NAME: &'static str = "vellum-radix";

    fn new() -> Self {
        Self(Inner::new(Ram).expect("a frame for the root"))
    }

    fn map(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.0.map(run(va, pa, len), &mut direct(|_| {})).is_ok()
    }

    fn map_each(&mut self, mut pages: impl Iterator<Item = (u64, u64)>) -> bool {
        let mut gather = direct(|_| {});
        pages.all(|(va, pa)| self.0.map(run(va, pa, PAGE), &mut gather).is_ok())
    }

    fn map_large(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.0.map(run(va, pa, len).with_leaves_up_to(21), &mut direct(|_| {})).is_ok()
    }

    /// `unmap` frees what is empty then; `replace`, through `&self`, cannot.
    fn make_room(&mut self, va: u64, len: u64) -> bool {
        let mapped = self.map_each(firsts(va, len));
        let (mut stock, mut gather) = (self.0.stock(), direct(|_| {}));
        mapped
            && firsts(va, len).all(|(va, pa)| {
                let (leaf, va) = (Entry::Leaf(PhysAddr::new(pa), DATA_ATTR), VirtAddr::new(va));
                self.0.replace(va, PAGE, leaf, Entry::Hole, &mut stock, &mut gather).is_ok()
            })
    }

    #[inline]
    fn translate(&self, va: u64) -> Option<u64> {
        self.0.translate(VirtAddr::new(va)).map(PhysAddr::as_u64)
    }

    fn is_writable(&self, va: u64) -> bool {
        let span = self.0.walk(VirtAddr::new(va), &mut ());
        matches!(span.map(|s| s.entry), Ok(Entry::Leaf(_, attr)) if attr.contains(Attr::WRITE))
    }

    fn protect(&mut self, va: u64, _: u64, len: u64, writable: bool) -> bool {
        let change = change(writable);
        self.0.protect(VirtAddr::new(va), len, change, &mut direct(|_| {})).is_ok()
    }

    fn unmap(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        self.0.unmap(VirtAddr::new(va), len, &mut direct(frames(sink))).is_ok()
    }

    fn unmap_free(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        self.unmap(va, len, sink)
    }

    fn unmap_blind(&mut self, va: u64, len: u64) -> bool {
        // SAFETY: no CPU walks a table of this bench.
        let mut gather = unsafe { Direct::discarding() };
        self.0.unmap(VirtAddr::new(va), len, &mut gather).is_ok()
    }

    fn retire(self) {
        self.0.retire(&mut direct(|_| {}));
    }
}

/// The change that takes the right to write, or gives it back.
pub fn change(writable: bool) -> Change {
    if writable { Change::setting(Attr::WRITE) } else { Change::clearing(Attr::WRITE) }
}
