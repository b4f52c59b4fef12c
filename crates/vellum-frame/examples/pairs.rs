//! Allocates and frees one block again and again, for counting instructions.
//!
//! ```text
//! cargo build --release -p vellum-frame --example pairs
//! for n in 10000 110000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/pairs 0 $n
//! done
//! ```
//!
//! The difference of the two totals ("Collected"), divided by 100,000, is the instructions of one
//! pair. The arguments are the order and the number of pairs; a third one fragments memory first,
//! so that every other frame is taken.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use core::hint::black_box;
use core::sync::atomic::AtomicU64;
use std::time::Instant;
use vellum_core::{OutOfFrames, PhysAddr};
use vellum_frame::FrameAllocator;

/// The memory that is simulated: 4 GiB. No byte of it exists.
const MAP: [(u64, u64); 1] = [(0, 4 << 30)];

const NOTHING: [(u64, u64); 0] = [];

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut args = std::env::args().skip(1);
    let order = args.next().map_or(Ok(0), |arg| arg.parse())?;
    let pairs = args.next().map_or(Ok(1 << 24), |arg| arg.parse())?;
    let storage: Vec<AtomicU64> =
        (0..FrameAllocator::words_needed(MAP, NOTHING)).map(|_| AtomicU64::new(0)).collect();
    let frames = FrameAllocator::new();
    // SAFETY: there is no memory that anybody could use, and `storage` is given to nobody else.
    unsafe { frames.init_in(&storage, MAP, NOTHING)? };
    if args.next().is_some() {
        fragment(&frames)?;
    }
    let mode = std::env::var("MODE").unwrap_or_default();
    let mut frames = frames;
    let start = Instant::now();
    match mode.as_str() {
        "" => {
            let frames = black_box(&frames);
            for _ in 0..pairs {
                let pa = black_box(frames.alloc(black_box(order))?);
                // SAFETY: allocated right here.
                unsafe { frames.free(pa, order)? };
            }
        }
        "x" => {
            let frames = frames.exclusive();
            let frames = black_box(&frames);
            for _ in 0..pairs {
                let pa = black_box(frames.alloc(black_box(order))?);
                // SAFETY: allocated right here.
                unsafe { frames.free(pa, order)? };
            }
        }
        _ => {
            let mut frames = vellum_frame::Cache::new(&frames);
            let frames = black_box(&mut frames);
            for _ in 0..pairs {
                let pa = black_box(frames.alloc(black_box(order))?);
                // SAFETY: allocated right here.
                unsafe { frames.free(pa, order)? };
            }
        }
    }
    let ns = start.elapsed().as_nanos() as f64 / f64::from(pairs);
    println!("{ns:.1} ns for each alloc and free of order {order}");
    Ok(())
}

/// Takes every other frame of the lower half.
fn fragment(frames: &FrameAllocator<'_>) -> Result<(), OutOfFrames> {
    let all: Vec<PhysAddr> = (0..1 << 19).map(|_| frames.alloc(0)).collect::<Result<_, _>>()?;
    for pa in all.into_iter().step_by(2) {
        // SAFETY: allocated above.
        if let Err(error) = unsafe { frames.free(pa, 0) } {
            unreachable!("{error}");
        }
    }
    Ok(())
}
