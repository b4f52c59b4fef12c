//! A shorter sequence that still shows a difference.
//!
//! ```text
//!   operations:  without this half? this quarter? ... this one?     until none can go
//!   operands:    one page? fewer flags? at a page? from the start?  until nothing gets simpler
//!   places:      all of them further down, by as many pages as are free there
//!   all again, while any got anywhere
//! ```
//!
//! Source: Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (IEEE TSE 2002);
//! here without the complements, which a removal from the back makes up for.

use crate::abi::{MREMAP_FIXED, PAGE};
use crate::op::{Op, Place, Sequence, Source};

/// How often the sequence is tried before the best so far has to do.
const TRIES: usize = 4000;

/// A simpler sequence for which `differs` holds, as it does for this one.
pub fn shrink(sequence: &Sequence, mut differs: impl FnMut(&Sequence) -> bool) -> Sequence {
    let mut left = TRIES;
    let mut tried = |candidate: &Sequence| {
        if left == 0 || candidate.check().is_err() {
            return false;
        }
        left -= 1;
        differs(candidate)
    };
    let mut best = sequence.clone();
    loop {
        let fewer = fewer_operations(&mut best, &mut tried);
        let simpler = simpler_operands(&mut best, &mut tried);
        let lower = lower_places(&mut best, &mut tried);
        if !fewer && !simpler && !lower {
            return best;
        }
    }
}

fn fewer_operations(best: &mut Sequence, tried: &mut impl FnMut(&Sequence) -> bool) -> bool {
    let mut any = false;
    let mut chunk = best.ops.len().div_ceil(2);
    while chunk > 0 {
        let mut end = best.ops.len();
        while end > 0 {
            let start = end.saturating_sub(chunk);
            let mut candidate = best.clone();
            candidate.ops.drain(start..end);
            if tried(&candidate) {
                *best = candidate;
                any = true;
            }
            end = start;
        }
        chunk /= 2;
    }
    any
}

fn simpler_operands(best: &mut Sequence, tried: &mut impl FnMut(&Sequence) -> bool) -> bool {
    let mut any = false;
    for index in 0..best.ops.len() {
        let mut again = true;
        while again {
            again = false;
            for op in simpler(&best.ops[index]) {
                let mut candidate = best.clone();
                candidate.ops[index] = op;
                if tried(&candidate) {
                    *best = candidate;
                    (any, again) = (true, true);
                    break;
                }
            }
        }
    }
    any
}

/// All of it further down in the arena: one place alone often cannot move without the others.
fn lower_places(best: &mut Sequence, tried: &mut impl FnMut(&Sequence) -> bool) -> bool {
    let page = PAGE.cast_signed();
    let mut candidate = best.clone();
    let bytes = |place: &mut Place| match *place {
        Place::Arena(bytes) => Some(bytes),
        Place::Absolute(_) => None,
    };
    let lowest = candidate.ops.iter_mut().flat_map(places_of).filter_map(bytes).min();
    let by = lowest.unwrap_or(0) / page * page;
    if by <= 0 {
        return false;
    }
    for place in candidate.ops.iter_mut().flat_map(places_of) {
        if let Place::Arena(bytes) = place {
            *bytes -= by;
        }
    }
    let lower = tried(&candidate);
    if lower {
        *best = candidate;
    }
    lower
}

/// The places that an operation names and uses.
fn places_of(op: &mut Op) -> impl Iterator<Item = &mut Place> {
    let (at, to) = match op {
        Op::Remap { at, to, flags, .. } => (Some(at), (*flags & MREMAP_FIXED != 0).then_some(to)),
        Op::Map { at, .. }
        | Op::Unmap { at, .. }
        | Op::Protect { at, .. }
        | Op::Advise { at, .. }
        | Op::Lock { at, .. }
        | Op::Lock2 { at, .. }
        | Op::Unlock { at, .. }
        | Op::Sync { at, .. }
        | Op::InCore { at, .. }
        | Op::Seal { at, .. }
        | Op::Read { at }
        | Op::Write { at, .. }
        | Op::Scan { at, .. }
        | Op::Fill { at, .. } => (Some(at), None),
        _ => (None, None),
    };
    at.into_iter().chain(to)
}

/// Operations that say less, each a little; the boldest first. All are smaller by some measure, so
/// that taking them comes to an end.
fn simpler(op: &Op) -> Vec<Op> {
    let mut all = Vec::new();
    match *op {
        Op::Map { at, len, prot, flags, from } => {
            all.extend(lengths(len).map(|len| Op::Map { at, len, prot, flags, from }));
            all.extend(places(at).map(|at| Op::Map { at, len, prot, flags, from }));
            all.extend(fewer_bits(flags).map(|flags| Op::Map { at, len, prot, flags, from }));
            all.extend(fewer_bits(prot).map(|prot| Op::Map { at, len, prot, flags, from }));
            if let Source::File(access, offset @ 1..) = from {
                all.extend(lengths(offset).chain([0]).map(|offset| Op::Map {
                    at,
                    len,
                    prot,
                    flags,
                    from: Source::File(access, offset),
                }));
            }
        }
        Op::Remap { at, old_len, new_len, flags, to } => {
            let made = |at, old_len, new_len, to| Op::Remap { at, old_len, new_len, flags, to };
            all.extend(lengths(old_len).map(|old_len| made(at, old_len, new_len, to)));
            all.extend(lengths(new_len).map(|new_len| made(at, old_len, new_len, to)));
            all.extend(places(at).map(|at| made(at, old_len, new_len, to)));
            all.extend(places(to).map(|to| made(at, old_len, new_len, to)));
            all.extend(fewer_bits(flags).map(|flags| Op::Remap {
                at,
                old_len,
                new_len,
                flags,
                to,
            }));
        }
        Op::Protect { at, len, prot } => {
            all.extend(fewer_bits(prot).map(|prot| Op::Protect { at, len, prot }));
        }
        Op::Truncate { len } => all.extend(lengths(len).map(|len| Op::Truncate { len })),
        Op::FileWrite { offset, len, value } => {
            all.extend(lengths(len).map(|len| Op::FileWrite { offset, len, value }));
            all.extend(lengths(offset).map(|offset| Op::FileWrite { offset, len, value }));
        }
        _ => {}
    }
    all.extend(in_a_range(op));
    all
}

/// The same with a shorter range, or one closer to the start.
fn in_a_range(op: &Op) -> Vec<Op> {
    let mut with: Vec<Op> = Vec::new();
    let (at, len) = match *op {
        Op::Unmap { at, len }
        | Op::Protect { at, len, .. }
        | Op::Advise { at, len, .. }
        | Op::Lock { at, len }
        | Op::Lock2 { at, len, .. }
        | Op::Unlock { at, len }
        | Op::Sync { at, len, .. }
        | Op::InCore { at, len }
        | Op::Seal { at, len, .. }
        | Op::Scan { at, len }
        | Op::Fill { at, len, .. } => (at, len),
        Op::Read { at } | Op::Write { at, .. } => (at, 0),
        _ => return with,
    };
    let ranges = lengths(len).map(|len| (at, len)).chain(places(at).map(|at| (at, len)));
    for (at, len) in ranges {
        with.push(match *op {
            Op::Unmap { .. } => Op::Unmap { at, len },
            Op::Protect { prot, .. } => Op::Protect { at, len, prot },
            Op::Advise { advice, .. } => Op::Advise { at, len, advice },
            Op::Lock { .. } => Op::Lock { at, len },
            Op::Lock2 { flags, .. } => Op::Lock2 { at, len, flags },
            Op::Unlock { .. } => Op::Unlock { at, len },
            Op::Sync { flags, .. } => Op::Sync { at, len, flags },
            Op::InCore { .. } => Op::InCore { at, len },
            Op::Seal { flags, .. } => Op::Seal { at, len, flags },
            Op::Scan { .. } => Op::Scan { at, len },
            Op::Fill { value, .. } => Op::Fill { at, len, value },
            Op::Read { .. } => Op::Read { at },
            Op::Write { value, .. } => Op::Write { at, value },
            other => other,
        });
    }
    with
}

/// Shorter lengths: a page, half, a page less, whole pages.
fn lengths(len: u64) -> impl Iterator<Item = u64> {
    let half = len / 2 / PAGE * PAGE;
    let candidates = [PAGE, half, len.saturating_sub(PAGE), len / PAGE * PAGE];
    candidates.into_iter().filter(move |&shorter| shorter > 0 && shorter < len)
}

/// Places further down, of those in the arena: half way, a page, the page's start.
fn places(at: Place) -> impl Iterator<Item = Place> {
    let page = PAGE.cast_signed();
    let bytes = match at {
        Place::Arena(bytes) if bytes > 0 => bytes,
        _ => 0,
    };
    let candidates = [0, bytes / 2 / page * page, bytes - page, bytes / page * page];
    let lower = candidates.into_iter().filter(move |&lower| lower >= 0 && lower < bytes);
    lower.map(Place::Arena)
}

/// The same without one of its bits.
fn fewer_bits(bits: u64) -> impl Iterator<Item = u64> {
    let without = (0..64).rev().map(move |bit| bits & !(1 << bit));
    without.filter(move |&fewer| fewer != bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;

    #[test]
    fn one_operation_that_matters_is_what_remains() {
        let sequence = generate::sequence(1, 5, 60);
        let matters = |op: &Op| matches!(op, Op::Map { len, .. } if *len >= 2 * PAGE);
        assert!(sequence.ops.iter().any(matters));
        let small = shrink(&sequence, |s| s.ops.iter().any(matters));
        assert_eq!(small.to_string(), "mmap 0 2 0 0\n");
    }

    #[test]
    fn two_operations_that_matter_together_both_remain() {
        let sequence = generate::sequence(1, 5, 60);
        let touches = |s: &Sequence| {
            let fill = s.ops.iter().position(|op| matches!(op, Op::Fill { .. }));
            let unmap = s.ops.iter().position(|op| matches!(op, Op::Unmap { .. }));
            fill.is_some() && unmap.is_some()
        };
        assert!(touches(&sequence), "{sequence}");
        assert_eq!(shrink(&sequence, touches).ops.len(), 2);
    }
}
