//! Threads that use one allocator in every way at once, and pass on what they took.
//!
//! ```text
//!   thread 0 --- Cache -------+                 +-- frames --> thread 1, who frees them
//!   thread 1 --- Local -------+--> allocator    +-- frames --> thread 2
//!   thread 2 --- uncached ----+                 :
//!   thread 3 --- by turns ----+
//! ```
//!
//! An owner is noted for each frame with a swap: a frame that is given to two at a time is seen at
//! the second one's swap, whoever that is.

use super::model::at;
use super::ways::runs;
use super::{bytes, set_up, storage};
use crate::{Cache, FrameAllocator, FreeError, Local, MAX_ORDER, Shared};
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::boxed::Box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::vec;
use std::vec::Vec;
use vellum_core::{OutOfFrames, PhysAddr};

/// Marsaglia's xorshift: enough to mix operations.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// An order of 0 to 10, small ones more often.
    pub(super) fn order(&mut self, most: u64) -> u8 {
        self.below(most + 1).min(self.below(most + 1)) as u8
    }
}

/// Who owns each frame; 0 for nobody. Relaxed: it must not order what it watches.
pub(super) struct Owners(Vec<AtomicU8>);

impl Owners {
    pub(super) fn new(count: u64) -> Self {
        Self((0..count).map(|_| AtomicU8::new(0)).collect())
    }

    /// The first frame that was not `from`.
    pub(super) fn change(&self, first: u64, count: u64, from: u8, to: u8) -> Option<u64> {
        let mut frames = (first..).zip(&self.0[first as usize..(first + count) as usize]);
        frames.find(|(_, owner)| owner.swap(to, Relaxed) != from).map(|(frame, _)| frame)
    }
}

/// Frames on their way: first, count, and who took them.
type Parcel = (u64, u64, u8);

/// How a thread reaches the allocator.
enum Way<'a, 'm> {
    Direct(&'a FrameAllocator<'m>),
    Cached(Box<Cache<'a, 'm>>),
    Local(Local<'a, 'm>),
    Turns(Local<'a, 'm>, &'a FrameAllocator<'m>),
}

impl Way<'_, '_> {
    fn alloc(&mut self, turn: u64, order: u8) -> Result<PhysAddr, OutOfFrames> {
        match self {
            Self::Direct(frames) => frames.alloc(order),
            Self::Cached(cache) => cache.alloc(order),
            Self::Turns(_, frames) if turn.is_multiple_of(2) => frames.alloc(order),
            Self::Local(local) | Self::Turns(local, _) => local.alloc(order),
        }
    }

    /// Frees a block that this thread owns.
    fn free(&mut self, turn: u64, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: nothing is behind the frame; the caller has cleared his name from it.
        unsafe {
            match self {
                Self::Direct(frames) => frames.free(pa, order),
                Self::Cached(cache) => cache.free(pa, order),
                Self::Turns(_, frames) if turn.is_multiple_of(2) => frames.free(pa, order),
                Self::Local(local) | Self::Turns(local, _) => local.free(pa, order),
            }
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Direct(_) => {}
            Self::Cached(cache) => cache.flush(),
            Self::Local(local) | Self::Turns(local, _) => local.flush(),
        }
    }
}

#[derive(Clone, Copy)]
struct Plan {
    count: u64,
    rounds: u32,
    most: u64,
    /// How many parcels a thread keeps, at most.
    kept: usize,
}

struct Worker<'a, 'm> {
    me: u8,
    plan: Plan,
    frames: &'a FrameAllocator<'m>,
    way: Way<'a, 'm>,
    owners: &'a Owners,
    random: Random,
    held: Vec<Parcel>,
}

impl Worker<'_, '_> {
    fn took(&mut self, first: u64, count: u64) {
        let other = self.owners.change(first, count, 0, self.me);
        assert_eq!(other, None, "thread {} got a frame that is not free", self.me);
        self.held.push((first, count, self.me));
    }

    fn take(&mut self) {
        let Plan { count, most, .. } = self.plan;
        let order = self.random.order(most);
        match self.random.below(24) {
            0 => {
                let first = self.random.below(count >> order) << order;
                if self.frames.alloc_at(at(first), order).is_ok() {
                    self.took(first, 1 << order);
                }
            }
            1 => {
                let limit = self.random.below(count + 1);
                if let Ok(pa) = self.frames.alloc_below(order, at(limit)) {
                    let first = pa.number().as_u64();
                    assert!(first + (1 << order) <= limit);
                    self.took(first, 1 << order);
                }
            }
            2 => {
                let mut list = vec![at(0); self.random.below(100) as usize];
                let got = self.frames.alloc_bulk(&mut list);
                for pa in &list[..got] {
                    self.took(pa.number().as_u64(), 1);
                }
            }
            3 => {
                let length = 1 + self.random.below(100 << (most / 5));
                if let Ok(pa) = self.frames.alloc_contiguous(length) {
                    self.took(pa.number().as_u64(), length);
                }
            }
            turn => {
                if let Ok(pa) = self.way.alloc(turn, order) {
                    self.took(pa.number().as_u64(), 1 << order);
                }
            }
        }
    }

    /// Frees what some thread took, in one of several ways.
    fn give(&mut self, (first, count, owner): Parcel) {
        assert_eq!(self.owners.change(first, count, owner, 0), None);
        let turn = self.random.below(8);
        let freed = match turn {
            0 => {
                let list: Vec<_> = (first..first + count).map(at).collect();
                // SAFETY: nothing is behind these frames, and they are this thread's.
                unsafe { self.frames.free_bulk(&list) }.map_err(|(_, error)| error)
            }
            1 if count <= 64 => {
                (first..first + count).try_for_each(|pfn| self.way.free(turn, at(pfn), 0))
            }
            _ if count.is_power_of_two() && first % count == 0 => {
                self.way.free(turn, at(first), count.ilog2() as u8)
            }
            // SAFETY: as above.
            _ => unsafe { self.frames.free_contiguous(at(first), count) },
        };
        assert_eq!(freed, Ok(()), "{count} frames at {first}, from thread {owner}");
    }

    fn run(mut self, others: Vec<Sender<Parcel>>, mail: &Receiver<Parcel>) {
        for _ in 0..self.plan.rounds {
            if self.held.len() < self.plan.kept && self.random.below(2) == 0 {
                self.take();
            } else if let Some(at) = self.random.below(64).checked_rem(self.held.len() as u64) {
                let parcel = self.held.swap_remove(at as usize);
                let to = self.random.below(others.len() as u64 * 3) as usize;
                match others.get(to) {
                    Some(other) => other.send(parcel).expect("everybody reads his mail"),
                    None => self.give(parcel),
                }
            }
            if let Ok(parcel) = mail.try_recv() {
                self.give(parcel);
            }
            if self.random.below(500) == 0 {
                self.way.flush();
            }
        }
        drop(others);
        for parcel in mail.iter().chain(core::mem::take(&mut self.held)) {
            self.give(parcel);
        }
        self.way.flush();
    }
}

fn no_frame_twice(threads: u8, first_way: u8, plan: Plan) {
    let usable = [(0, bytes(plan.count))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    let blocks = frames.stats().blocks;
    let owners = Owners::new(plan.count);
    let shared = Shared::<4>::new(&frames);
    let (senders, mail): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel()).unzip();
    thread::scope(|scope| {
        for (me, mail) in (0..threads).zip(mail) {
            let others = (0..threads).filter(|&other| other != me);
            let others: Vec<_> = others.map(|other| senders[usize::from(other)].clone()).collect();
            let (frames, owners, shared) = (&frames, &owners, &shared);
            scope.spawn(move || {
                // SAFETY: each thread is one CPU, of which there is one thread.
                let local = unsafe { shared.on(usize::from(me)) };
                let way = match (me + first_way) % 4 {
                    0 => Way::Cached(Box::new(Cache::new(frames))),
                    1 => Way::Local(local),
                    2 => Way::Direct(frames),
                    _ => Way::Turns(local, frames),
                };
                let random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(me + 1) << 40);
                let (me, held) = (me + 1, Vec::new());
                Worker { me, plan, frames, way, owners, random, held }.run(others, &mail);
            });
        }
        drop(senders);
    });
    drop(shared);
    assert_eq!(runs(&frames), [(0, plan.count)]);
    for order in (0..=MAX_ORDER).rev() {
        for _ in 0..blocks[usize::from(order)] {
            assert!(frames.alloc(order).is_ok(), "order {order} cannot be had again");
        }
    }
}

const ROUNDS: u32 = if cfg!(miri) { 40 } else { 120_000 };
const MOST: u64 = if cfg!(miri) { 7 } else { 10 };

#[test]
fn four_threads_share_plenty_in_every_way() {
    let count = if cfg!(miri) { 512 } else { 1 << 15 };
    no_frame_twice(4, 0, Plan { count, rounds: ROUNDS, most: MOST, kept: 60 });
}

#[test]
fn four_threads_share_little_in_every_way() {
    let count = if cfg!(miri) { 128 } else { 2100 };
    no_frame_twice(4, 0, Plan { count, rounds: ROUNDS, most: MOST, kept: 1000 });
}

#[test]
fn two_caches_share_plenty() {
    let count = if cfg!(miri) { 512 } else { 1 << 14 };
    no_frame_twice(2, 0, Plan { count, rounds: ROUNDS, most: MOST, kept: 60 });
}

#[test]
fn two_threads_share_little_in_every_pair_of_ways() {
    for first_way in 0..4 {
        let count = if cfg!(miri) { 100 } else { 700 };
        no_frame_twice(
            2,
            first_way,
            Plan { count, rounds: ROUNDS / 2, most: 9.min(MOST), kept: 1000 },
        );
    }
}

/// Two words of frames and nothing but single ones: every word is taken whole and given back in
/// part by both at once.
#[test]
fn two_threads_share_two_words_frame_by_frame() {
    for first_way in 0..4 {
        let rounds = if cfg!(miri) { 60 } else { 120_000 };
        no_frame_twice(2, first_way, Plan { count: 128, rounds, most: 0, kept: 200 });
    }
}
