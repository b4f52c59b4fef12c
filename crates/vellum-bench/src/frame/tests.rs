//! Every allocator, ours and theirs, does what the rows take for granted.

use super::allocator::{self, Allocator, Frames, HUGE, HUGE_FRAMES, Size, Visit};
use super::stream::{self, Mix, Orders, Slots};
use std::collections::BTreeSet;

const FRAMES: u64 = 1 << 14;

const MIX: Mix = Mix { orders: Orders::Uniform, bias: 60, seed: 5 };

/// How many 2 MiB blocks can be had; they are given back.
fn huge_blocks(frames: &mut impl Frames) -> u64 {
    frames.flush();
    let mut blocks = Vec::new();
    while let Some(block) = frames.alloc(HUGE) {
        blocks.push(block);
    }
    let count = blocks.len() as u64;
    for block in blocks {
        // SAFETY: allocated above.
        unsafe { frames.free(block, HUGE) };
    }
    count
}

#[test]
fn help_explains_every_row() {
    let told = include_str!("rows.txt").lines().filter_map(|line| line.split_whitespace().next());
    assert!(told.eq(super::ROWS));
}

#[test]
fn each_returns_everything_whole() {
    struct Conserve(usize);
    impl Visit for Conserve {
        fn visit<A: Allocator>(&mut self) {
            let stream = stream::between_half_and_nine_tenths(FRAMES, 4000, MIX);
            let mut allocator = A::new(FRAMES);
            let mut frames = allocator.local();
            let all = FRAMES / HUGE_FRAMES;
            assert_eq!(huge_blocks(&mut frames), all, "{} at first", A::NAME);
            let mut slots = Slots::new(stream.slots);
            for part in [&stream.fill, &stream.churn, &stream.rest] {
                // SAFETY: the parts of one stream, in its order.
                unsafe { slots.replay(part, &mut frames) };
            }
            assert_eq!(huge_blocks(&mut frames), all, "{} at last", A::NAME);
            self.0 += 1;
        }
    }
    let mut conserve = Conserve(0);
    allocator::all(&mut conserve);
    assert_eq!(conserve.0, 13);
}

#[test]
fn each_has_every_frame_once() {
    struct Fill;
    impl Visit for Fill {
        fn visit<A: Allocator>(&mut self) {
            let mut allocator = A::new(FRAMES);
            let number = allocator.numbering();
            let mut frames = allocator.local();
            let mut seen = BTreeSet::new();
            while let Some(block) = frames.alloc(0) {
                assert!(seen.insert(number(block)), "{} gave {} twice", A::NAME, number(block));
            }
            assert!(seen.into_iter().eq(0..FRAMES), "{}", A::NAME);
        }
    }
    allocator::all(&mut Fill);
}

#[test]
fn each_aligns_blocks_to_their_size() {
    struct Align;
    impl Visit for Align {
        fn visit<A: Allocator>(&mut self) {
            let mut allocator = A::new(FRAMES);
            let number = allocator.numbering();
            let mut frames = allocator.local();
            for order in [0, 3, 9, 1, 6, 9, 5] {
                let block = frames.alloc(order).expect("nearly all is free");
                assert_eq!(number(block) % (1 << order), 0, "{}, order {order}", A::NAME);
            }
        }
    }
    allocator::all(&mut Align);
}

#[test]
fn each_starts_again_with_everything() {
    struct Again;
    impl Visit for Again {
        fn visit<A: Allocator>(&mut self) {
            let mut allocator = A::new(FRAMES);
            let taken = allocator.local().alloc(HUGE);
            assert!(taken.is_some());
            allocator.blank();
            allocator.again();
            assert_eq!(huge_blocks(&mut allocator.local()), FRAMES / HUGE_FRAMES, "{}", A::NAME);
        }
    }
    allocator::all(&mut Again);
}

#[test]
fn metadata_is_counted_from_the_types() {
    struct Bits(Vec<(&'static str, f64)>);
    impl Visit for Bits {
        fn visit<A: Allocator>(&mut self) {
            self.0.push((A::NAME, A::bits_per_frame(Size::Gib4.frames())));
        }
    }
    let mut bits = Bits(Vec::new());
    allocator::all(&mut bits);
    let of = |name: &str| bits.0.iter().find(|(other, _)| *other == name).unwrap().1;
    assert!((of("bitmap-allocator") - (1.0 + 1.0 / 15.0)).abs() < 0.01);
    assert_eq!(of("buddy-slab-allocator"), 96.0);
    // A bit for each block of each order, and summaries.
    assert!((2.0..2.1).contains(&of("frame-alloc")));
    assert!(of("vellum-frame, exclusive") > 1.0);
}
