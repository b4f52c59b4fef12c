//! The rows with a clock, one thread: what a turn does.
//!
//! ```text
//!   a   hold one frame;       N times: alloc(0), free         a kernel's steady state
//!   b   fill all frames;      free them all in random order   a big program starts, and ends
//!   c   hold one huge block;  N times: alloc(9), free         huge pages
//!   d   50% to 90% used;      N requests of orders 0 to 9     mixed life
//!   e   N times: 256 x alloc(0), 256 x free                   fault-around, buffers
//! ```
//!
//! One frame (or block) is held in (a) and (c), so that its buddy lies free and the pair takes that
//! one: without it a buddy system would split its largest block and put it together again each
//! time, a case that a running kernel never has. It is the peers' best case.
//!
//! # Invariants
//!
//! - A turn leaves the allocator with everything free again.
//! - The compiler knows neither the allocator's state nor the order: both go through a black box
//!   at each operation (in (d) the orders come out of a list), for ours and for every peer.

use super::allocator::{Allocator, Frames, HUGE};
use super::stream::{Mix, Orders, Slots, Stream};
use crate::clock::Stopwatch;
use crate::random::Random;
use crate::rounds::{Contender, Figures};
use core::hint::black_box;
use std::rc::Rc;

/// The frames of a batch.
pub const BATCH: usize = 256;

/// How much a turn does.
#[derive(Clone, Debug)]
pub struct Amounts {
    /// Frames of the memory.
    pub frames: u64,
    /// Pairs of (a); (c) has a quarter.
    pub pairs: usize,
    /// Batches of (e).
    pub batches: usize,
    /// The requests of (d), for each of [`Mixed`].
    pub streams: [Rc<Stream>; 3],
}

/// A row that one thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single {
    /// A frame, and back.
    Pair,
    /// All frames, and back in random order.
    Fill,
    /// A 2 MiB block, and back.
    Huge,
    /// Random orders.
    Mixed(Mixed),
    /// 256 frames, one call each, and back.
    Batch,
    /// 256 frames in as few calls as the allocator has for it, and back.
    Bulk,
}

/// Kinds of (d).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixed {
    /// Small orders mostly; up to 90% by allocating alone, down to 50% by freeing alone.
    Swings,
    /// Small orders mostly; allocating and freeing by turns.
    Mostly,
    /// All orders as likely; allocating and freeing by turns.
    Uniform,
}

impl Mixed {
    /// All, in the order of [`Amounts::streams`].
    pub const ALL: [Self; 3] = [Self::Swings, Self::Mostly, Self::Uniform];

    /// What its stream is made of, and how many requests of it that is for `n` of [`Self::Uniform`]
    /// (small blocks take more of them to go from 50% to 90%).
    #[must_use]
    pub const fn stream(self, n: usize) -> (Mix, usize) {
        let (orders, bias, requests) = match self {
            Self::Swings => (Orders::Halving, 100, 4 * n),
            Self::Mostly => (Orders::Halving, 60, 4 * n),
            Self::Uniform => (Orders::Uniform, 60, n),
        };
        (Mix { orders, bias, seed: 0xd }, requests)
    }
}

/// What a row is called, and in what it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The name for `--only`.
    pub row: &'static str,
    /// The head of its column.
    pub title: &'static str,
    /// In what.
    pub unit: &'static str,
}

const fn label(row: &'static str, title: &'static str, unit: &'static str) -> Label {
    Label { row, title, unit }
}

impl Single {
    /// In the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::Pair,
        Self::Huge,
        Self::Fill,
        Self::Mixed(Mixed::Swings),
        Self::Mixed(Mixed::Mostly),
        Self::Mixed(Mixed::Uniform),
        Self::Batch,
        Self::Bulk,
    ];

    /// One for each figure of a turn.
    #[must_use]
    pub const fn labels(self) -> &'static [Label] {
        match self {
            Self::Pair => const { &[label("a", "a: frame", "ns/pair")] },
            Self::Fill => {
                const { &[label("b", "b: fill", "ns/alloc"), label("b", "b: drain", "ns/free")] }
            }
            Self::Huge => const { &[label("c", "c: 2 MiB", "ns/pair")] },
            Self::Mixed(Mixed::Swings) => const { &[label("d", "d: swings", "ns/op")] },
            Self::Mixed(Mixed::Mostly) => const { &[label("d", "d: mixed", "ns/op")] },
            Self::Mixed(Mixed::Uniform) => const { &[label("d", "d: uniform", "ns/op")] },
            Self::Batch => const { &[label("e", "e: batch", "ns/pair")] },
            Self::Bulk => const { &[label("e", "e: in bulk", "ns/pair")] },
        }
    }

    /// An allocator set up for this row.
    #[must_use]
    pub fn contender<A: Allocator>(self, amounts: &Amounts) -> Contender {
        let mut allocator = A::new(amounts.frames);
        let Amounts { frames, pairs, batches, .. } = *amounts;
        match self {
            Self::Pair => Contender::new(A::NAME, move || pair(&mut allocator, 0, pairs)),
            Self::Huge => Contender::new(A::NAME, move || pair(&mut allocator, HUGE, pairs / 4)),
            Self::Fill => Contender::new(A::NAME, move || fill(&mut allocator, frames as usize)),
            Self::Mixed(kind) => {
                let stream = Rc::clone(&amounts.streams[kind as usize]);
                Contender::new(A::NAME, move || mixed(&mut allocator, &stream))
            }
            Self::Batch => Contender::new(A::NAME, move || {
                let mut local = allocator.local();
                vec![batch(&mut local, batches)]
            }),
            Self::Bulk => Contender::new(A::NAME, move || {
                let mut local = allocator.local();
                vec![bulk(&mut local, batches)]
            }),
        }
    }
}

/// N times one block, and back.
pub fn pairs(frames: &mut impl Frames, order: u8, count: usize) {
    for _ in 0..count {
        let frames = black_box(&mut *frames);
        if let Some(block) = black_box(frames.alloc(black_box(order))) {
            // SAFETY: allocated right here.
            unsafe { frames.free(block, black_box(order)) };
        }
    }
}

fn pair<A: Allocator>(allocator: &mut A, order: u8, count: usize) -> Figures {
    let mut frames = allocator.local();
    let held = frames.alloc(order);
    let watch = Stopwatch::start();
    pairs(&mut frames, order, count);
    let nanos = watch.nanos_each(count);
    if let Some(block) = held {
        // SAFETY: allocated above.
        unsafe { frames.free(block, order) };
    }
    vec![nanos]
}

fn fill<A: Allocator>(allocator: &mut A, count: usize) -> Figures {
    let mut frames = allocator.local();
    let mut blocks = Vec::with_capacity(count);
    let watch = Stopwatch::start();
    for _ in 0..count {
        let frames = black_box(&mut frames);
        let Some(block) = frames.alloc(black_box(0)) else { break };
        blocks.push(block);
    }
    let alloc = watch.nanos_each(count);
    assert!(blocks.len() == count, "{} had {} frames of {count}", A::NAME, blocks.len());
    // The same places change for everybody, whatever frames lie there.
    Random::new(0xb).shuffle(&mut blocks);
    let watch = Stopwatch::start();
    for block in blocks.drain(..) {
        let frames = black_box(&mut frames);
        // SAFETY: allocated above, and each is freed once.
        unsafe { frames.free(block, black_box(0)) };
    }
    vec![alloc, watch.nanos_each(count)]
}

fn mixed<A: Allocator>(allocator: &mut A, stream: &Stream) -> Figures {
    let mut frames = allocator.local();
    let mut slots = Slots::new(stream.slots);
    let mut replay = |requests| {
        // SAFETY: the parts of one stream, in its order, with one allocator.
        black_box(unsafe { slots.replay(requests, black_box(&mut frames)) });
    };
    replay(&stream.fill);
    let watch = Stopwatch::start();
    replay(&stream.churn);
    let nanos = watch.nanos_each(stream.churn.len());
    replay(&stream.rest);
    vec![nanos]
}

/// N times 256 frames, one call each, and back in the same order; nanoseconds for each pair.
pub fn batch(frames: &mut impl Frames, batches: usize) -> f64 {
    let mut held = [None; BATCH];
    let watch = Stopwatch::start();
    batches_of(frames, &mut held, batches);
    watch.nanos_each(batches * BATCH)
}

/// The same without a clock.
pub fn batches_of<F: Frames>(frames: &mut F, held: &mut [Option<F::Block>], batches: usize) {
    for _ in 0..batches {
        for place in &mut *held {
            *place = black_box(&mut *frames).alloc(black_box(0));
        }
        for block in &mut *held {
            if let Some(block) = block.take() {
                // SAFETY: allocated above, and taken out.
                unsafe { black_box(&mut *frames).free(block, black_box(0)) };
            }
        }
    }
}

fn bulk<F: Frames>(frames: &mut F, batches: usize) -> f64 {
    let mut held = Vec::with_capacity(BATCH);
    let watch = Stopwatch::start();
    for _ in 0..batches {
        let frames = black_box(&mut *frames);
        frames.alloc_batch(black_box(&mut held), black_box(BATCH));
        // SAFETY: allocated right here.
        unsafe { frames.free_batch(black_box(&mut held)) };
    }
    watch.nanos_each(batches * BATCH)
}
