//! Takes a memory through a stream: who arrives, who leaves, and when.
//!
//! ```text
//!   arrivals    A      B   C          D        in order; of one moment in the stream's order
//!   memory      load   load ...  leave(A) load
//!   departures            a heap: A's end, B's end, ...    before arrivals of the same moment
//! ```
//!
//! # Invariants
//!
//! - Only what was loaded leaves, once.

use super::stream::{Process, Stream};
use core::cmp::Reverse;
use std::collections::BinaryHeap;

/// What processes are loaded into.
pub(super) trait Loader {
    /// What tells loaded processes apart.
    type Loaded;

    /// Gives a process memory; `None` if it is refused. Nobody asks a second time.
    fn load(&mut self, process: &Process) -> Option<Self::Loaded>;

    /// Takes the memory back.
    fn leave(&mut self, loaded: Self::Loaded);

    /// Whether all is known that was to be found out.
    fn is_done(&self) -> bool {
        false
    }
}

/// Replays the stream from its first arrival to its last, or until all is known.
pub(super) fn replay<L: Loader>(stream: &Stream, memory: &mut L) {
    let mut loaded: Vec<Option<L::Loaded>> = Vec::with_capacity(stream.processes.len());
    let mut ends = BinaryHeap::new();
    for (n, process) in stream.processes.iter().enumerate() {
        while let Some(&Reverse((end, other))) = ends.peek() {
            if end > process.arrival_ms {
                break;
            }
            ends.pop();
            if let Some(gone) = loaded.get_mut(other).and_then(Option::take) {
                memory.leave(gone);
            }
        }
        let place = memory.load(process);
        if place.is_some() {
            ends.push(Reverse((process.arrival_ms + process.lifetime_ms, n)));
        }
        loaded.push(place);
        if memory.is_done() {
            break;
        }
    }
}

/// The most that a stream ever asks for at one time, where nothing is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    /// Processes.
    pub(super) processes: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Frames, if they are paged.
    pub(super) frames: u64,
}

impl Peak {
    pub(super) fn of(stream: &Stream) -> Self {
        let mut endless = Endless::default();
        replay(stream, &mut endless);
        endless.peak
    }
}

/// A memory that takes everybody, and counts.
#[derive(Default)]
struct Endless {
    now: Peak,
    peak: Peak,
}

impl Loader for Endless {
    type Loaded = (u64, u64);

    fn load(&mut self, process: &Process) -> Option<(u64, u64)> {
        let (bytes, frames) = (process.segments.bytes(), process.segments.count_frames());
        self.now.processes += 1;
        self.now.bytes += bytes;
        self.now.frames += frames;
        self.peak = Peak {
            processes: self.peak.processes.max(self.now.processes),
            bytes: self.peak.bytes.max(self.now.bytes),
            frames: self.peak.frames.max(self.now.frames),
        };
        Some((bytes, frames))
    }

    fn leave(&mut self, (bytes, frames): (u64, u64)) {
        self.now.processes -= 1;
        self.now.bytes -= bytes;
        self.now.frames -= frames;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(lines: &str) -> Stream {
        let text = format!("arrival_ms,lifetime_ms,bytes\n{lines}");
        Stream::read("test", text.as_bytes()).unwrap()
    }

    #[test]
    fn who_leaves_makes_room_for_who_arrives_at_the_same_moment() {
        let peak = Peak::of(&stream("0,10,5000\n10,10,3000+2000\n20,1,1\n"));
        assert_eq!(peak, Peak { processes: 1, bytes: 5000, frames: 2 });
        let peak = Peak::of(&stream("0,11,5000\n10,10,3000+2000\n20,1,1\n"));
        assert_eq!(peak, Peak { processes: 2, bytes: 10_000, frames: 4 });
    }

    #[test]
    fn who_was_refused_does_not_leave() {
        struct Every(Vec<u64>, bool);
        impl Loader for Every {
            type Loaded = u64;
            fn load(&mut self, process: &Process) -> Option<u64> {
                self.1 = !self.1;
                self.1.then_some(process.segments.bytes())
            }
            fn leave(&mut self, loaded: u64) {
                self.0.push(loaded);
            }
        }
        let mut every = Every(Vec::new(), false);
        replay(&stream("0,9,1\n1,2,2\n2,3,3\n3,1,4\n9,1,5\n"), &mut every);
        assert_eq!(every.0, [3, 1]);
    }
}
