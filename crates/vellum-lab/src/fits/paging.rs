//! The stream in frames: each page of a process wherever a frame is free.
//!
//! ```text
//!   segments   |#########|####|###############|      each rounded up to whole pages
//!   frames     [##][##][# ][# ][##][##][##][# ]      ^ what is wasted: internal fragmentation
//! ```
//!
//! The frames come from `vellum_frame::FrameAllocator`: single ones, many at a time. A process that
//! does not get all gives back what it got.

use super::replay::{Loader, replay};
use super::report::PagingRun;
use super::stream::{Process, Stream};
use crate::histogram::mean;
use crate::ram::{DataFrames, RamError, with_frames};
use vellum_core::{PAGE_SIZE, PhysAddr};

#[derive(Default)]
struct Counts {
    requests: u64,
    loaded: u64,
    refused: u64,
    though_free: u64,
    internal: u64,
    internal_max: u64,
    given: u64,
}

struct Memory<'a, 'm> {
    frames: &'a DataFrames<'m>,
    free: u64,
    counts: Counts,
}

impl Loader for Memory<'_, '_> {
    type Loaded = Vec<PhysAddr>;

    fn load(&mut self, process: &Process) -> Option<Vec<PhysAddr>> {
        self.counts.requests += 1;
        let count = process.segments.count_frames();
        let taken = if count <= self.free { self.take(count) } else { None };
        let Some(taken) = taken else {
            self.counts.refused += 1;
            self.counts.though_free += u64::from(count <= self.free);
            return None;
        };
        self.free -= count;
        let internal = count * PAGE_SIZE - process.segments.bytes();
        self.counts.loaded += 1;
        self.counts.given += count * PAGE_SIZE;
        self.counts.internal += internal;
        self.counts.internal_max = self.counts.internal_max.max(internal);
        Some(taken)
    }

    fn leave(&mut self, taken: Vec<PhysAddr>) {
        self.free += taken.len() as u64;
        self.give_back(&taken);
    }
}

impl Memory<'_, '_> {
    /// So many frames, or none at all.
    fn take(&self, count: u64) -> Option<Vec<PhysAddr>> {
        let count = usize::try_from(count).ok()?;
        let mut frames = vec![PhysAddr::new(0); count];
        let taken = self.frames.alloc_bulk(&mut frames);
        if taken == count {
            return Some(frames);
        }
        self.give_back(&frames[..taken]);
        None
    }

    fn give_back(&self, taken: &[PhysAddr]) {
        let freed = self.frames.free_bulk(taken);
        debug_assert!(freed.is_ok(), "it was taken: {freed:?}");
    }
}

/// Replays the stream in `memory_bytes` of frames; `needed_bytes` is the stream's peak.
pub(super) fn run(
    stream: &Stream,
    memory_bytes: u64,
    needed_bytes: u64,
) -> Result<PagingRun, RamError> {
    let free = memory_bytes / PAGE_SIZE;
    let counts = with_frames(free, |frames| {
        let mut memory = Memory { frames, free, counts: Counts::default() };
        replay(stream, &mut memory);
        memory.counts
    })?;
    Ok(PagingRun {
        page_bytes: PAGE_SIZE,
        requests: counts.requests,
        refused: counts.refused,
        refused_though_free: counts.though_free,
        internal_bytes_mean: mean(counts.internal, counts.loaded),
        internal_bytes_max: counts.internal_max,
        internal_share: mean(counts.internal, counts.given),
        needed_bytes,
    })
}
