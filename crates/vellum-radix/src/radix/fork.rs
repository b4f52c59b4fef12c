//! Giving a child the entries of a range, lowest node by lowest node.
//!
//! ```text
//!    parent's node    [ L L . S L l . L ]        a run of leaves of one kind that continue each other:
//!                       | |   | | |   |          change in the parent, store in the child, tell
//!    child's node     [ L L . S L l . L ]
//! ```
//!
//! What is above the lowest level, or grouped, or may not change in one step, goes entry by entry
//! through the other operations.

use super::change::settle_breaks;
use super::node::{Link, Node, Pattern, index};
use super::read::continues;
use super::way::Next;
use super::{Detached, Radix};
use crate::format::{Format, Level, base_shift};
use vellum_core::{
    Attr, Cause, Change, Entry, Flush, Gather, Memory, RangeError, Span, VirtAddr, share_entries,
};

/// Entries of the lowest level that are to be given, in both tables.
struct Pair<'m, F, M> {
    from: Node<'m, F, M>,
    to: Node<'m, F, M>,
    /// What links the child's node.
    link: Link<'m, F, M>,
    /// The first of them, and how many.
    first: u64,
    count: u64,
    /// What the first of them translates.
    va: VirtAddr,
}

/// Entries with the same flags, and what the change does to them.
#[derive(Clone, Copy)]
struct Kind {
    flags: u64,
    delta: u64,
    /// The attributes afterwards.
    new: Attr,
    /// A right goes, and what was cached has to; it may be cached as global.
    narrows: bool,
    global: bool,
    /// Hardware could not use it before.
    gains: bool,
}

impl Kind {
    /// Of no entry.
    const NONE: Self = Self {
        flags: u64::MAX,
        delta: 0,
        new: Attr::NONE,
        narrows: false,
        global: false,
        gains: false,
    };
}

/// How giving went: how many entries were passed, what is stale in the parent, and why it stopped.
struct Given {
    passed: u64,
    result: Result<(), Cause>,
}

impl<F: Format, M: Memory> Radix<F, M> {
    pub(super) fn share_range<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &mut self,
        (va, len): (VirtAddr, u64),
        change: Change,
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        if F::LEVELS.len() == 1 {
            return share_entries(self, (va, len), change, gather, (child, child_gather), f);
        }
        Self::check(va, len)?;
        settle_breaks::<F, M, G>(gather);
        settle_breaks::<F, M, H>(child_gather);
        let mut at = 0;
        while at < len {
            let Some((offset, next)) = self.next(va.wrapping_add(at), len - at) else { break };
            at += offset;
            let here = va.wrapping_add(at);
            let size = 1u64 << next.page::<F, M>();
            let part = (here, (len - at).min(size - (here.as_u64() & (size - 1))));
            let fails = |e: RangeError| RangeError { done: at + e.done, ..e };
            let given = match next {
                Next::Node => self.share_node(part, change, gather, (child, child_gather), f),
                Next::Leaf(_) => Ok(false),
            };
            if !given.map_err(fails)? {
                share_entries(self, part, change, gather, (child, child_gather), f)
                    .map_err(fails)?;
            }
            at += part.1;
        }
        Ok(())
    }

    /// Gives the part of a range that lies in one lowest node; `false` if it takes another way, and
    /// nothing was done.
    fn share_node<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &mut self,
        (va, len): (VirtAddr, u64),
        change: Change,
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Result<bool, RangeError> {
        self.check_own(va, len)?;
        child.check_own(va, len)?;
        let Some((mine, pa)) = self.lowest(va) else { return Ok(false) };
        let level = F::LEVELS[F::LEVELS.len() - 1];
        let (from, first, count) = (self.node(pa), index(va, level), len >> level.shift);
        if from.count_zeros(first, count) == count {
            return Ok(true);
        }
        if Self::is_shared(F::LEVELS.len() - 2, mine.link.slot.load()) {
            return Err(Cause::Shared(va).into());
        }
        if !plain(from, level, (first, count), change, G::LIVE) {
            return Ok(false);
        }
        let theirs = child.place(va, child_gather)?;
        let to = child.node(child.lowest_at(&theirs, va, child_gather)?);
        let pair = Pair { from, to, link: theirs.link, first, count, va };
        let given = self.give(&pair, change, gather, (child, child_gather), f);
        let done = given.passed << level.shift;
        given.result.map(|()| true).map_err(|cause| RangeError { cause, done })
    }

    /// Gives entries, and tells of runs of them.
    fn give<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &self,
        pair: &Pair<'_, F, M>,
        change: Change,
        gather: &mut G,
        (child, child_gather): (&Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Given {
        let Pair { from, to, link, first, count, .. } = *pair;
        let page = const { base_shift::<F>() };
        let mut given = Given { passed: 0, result: Ok(()) };
        let (mut told, mut kind) = (None, Kind::NONE);
        let all_holes = to.count_zeros(first, count) == count;
        while given.passed < count {
            let (at, left) = (first + given.passed, count - given.passed);
            let va = pair.va.wrapping_add(given.passed << page);
            let raw = from.slot(at).load();
            if raw == 0 {
                given.passed += from.count_zeros(at, left).max(1);
                continue;
            }
            if raw & !F::frame_mask(page) != kind.flags {
                match self.judge_given(raw, va, change, child) {
                    Ok(judged) => kind = judged,
                    Err(cause) => given.result = Err(cause),
                }
            }
            let locked = G::LIVE && kind.delta != 0 && !F::is_quiet(raw);
            let run = Pattern { raw, step: F::step(page) };
            let alone = locked || kind.flags == Kind::NONE.flags;
            let n = if alone { 1 } else { follows(from, at, left, run) };
            let n = if all_holes { n } else { to.count_zeros(at, n) };
            if n == 0 {
                given.result = Err(Cause::Mapped(child.span_at(va)));
            }
            if given.result.is_err() {
                break;
            }
            let new = Pattern { raw: raw ^ kind.delta, ..run };
            if locked && from.slot(at).compare_exchange(raw, new.raw).is_err() {
                // Hardware has set a bit; look again.
                continue;
            }
            if !locked && kind.delta != 0 {
                put(from, at, n, new);
            }
            // Before the store: a count may be too high, and never too low.
            link.add(n);
            put(to, at, n, new);
            let had = if kind.global { Attr::GLOBAL } else { Attr::NONE };
            if kind.narrows {
                gather.stale(Flush::new(va, n << page, page, had));
            }
            if let (true, Some(scope)) = (G::LIVE && kind.gains, F::fresh(page)) {
                gather.stale(Flush::new(va, n << page, page, kind.new).with_scope(scope));
            }
            if let (true, Some(scope)) = (H::LIVE, F::fresh(page)) {
                child_gather.stale(Flush::new(va, n << page, page, kind.new).with_scope(scope));
            }
            given.passed += n;
            let entry = match F::decode(new.raw, page).entry() {
                Entry::Leaf(pa, _) => Entry::Leaf(pa, kind.new),
                Entry::Soft(soft) => Entry::Soft(soft),
                Entry::Hole => Entry::Hole,
            };
            tell(&mut told, Span { va, len: n << page, entry }, f);
        }
        if let Some(span) = told {
            f(span);
        }
        given
    }

    /// What the change does to entries like `raw`, which is refused if either table cannot have it.
    fn judge_given(
        &self,
        raw: u64,
        va: VirtAddr,
        change: Change,
        child: &Self,
    ) -> Result<Kind, Cause> {
        let page = const { base_shift::<F>() };
        let flags = raw & !F::frame_mask(page);
        // Of soft entries no two are of a kind.
        let Entry::Leaf(pa, old) = F::decode(raw, page).entry() else { return Ok(Kind::NONE) };
        let new = change.apply(old);
        let mut delta = 0;
        if new != old {
            delta = F::encode(Entry::Leaf(pa, new), page)? ^ raw;
            self.admit((va, 1 << page), new)?;
        }
        child.admit((va, 1 << page), new)?;
        let (narrows, global) = (old.narrows_to(new), old.contains(Attr::GLOBAL));
        let gains = !old.intersects(Attr::RWX) && new.intersects(Attr::RWX);
        Ok(Kind { flags, delta, new, narrows, global, gains })
    }
}

/// How many entries from `at` on, at most `left`, are leaves that continue each other.
#[inline]
fn follows<F: Format, M: Memory>(node: Node<'_, F, M>, at: u64, left: u64, run: Pattern) -> u64 {
    let most = run.longest::<F>(const { base_shift::<F>() }).min(left);
    // Most runs are of one, or long.
    if most < 2 || node.slot(at + 1).load() != run.at(1) {
        return 1;
    }
    node.count_matching(at, most, run).max(1)
}

/// Writes a run where nobody else writes.
#[inline]
fn put<F: Format, M: Memory>(node: Node<'_, F, M>, at: u64, count: u64, run: Pattern) {
    if count == 1 {
        node.slot(at).store(run.raw);
    } else {
        node.store_run(at, count, run);
    }
}

/// Whether entries can be given one by one: none is part of a group, and none takes break-before-make.
fn plain<F: Format, M: Memory>(
    node: Node<'_, F, M>,
    level: Level,
    (first, count): (u64, u64),
    change: Change,
    live: bool,
) -> bool {
    let rights = Attr::RWX | Attr::STATUS;
    if F::BREAKS && live && !rights.contains(change.set | change.clear) {
        return false;
    }
    let size = 1 << level.group;
    let mut heads = (first & !(size - 1)..first + count).step_by(1 << level.group);
    level.group == 0 || !heads.any(|i| F::is_grouped(node.slot(i).load(), level.shift))
}

/// Adds an entry to the run that is told next, or tells that and begins another.
#[inline]
fn tell(told: &mut Option<Span>, next: Span, f: &mut impl FnMut(Span)) {
    match told {
        Some(span) if continues(span, &next) => span.len += next.len,
        _ => {
            if let Some(span) = told.replace(next) {
                f(span);
            }
        }
    }
}
