//! How many pages a space maps, by kind, counted by many CPUs at once.
//!
//! ```text
//!   address   ... 23 22 21 | 20 ...        eight lines of four counters each; CPUs that fault in
//!                 --------                  different places count on different lines
//!                  line
//! ```
//!
//! # Invariants
//!
//! - The sum of a kind over all lines is its number. A line alone may be below zero, and wraps: what moves
//!   leaves by another line than it came by.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vellum_cache::page::State;
use vellum_core::VirtAddr;

/// What a resident page counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RssKind {
    /// Anonymous: private, written to.
    Anon,
    /// Of a file.
    File,
    /// Of a file that is in memory only: shared anonymous memory.
    Shmem,
    /// Out in swap.
    Swap,
}

impl RssKind {
    const ALL: [Self; 4] = [Self::Anon, Self::File, Self::Shmem, Self::Swap];

    pub(crate) const fn of(state: State) -> Self {
        if state.contains(State::ANON) {
            Self::Anon
        } else if state.contains(State::MEMORY) {
            Self::Shmem
        } else {
            Self::File
        }
    }
}

/// Counters that one address in eight uses.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; 4]);

impl Line {
    const fn cell(&self, kind: RssKind) -> &AtomicU64 {
        let [anon, file, shmem, swap] = &self.0;
        match kind {
            RssKind::Anon => anon,
            RssKind::File => file,
            RssKind::Shmem => shmem,
            RssKind::Swap => swap,
        }
    }
}

/// How many pages a space maps, by kind.
#[derive(Default)]
pub struct Rss([Line; 8]);

impl Rss {
    /// Pages of this kind; with changes under way, a few more or fewer.
    #[must_use]
    pub fn pages(&self, kind: RssKind) -> u64 {
        self.0.iter().fold(0, |sum, line| sum.wrapping_add(line.cell(kind).load(Relaxed)))
    }

    /// Resident pages: all kinds but swap.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.pages(RssKind::Anon) + self.pages(RssKind::File) + self.pages(RssKind::Shmem)
    }

    fn line(&self, va: VirtAddr) -> &Line {
        let [a, b, c, d, e, f, g, h] = &self.0;
        match va.as_u64() >> 21 & 7 {
            0 => a,
            1 => b,
            2 => c,
            3 => d,
            4 => e,
            5 => f,
            6 => g,
            _ => h,
        }
    }

    /// Pages came at `va`.
    pub(crate) fn add(&self, va: VirtAddr, kind: RssKind, pages: u64) {
        self.line(va).cell(kind).fetch_add(pages, Relaxed);
    }

    /// Pages left from `va`.
    pub(crate) fn sub(&self, va: VirtAddr, kind: RssKind, pages: u64) {
        self.line(va).cell(kind).fetch_sub(pages, Relaxed);
    }
}

/// Pages of one run, by kind, to be counted at once.
#[derive(Default)]
pub(super) struct Tally([u64; 4]);

impl Tally {
    pub(super) fn note(&mut self, kind: RssKind) {
        self.note_all(kind, 1);
    }

    pub(super) fn note_all(&mut self, kind: RssKind, pages: u64) {
        let [anon, file, shmem, swap] = &mut self.0;
        *match kind {
            RssKind::Anon => anon,
            RssKind::File => file,
            RssKind::Shmem => shmem,
            RssKind::Swap => swap,
        } += pages;
    }

    /// What was noted, as calls of `f`.
    pub(super) fn each(self, mut f: impl FnMut(RssKind, u64)) {
        for (kind, pages) in RssKind::ALL.into_iter().zip(self.0) {
            if pages != 0 {
                f(kind, pages);
            }
        }
    }
}

impl fmt::Debug for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rss")
            .field("anon", &self.pages(RssKind::Anon))
            .field("file", &self.pages(RssKind::File))
            .field("shmem", &self.pages(RssKind::Shmem))
            .field("swap", &self.pages(RssKind::Swap))
            .finish()
    }
}
