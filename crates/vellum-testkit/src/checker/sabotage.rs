//! Obligations that are spoilt on purpose, to see that the checker notices.
//!
//! ```text
//!   owed             first |====|====|====| last   page 12, global, Tables
//!   Drop
//!   Narrower scope         |====|====|====|        page 12, global, Leaves
//!   FirstPage                   |====|====|        ...
//!   LastPage               |====|====|
//!   LocalOnly              |====|====|====|        page 12, -,      Tables
//!   WiderStride            |====|====|====|        page 13, global, Tables
//! ```
//!
//! Not every one does harm: another flush may cover the same, or nothing that is covered was ever
//! wrong. Which of these it is, is computed ([`Harmless`]) from what could be cached.

use super::cached::{Cached, Point, Rules};
use super::cpu::Cpu;
use vellum_core::{Flush, Scope};

/// By which call of the gather something was owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `Gather::leaf`
    Leaf,
    /// `Gather::stale`
    Stale,
    /// `Gather::detach`
    Detach,
}

/// An obligation that a gather was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// How.
    pub call: Call,
    /// What is to be flushed.
    pub flush: Flush,
}

/// What is done to an obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// It is not noted at all.
    Drop,
    /// Its scope is the next smaller one.
    NarrowerScope,
    /// It does not reach global translations.
    LocalOnly,
    /// It begins a page too late.
    FirstPage,
    /// It ends a page too early.
    LastPage,
    /// It is flushed in steps of twice the size.
    WiderStride,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Drop,
        Self::NarrowerScope,
        Self::LocalOnly,
        Self::FirstPage,
        Self::LastPage,
        Self::WiderStride,
    ];

    /// What it leaves of `flush`, where the smallest page has 2<sup>`base`</sup> bytes; the outer
    /// `None` if it would leave all of it, or, as `Drop`, nothing.
    #[must_use]
    pub fn spoil(self, flush: Flush, base: u8) -> Option<Option<Flush>> {
        let page = 1 << base;
        let is_long = flush.last.as_u64() - flush.first.as_u64() >= page;
        let spoilt = match self {
            Self::Drop => return Some(None),
            Self::NarrowerScope => flush.with_scope(match flush.scope {
                Scope::Tables => Scope::Leaves,
                Scope::Leaves => Scope::Fresh,
                Scope::Fresh => return None,
            }),
            Self::LocalOnly if flush.global => Flush { global: false, ..flush },
            Self::FirstPage if is_long => Flush { first: flush.first.wrapping_add(page), ..flush },
            Self::LastPage if is_long => {
                Flush { last: flush.last.wrapping_add(page.wrapping_neg()), ..flush }
            }
            Self::WiderStride => Flush { page: flush.page + 1, ..flush },
            Self::LocalOnly | Self::FirstPage | Self::LastPage => return None,
        };
        Some(Some(spoilt))
    }
}

/// Why a spoilt obligation made no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harmless {
    /// Of what it alone would have flushed, nothing was other than the table says.
    NothingWrong,
    /// What was wrong had been flushed for another reason by the end of the operation.
    FlushedAnyway,
    /// What was wrong is owed for another reason.
    OwedAnyway,
}

/// What a spoilt obligation would have reached.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// What was cached that the obligation covers and the rest of it does not, by the CPU's and the
    /// point's index.
    reached: Vec<(usize, usize, Cached)>,
    judged: bool,
    pub(super) verdict: Option<Harmless>,
}

impl Trial {
    pub(super) fn new(
        points: &[Point],
        cpus: &[Cpu],
        rules: &Rules,
        full: Flush,
        rest: Option<Flush>,
    ) -> Self {
        let mut reached = Vec::new();
        for (number, cpu) in cpus.iter().enumerate() {
            for (i, cached) in cpu.held() {
                let forgets = |flush| rules.forgets(&points[i], &cached, flush);
                if forgets(full) && !rest.is_some_and(forgets) {
                    reached.push((number, i, cached));
                }
            }
        }
        Self { reached, judged: false, verdict: None }
    }

    /// Finds out, at the end of the operation, why nothing was noticed.
    pub(super) fn judge(
        &mut self,
        points: &[Point],
        cpus: &[Cpu],
        is_owed: impl Fn(&Point, &Cached) -> bool,
    ) {
        if core::mem::replace(&mut self.judged, true) {
            return;
        }
        let wrong = self.reached.iter().filter(|(_, i, cached)| points[*i].is_wrong(cached));
        let (left, flushed): (Vec<_>, Vec<_>) =
            wrong.partition(|(cpu, i, cached)| cpus[*cpu].held_at(*i).contains(cached));
        self.verdict = match (left.as_slice(), flushed.as_slice()) {
            ([], []) => Some(Harmless::NothingWrong),
            ([], _) => Some(Harmless::FlushedAnyway),
            (left, _) if left.iter().all(|(_, i, cached)| is_owed(&points[*i], cached)) => {
                Some(Harmless::OwedAnyway)
            }
            _ => None,
        };
    }
}
