//! Every policy against a model of its paper: the same page goes at every miss.
//!
//! Models know pages, vectors and maps, and nothing of frames, nodes or shadows; they are written for
//! being read, and search where they must. Streams are random ones of several shapes, and one long
//! program that is made up.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

mod adaptive;
mod simple;

use proptest::prelude::*;
use vellum_reclaim::host::{Mode, Replay, Stream};
use vellum_reclaim::{
    Aging, Arc, Car, Clock, ClockPro, Fifo, Generational, Lirs, Lru, Nru, Policy, Replacement,
    S3Fifo, SecondChance, Sieve, TwoQ, WsClock,
};

/// A cache of pages, as a paper tells it.
trait Model {
    /// Whether the page is there.
    fn has(&self, page: u32) -> bool;
    /// A reference to a page that is there.
    fn hit(&mut self, page: u32);
    /// A reference to one that is not: it is, afterwards, and another may be gone.
    fn miss(&mut self, page: u32) -> Option<u32>;
    /// Time passes.
    fn tick(&mut self) {}
}

/// Replays both, and compares who goes.
fn compare<P: Policy>(mut model: impl Model, stream: &Stream, frames: u32) {
    let mut cells = vec![P::Cell::default(); P::cells(frames)];
    let policy = P::over(frames, &mut cells).unwrap();
    let mut replay = Replay::new(policy, frames, stream.distinct());
    let tick = (frames as usize / 2).max(1);
    replay.set_tick(tick as u32);
    let mut misses = 0;
    for (at, &page) in stream.pages().iter().enumerate() {
        if P::TICKS && (at + 1) % tick == 0 {
            model.tick();
        }
        let gone = replay.step(page, Mode::EveryReference, P::TICKS);
        let hits = model.has(page);
        misses += u64::from(!hits);
        let expected = if hits {
            model.hit(page);
            None
        } else {
            model.miss(page)
        };
        assert_eq!(gone, expected, "{} at reference {at} of {frames} frames", P::NAME);
        assert!(replay.policy().len() <= frames);
        assert!(replay.policy().ghosts() <= frames);
    }
    assert_eq!(replay.misses(), misses, "{}", P::NAME);
}

/// All of them.
fn compare_all(stream: &Stream, frames: u32) {
    let c = frames as usize;
    compare::<Fifo>(simple::Fifo::new(c), stream, frames);
    compare::<Lru>(simple::Lru::new(c), stream, frames);
    compare::<Clock>(simple::Clock::new(c), stream, frames);
    compare::<SecondChance>(simple::Clock::new(c), stream, frames);
    compare::<Sieve>(simple::Sieve::new(c), stream, frames);
    compare::<Nru>(simple::Nru::new(c), stream, frames);
    compare::<Aging>(simple::Aging::new(c), stream, frames);
    compare::<WsClock>(simple::WsClock::new(c), stream, frames);
    compare::<Generational>(simple::Generational::new(c), stream, frames);
    compare::<TwoQ>(adaptive::TwoQ::new(c), stream, frames);
    compare::<S3Fifo>(adaptive::S3Fifo::new(c), stream, frames);
    compare::<Arc>(adaptive::Arc::new(c), stream, frames);
    compare::<Car>(adaptive::Car::new(c), stream, frames);
    compare::<Lirs>(adaptive::Lirs::new(c), stream, frames);
    compare::<ClockPro>(adaptive::ClockPro::new(c), stream, frames);
}

#[test]
fn the_same_page_goes_on_a_long_stream() {
    let stream = Stream::synthetic(997, 60_000);
    for frames in [128, 300] {
        compare_all(&stream, frames);
    }
}

/// Few pages, so that ghosts come back; or loops; or many pages and a hot few.
fn streams() -> impl Strategy<Value = Stream> {
    let uniform = (2u32..40).prop_flat_map(|pages| prop::collection::vec(0..pages, 1..400));
    let looped = (2u32..30, 1usize..20)
        .prop_map(|(pages, times)| (0..times).flat_map(|_| 0..pages).collect::<Vec<_>>());
    let skewed = prop::collection::vec((0u32..100, 0u32..100), 1..600)
        .prop_map(|pairs| pairs.into_iter().map(|(a, b)| a * b / 100).collect::<Vec<_>>());
    let piece = prop_oneof![uniform, looped, skewed];
    prop::collection::vec(piece, 1..4).prop_map(|pieces| Stream::new(pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_same_page_goes(stream in streams(), frames in 1u32..24) {
        compare_all(&stream, frames);
    }
}
