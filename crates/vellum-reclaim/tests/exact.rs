//! Counts that independent implementations agree on, over libCacheSim's trace `cloudPhysicsIO`.
//!
//! The trace is not ours to hand on, and lies beside the repository where it lies at all; without it the
//! test says that it is skipped. `tests/models` holds every policy against a model instead.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::io::Read;
use std::path::PathBuf;
use vellum_reclaim::host::{Mode, Stream, misses, opt};
use vellum_reclaim::{Clock, Fifo, Lru, Policy, S3Fifo, SecondChance, Sieve};

fn blocks() -> Option<Stream> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/traces/cloudphysics.txt.zst");
    let Ok(packed) = std::fs::File::open(&path) else {
        eprintln!("skipped: there is no {}", path.display());
        return None;
    };
    let mut text = String::new();
    zstd::Decoder::new(packed).unwrap().read_to_string(&mut text).unwrap();
    Some(Stream::new(text.lines().map(|line| line.parse::<u64>().unwrap())))
}

/// Misses with 500, 5,000 and 20,000 frames.
const FRAMES: [u32; 3] = [500, 5000, 20000];

fn counts<P: Policy>(stream: &Stream) -> [u64; 3] {
    FRAMES.map(|frames| misses::<P>(stream, frames, Mode::EveryReference).unwrap())
}

#[test]
fn misses_are_those_of_other_implementations() {
    let Some(stream) = blocks() else { return };
    assert_eq!((stream.pages().len(), stream.distinct()), (113_872, 48_974));
    assert_eq!(counts::<Fifo>(&stream), [96483, 91581, 72229]);
    assert_eq!(counts::<Lru>(&stream), [95398, 91527, 72053]);
    assert_eq!(counts::<Clock>(&stream), [95293, 91458, 72151]);
    assert_eq!(counts::<SecondChance>(&stream), [95293, 91458, 72151]);
    assert_eq!(counts::<Sieve>(&stream), [94379, 89798, 64431]);
    assert_eq!(counts::<S3Fifo>(&stream), [94551, 85382, 70417]);
    assert_eq!(FRAMES.map(|frames| opt::misses(&stream, frames)), [90175, 71311, 51843]);
}

#[test]
fn arc_misses_what_libcachesim_does() {
    let Some(stream) = blocks() else { return };
    // Crates after Go's golang-lru have 85,393: they keep B1 to c - p ghosts and B2 to p, which the paper
    // does not. The paper's figure 4 comes to this, with p in whole steps or in fractions.
    let ours = misses::<vellum_reclaim::Arc>(&stream, 5000, Mode::EveryReference).unwrap();
    assert_eq!(ours, 87_770);
}
