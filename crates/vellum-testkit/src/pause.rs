//! Look-ups that are stopped at each of their accesses to memory, for something else to happen there.
//!
//! ```text
//!   look      access 0 ... n-1 | ........... | access n  ...  last
//!   change                     | all of it   |
//!
//!   access n reads         w0  w1  w2          o  before the change, n  after it
//!     Tear::None           n   n   n
//!     Tear::OldFirst(1)    o   n   n           as if it came between the loads of w0 and w1
//!     Tear::NewFirst(1)    n   o   o           as if these were done the other way round
//! ```
//!
//! A look-up that takes no lock has to come to a right result wherever a change falls into it. Threads
//! that race find a window of a few instructions by luck; this goes through them one by one.
//!
//! One call of [`PhysMap::with`] is one access. What it loads, unordered, a processor may load in any
//! order: a [`Tear`] gives it some words from before the change and the rest from after it, in a copy
//! of the frame.
//!
//! # Invariants
//!
//! - The thread that looks only reads in an access that is torn.

use crate::Arena;
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap};

const WORD: usize = size_of::<u64>();
const WORDS: usize = PAGE_SIZE as usize / WORD;

/// Which of the words that an access reads are from before the change; counted from its address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// None: the change comes before the access.
    None,
    /// So many of the first.
    OldFirst(usize),
    /// All but so many of the first.
    NewFirst(usize),
}

impl Tear {
    /// Those that tell a node of three words or a line of eight from its parts.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::OldFirst(1),
        Self::NewFirst(1),
        Self::OldFirst(2),
        Self::NewFirst(2),
        Self::OldFirst(4),
        Self::NewFirst(4),
        Self::OldFirst(8),
        Self::NewFirst(8),
    ];

    const fn is_old(self, word: usize) -> bool {
        match self {
            Self::None => false,
            Self::OldFirst(n) => word < n,
            Self::NewFirst(n) => word >= n,
        }
    }
}

/// Where in a look-up the change happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// At which access, from 0 on.
    pub access: i64,
    /// What that access reads of the old.
    pub tear: Tear,
}

impl Moment {
    /// Just before this access: for look-ups that also write.
    #[must_use]
    pub const fn before(access: i64) -> Self {
        Self { access, tear: Tear::None }
    }
}

/// Calls `once` with each moment, as long as it says that the look-up came that far.
///
/// # Panics
///
/// When a look-up has fewer than three accesses: then it went past what stops it.
pub fn at_each_moment(mut once: impl FnMut(Moment) -> bool) {
    for access in 0.. {
        // Whether it comes to an access does not depend on what that reads: so it is all or none.
        if !Tear::ALL.into_iter().all(|tear| once(Moment { access, tear })) {
            assert!(access >= 3, "it was stopped nowhere");
            return;
        }
    }
}

/// Where a look-up is stopped, for something else to happen in the middle of it.
#[derive(Debug)]
pub struct Pause {
    /// Accesses of the look-up before it is stopped.
    left: AtomicI64,
    tear: Mutex<Tear>,
    go: Barrier,
    done: Barrier,
}

std::thread_local! {
    /// This thread does the look-up.
    static LOOKS: Cell<bool> = const { Cell::new(false) };
}

impl Default for Pause {
    fn default() -> Self {
        Self::new()
    }
}

impl Pause {
    /// One that nobody is stopped at.
    #[must_use]
    pub fn new() -> Self {
        Self {
            left: AtomicI64::new(-1),
            tear: Mutex::new(Tear::None),
            go: Barrier::new(2),
            done: Barrier::new(2),
        }
    }

    fn meet(&self) {
        self.go.wait();
        self.done.wait();
    }

    fn tear(&self) -> Tear {
        *self.tear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `look`, and all of `change` in another thread at a moment of it; what it returned, and
    /// whether it came that far. If it did not, the change comes after it.
    pub fn at<R>(
        &self,
        Moment { access, tear }: Moment,
        look: impl FnOnce() -> R,
        change: impl FnOnce() + Send,
    ) -> (R, bool) {
        *self.tear.lock().unwrap_or_else(PoisonError::into_inner) = tear;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.go.wait();
                let _done = Done(self);
                change();
            });
            self.left.store(access, Ordering::Relaxed);
            LOOKS.set(true);
            let looking = Looking(self);
            let result = look();
            let came = self.left.load(Ordering::Relaxed) < 0;
            drop(looking);
            (result, came)
        })
    }
}

/// Lets the look-up go on, also when the change has panicked.
struct Done<'p>(&'p Pause);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.wait();
    }
}

/// Lets the change happen if it has not yet, also when the look-up has panicked.
struct Looking<'p>(&'p Pause);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        LOOKS.set(false);
        if self.0.left.load(Ordering::Relaxed) >= 0 {
            self.0.meet();
        }
    }
}

/// An arena at whose accesses a look-up is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Stopped<'a>(pub &'a Arena, pub &'a Pause);

/// A frame as it was in part.
#[repr(C, align(4096))]
struct Torn([AtomicU64; WORDS]);

impl Stopped<'_> {
    /// An access to a copy that was begun before the change.
    fn torn<R>(&self, pa: PhysAddr, tear: Tear, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        let first = (pa.as_u64() % PAGE_SIZE) as usize / WORD;
        let copy = Box::new(Torn([const { AtomicU64::new(0) }; WORDS]));
        let take = |old: bool| {
            for (n, word) in copy.0.iter().skip(first).enumerate() {
                if tear.is_old(n) == old {
                    let at = pa.wrapping_add((n * WORD) as u64);
                    let now = self.0.with(at, |p| {
                        // SAFETY: a word of a frame in use, of which tables touch words by atomics
                        // only; `pa` is that of a word.
                        unsafe { AtomicU64::from_ptr(p.cast().as_ptr()).load(Ordering::Relaxed) }
                    });
                    word.store(now, Ordering::Relaxed);
                }
            }
        };
        take(true);
        self.1.meet();
        take(false);
        // SAFETY: within the copy, which is aligned as a frame is and stays until `f` returns.
        f(unsafe { NonNull::from(&*copy).cast::<u8>().add(first * WORD) })
    }
}

impl PartialEq for Stopped<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// SAFETY: the arena's, or a copy of a frame, which is aligned in the same way and good to its end, for
// a thread that only reads.
unsafe impl PhysMap for Stopped<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        if LOOKS.get() && self.1.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let tear = self.1.tear();
            if tear != Tear::None {
                return self.torn(pa, tear, f);
            }
            self.1.meet();
        }
        self.0.with(pa, f)
    }
}

// SAFETY: the arena's.
unsafe impl FrameSource for Stopped<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.0.alloc(order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.0.free(pa, order) }
    }
}

// SAFETY: one arena is behind both halves, and behind every clone and equal.
unsafe impl Memory for Stopped<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(memory: &impl PhysMap, at: PhysAddr) -> [u64; 3] {
        memory.with(at, |p| {
            // SAFETY: three words of a frame in use, or of its copy.
            let words = unsafe { p.cast::<[AtomicU64; 3]>().as_ref() };
            words.each_ref().map(|word| word.load(Ordering::Relaxed))
        })
    }

    #[test]
    fn a_change_falls_where_the_moment_says() {
        let mut seen = Vec::new();
        at_each_moment(|moment| {
            let (arena, pause) = (Arena::new(1), Pause::new());
            let memory = Stopped(&arena, &pause);
            let at = memory.alloc(0).unwrap().wrapping_add(64);
            let set = |value| {
                memory.with(at, |p| {
                    // SAFETY: as in `words`.
                    let words = unsafe { p.cast::<[AtomicU64; 3]>().as_ref() };
                    words.iter().for_each(|word| word.store(value, Ordering::Relaxed));
                });
            };
            set(0);
            let look = || [0; 4].map(|_: u64| words(&memory, at));
            let (read, came) = pause.at(moment, look, || set(1));
            seen.push((moment, read));
            came
        });
        assert_eq!(seen.len(), 4 * Tear::ALL.len() + 1);
        for (Moment { access, tear }, read) in seen {
            for (n, words) in (0..).zip(read) {
                let expected = match tear {
                    _ if n != access => [u64::from(n > access); 3],
                    Tear::OldFirst(1) => [0, 1, 1],
                    Tear::OldFirst(2) => [0, 0, 1],
                    Tear::NewFirst(1) => [1, 0, 0],
                    Tear::NewFirst(2) => [1, 1, 0],
                    Tear::OldFirst(_) => [0; 3],
                    Tear::None | Tear::NewFirst(_) => [1; 3],
                };
                assert_eq!(words, expected, "access {n}, changed at {access}, {tear:?}");
            }
        }
    }
}
