//! [`Exclusive`](crate::Exclusive) against the model: nobody else is there, so every answer is known.
//!
//! ```text
//!   shared | exclusive ............ | shared | exclusive ... | shared
//!          borrow                 drop: all that lay at hand is back
//! ```

use super::model::{Model, Piece, State, at, fitting, pieces};
use super::ways::runs;
use super::{bytes, cases, set_up, storage};
use crate::{Exclusive, FrameAllocator, FreeError, MAX_ORDER};
use proptest::prelude::*;
use proptest::sample::Index;
use std::vec::Vec;
use vellum_core::{OutOfFrames, PhysAddr};

#[derive(Clone, Debug)]
enum Op {
    Alloc(u8),
    /// What one call took.
    Free(Index),
    /// Whatever lies there, some bytes further on.
    FreeWild(Index, u8, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let order =
        || prop_oneof![4 => 0..=9u8, 4 => 0..=2u8, 3 => Just(0), 1 => Just(9), 1 => 18..=20u8];
    let offset = prop_oneof![9 => Just(0u64), 1 => 1..4096u64];
    prop_oneof![
        6 => order().prop_map(Op::Alloc),
        4 => any::<Index>().prop_map(Op::Free),
        4 => (any::<Index>(), order(), offset).prop_map(|(at, o, by)| Op::FreeWild(at, o, by)),
    ]
}

fn run(alone: &Exclusive<'_, '_>, model: &mut Model, held: &mut Vec<(u64, u8)>, op: Op) {
    let free: Vec<_> = model.runs_in(State::Free).collect();
    match op {
        Op::Alloc(order) => match alone.alloc(order) {
            Ok(pa) => {
                assert!(pa.is_aligned(12 + order));
                model.take(pa.number().as_u64(), 1 << order);
                held.push((pa.number().as_u64(), order));
            }
            Err(error) => {
                assert_eq!(error, OutOfFrames { order });
                assert!(order > MAX_ORDER || fitting(&free, order, u64::MAX) == 0);
            }
        },
        Op::Free(_) if held.is_empty() => {}
        Op::Free(index) => {
            let (first, order) = held.swap_remove(index.index(held.len()));
            // SAFETY: held, and nothing is behind it.
            let got = unsafe { alone.free(at(first), order) };
            // Part of it may have been freed by a guess.
            match model.freed(at(first), order) {
                Ok(()) => {
                    assert_eq!(got, Ok(()));
                    model.free(first, 1 << order);
                }
                Err(_) => assert!(matches!(got, Err(FreeError::DoubleFree { .. }))),
            }
        }
        Op::FreeWild(index, order, by) => {
            let span = (model.high() - model.low()) as usize;
            let pfn = (model.low() + index.index(span + 16) as u64).saturating_sub(8);
            let pa = PhysAddr::new(bytes(pfn >> order.min(18) << order.min(18)) + by);
            // SAFETY: nothing is behind these frames, and nobody else has any.
            match (unsafe { alone.free(pa, order) }, model.freed(pa, order)) {
                (Ok(()), Ok(())) => model.free(pa.number().as_u64(), 1 << order),
                (Err(FreeError::DoubleFree { pa }), Err(FreeError::DoubleFree { .. })) => {
                    assert!(model.all(pa.number().as_u64(), 1, State::Free));
                }
                (got, want) => assert_eq!(got, want, "{pa}, order {order}"),
            }
        }
    }
}

fn check(usable: &[Piece], reserved: &[Piece], turns: Vec<Vec<Op>>) {
    let Some(mut model) = Model::new(usable, reserved) else { return };
    let ranges = |pieces: &[Piece]| pieces.iter().map(|p| p.range()).collect::<Vec<_>>();
    let (usable, reserved) = (ranges(usable), ranges(reserved));
    let room = storage(FrameAllocator::words_needed(&usable, &reserved));
    let mut frames = FrameAllocator::new();
    set_up(&frames, &room, &usable, &reserved).expect("a map with frames");
    let before = runs(&frames);
    let mut held = Vec::new();
    for ops in turns {
        let alone = frames.exclusive();
        for op in ops {
            run(&alone, &mut model, &mut held, op);
        }
        drop(alone);
        assert!(model.runs_in(State::Free).eq(runs(&frames)));
    }
    let taken: Vec<_> = model.runs_in(State::Taken).collect();
    for (first, count) in taken {
        // SAFETY: taken by this test.
        assert_eq!(unsafe { frames.free_contiguous(at(first), count) }, Ok(()));
    }
    assert_eq!(runs(&frames), before);
    let blocks = frames.stats().blocks;
    let alone = frames.exclusive();
    for order in (0..=MAX_ORDER).rev() {
        for _ in 0..blocks[usize::from(order)] {
            assert!(alone.alloc(order).is_ok(), "every largest block can be had again");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(cases(400, 3)) })]

    #[test]
    fn exclusive_calls_agree_with_the_model(
        usable in pieces(1500, 900, 1..5),
        reserved in pieces(1500, 60, 0..4),
        turns in prop::collection::vec(
            prop::collection::vec(op(), 0..if cfg!(miri) { 15 } else { 150 }), 1..4),
    ) {
        check(&usable, &reserved, turns);
    }

    #[test]
    fn exclusive_calls_agree_with_the_model_in_a_handful_of_frames(
        usable in pieces(200, 70, 1..3),
        reserved in pieces(200, 5, 0..3),
        turns in prop::collection::vec(
            prop::collection::vec(op(), 0..if cfg!(miri) { 15 } else { 150 }), 1..4),
    ) {
        check(&usable, &reserved, turns);
    }
}
