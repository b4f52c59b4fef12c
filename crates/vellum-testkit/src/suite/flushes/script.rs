//! A fixed sequence that makes every kind of change in every area, each with a gather of its own.

use super::stage::{New, Op, Place, Step};
use vellum_core::{Attr, Change};

/// The steps.
pub(super) fn steps() -> Vec<Step> {
    // Pages amid the space and at its end, and the first size of larger leaves.
    let areas: &[usize] = if cfg!(miri) { &[1] } else { &[1, 2, 3] };
    let wide: &[usize] = if cfg!(miri) { &[] } else { &[4, 5] };
    let ops = areas.iter().flat_map(|&area| in_area(area));
    let ops = ops.chain(wide.iter().flat_map(|&area| in_wide_area(area)));
    let step = |op| Step { space: 0, gather: 0, op };
    let mut steps: Vec<_> = ops.flat_map(|op| [step(op), step(Op::Finish)]).collect();
    steps.extend(between_gathers());
    steps
}

/// Of leaves so large that a part of one has hundreds of leaves itself, only the ends change.
fn in_wide_area(area: usize) -> Vec<Op> {
    let place = |from, to| Place { area, from, to };
    let all = place(0, 0);
    vec![
        Op::Map(all, 2, true),
        Op::Protect(place(0, 1), Change::clearing(Attr::WRITE)),
        Op::Harvest(place(-2, -1), Attr::STATUS),
        Op::Protect(place(-2, -1), Change::clearing(Attr::GLOBAL)),
        Op::Unmap(place(-2, -1)),
        Op::Replace(place(-2, -1), New::Frame(0)),
        Op::Unmap(all),
    ]
}

fn in_area(area: usize) -> Vec<Op> {
    let place = |from, to| Place { area, from, to };
    let all = place(0, 0);
    vec![
        Op::Map(all, 0, true),
        Op::Protect(place(1, 3), Change::clearing(Attr::WRITE)),
        Op::Protect(all, Change::setting(Attr::USER)),
        // A page of a leaf that was split, and a part of one that was not.
        Op::Harvest(place(0, 1), Attr::STATUS),
        Op::Harvest(place(-2, -1), Attr::STATUS),
        Op::Touch(place(3, 4), Attr::STATUS),
        Op::Harvest(place(3, 4), Attr::DIRTY),
        Op::Replace(place(2, 3), New::Same(1)),
        Op::Replace(place(3, 4), New::Frame(0)),
        Op::Replace(place(3, 4), New::Soft),
        Op::Replace(place(3, 4), New::Hole),
        Op::Replace(place(3, 4), New::Frame(2)),
        Op::Unmap(place(1, 3)),
        Op::Unmap(all),
        // Global, in small leaves; all at once, and in pieces.
        Op::Map(all, 2, false),
        Op::Protect(place(1, 4), Change::clearing(Attr::WRITE)),
        Op::Protect(place(-3, -1), Change::clearing(Attr::GLOBAL)),
        Op::Unmap(place(0, 2)),
        Op::Unmap(all),
        // Large again, where nodes of small ones were; a large one replaced, and one split by a
        // part that goes.
        Op::Map(all, 0, true),
        Op::Replace(place(0, 1), New::Frame(2)),
        Op::Unmap(place(1, 2)),
        Op::Share(all),
        Op::Unmap(all),
        // Never readable.
        Op::Map(all, 4, true),
        Op::Protect(place(1, 2), Change::setting(Attr::USER)),
        Op::Unmap(all),
    ]
}

/// Changes of which one gather has one part and another the rest; both are open at the end.
fn between_gathers() -> Vec<Step> {
    let place = |from, to| Place { area: 1, from, to };
    let step = |space, gather, op| Step { space, gather, op };
    vec![
        step(1, 0, Op::Drain),
        step(1, 0, Op::Unmap(place(0, 0))),
        step(1, 0, Op::Map(place(0, 0), 0, true)),
        step(1, 0, Op::Protect(place(1, 3), Change::clearing(Attr::WRITE))),
        step(1, 1, Op::Unmap(place(2, 4))),
        step(1, 1, Op::Map(place(2, 4), 0, true)),
        step(1, 0, Op::Drain),
        step(1, 1, Op::Drain),
        step(1, 1, Op::Unmap(place(0, 1))),
        step(0, 0, Op::Map(place(0, 0), 2, true)),
        step(0, 1, Op::Unmap(place(3, 5))),
    ]
}
