//! Who is measured: each of our policies, and the caches of other crates.
//!
//! ```text
//!   setup(stream, frames) --> the cache, empty          not timed
//!   pass over the stream  --> misses                    timed
//! ```
//!
//! Ours are driven by [`Replay`], which has what a page table would have: the frame of each page, in an
//! array. The peers hash a key of 64 bits, and find their own memory. So the comparison is of a dense
//! array with a map, and flatters ours; it is what a kernel would choose between.

use core::hint::black_box;
use core::num::NonZeroUsize;
use vellum_reclaim::Policy;
use vellum_reclaim::host::{Mode, Replay, Stream};
use vellum_reclaim::policies::{Visit, visit_all};

/// One that can be measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its name: a policy's, or a crate's.
    pub(super) name: &'static str,
    /// The policy that it has.
    pub(super) row: &'static str,
    /// Whether it is ours.
    pub(super) is_ours: bool,
    /// The most frames with which it is run; more would take hours.
    pub(super) most_frames: u32,
    /// Sets it up, and lets `watch` run one pass over the stream.
    pub(super) turn: Turn,
}

/// Runs what it is given, once, and takes its time.
pub(super) type Watch<'a> = &'a mut dyn FnMut(&mut dyn FnMut() -> u64);

type Turn = fn(&Stream, u32, Watch<'_>);

/// A published cache.
trait Peer: Sized {
    fn new(frames: usize) -> Self;
    /// A reference; whether it missed.
    fn reference(&mut self, page: u64) -> bool;
}

fn ours<P: Policy>(stream: &Stream, frames: u32, watch: Watch<'_>) {
    let mut cells = vec![P::Cell::default(); P::cells(frames)];
    let Ok(policy) = P::over(frames, &mut cells) else { return };
    let mut replay = Replay::new(policy, frames, stream.distinct());
    watch(&mut || {
        for &page in black_box(stream).pages() {
            replay.step(page, Mode::EveryReference, P::TICKS);
        }
        replay.misses()
    });
}

fn theirs<C: Peer>(stream: &Stream, frames: u32, watch: Watch<'_>) {
    let mut cache = C::new(frames as usize);
    watch(&mut || {
        let pages = black_box(stream).pages();
        pages.iter().map(|&page| u64::from(cache.reference(page.into()))).sum()
    });
}

/// All of them: ours, in the order of the one list, then the peers.
pub(super) fn all() -> Vec<Entry> {
    struct Ours(Vec<Entry>);
    impl Visit for Ours {
        fn visit<P: Policy>(&mut self) {
            let (name, turn) = (P::NAME, ours::<P> as Turn);
            self.0.push(Entry { name, row: name, is_ours: true, most_frames: u32::MAX, turn });
        }
    }
    let mut all = Ours(Vec::new());
    visit_all(&mut all);
    let mut all = all.0;
    all.extend([
        peer::<Lru>("lru", "lru"),
        peer::<SchnellRu>("schnellru", "lru"),
        peer::<Quick>("quick_cache", "clock"),
        peer::<Sieve>("sieve-cache", "sieve"),
        peer::<ClockPro>("clockpro-cache", "clock-pro"),
        peer::<TwoQ>("caches", "2q"),
        // It looks for a key in queues from end to end.
        Entry { most_frames: 1000, ..peer::<S3Fifo>("s3-fifo", "s3-fifo") },
    ]);
    all
}

fn peer<C: Peer>(name: &'static str, row: &'static str) -> Entry {
    Entry { name, row, is_ours: false, most_frames: u32::MAX, turn: theirs::<C> }
}

struct Lru(lru::LruCache<u64, u64>);

impl Peer for Lru {
    fn new(frames: usize) -> Self {
        Self(lru::LruCache::new(NonZeroUsize::new(frames).unwrap_or(NonZeroUsize::MIN)))
    }

    fn reference(&mut self, page: u64) -> bool {
        let misses = self.0.get(&page).is_none();
        if misses {
            self.0.put(page, page);
        }
        misses
    }
}

struct SchnellRu(schnellru::LruMap<u64, u64>);

impl Peer for SchnellRu {
    fn new(frames: usize) -> Self {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        Self(schnellru::LruMap::new(schnellru::ByLength::new(frames)))
    }

    fn reference(&mut self, page: u64) -> bool {
        let misses = self.0.get(&page).is_none();
        if misses {
            self.0.insert(page, page);
        }
        misses
    }
}

struct Quick(quick_cache::unsync::Cache<u64, u64>);

impl Peer for Quick {
    fn new(frames: usize) -> Self {
        Self(quick_cache::unsync::Cache::new(frames))
    }

    fn reference(&mut self, page: u64) -> bool {
        let misses = self.0.get(&page).is_none();
        if misses {
            self.0.insert(page, page);
        }
        misses
    }
}

struct Sieve(Option<sieve_cache::SieveCache<u64, u64>>);

impl Peer for Sieve {
    fn new(frames: usize) -> Self {
        Self(sieve_cache::SieveCache::new(frames).ok())
    }

    fn reference(&mut self, page: u64) -> bool {
        let Some(cache) = &mut self.0 else { return true };
        let misses = cache.get(&page).is_none();
        if misses {
            cache.insert(page, page);
        }
        misses
    }
}

struct ClockPro(Option<clockpro_cache::ClockProCache<u64, u64>>);

impl Peer for ClockPro {
    fn new(frames: usize) -> Self {
        Self(clockpro_cache::ClockProCache::new(frames).ok())
    }

    fn reference(&mut self, page: u64) -> bool {
        let Some(cache) = &mut self.0 else { return true };
        let misses = cache.get(&page).is_none();
        if misses {
            cache.insert(page, page);
        }
        misses
    }
}

struct TwoQ(Option<caches::TwoQueueCache<u64, u64>>);

impl Peer for TwoQ {
    fn new(frames: usize) -> Self {
        Self(caches::TwoQueueCache::new(frames).ok())
    }

    fn reference(&mut self, page: u64) -> bool {
        use caches::Cache;
        let Some(cache) = &mut self.0 else { return true };
        let misses = cache.get(&page).is_none();
        if misses {
            cache.put(page, page);
        }
        misses
    }
}

struct S3Fifo(s3_fifo::S3FIFO<u64, u64>);

impl Peer for S3Fifo {
    fn new(frames: usize) -> Self {
        Self(s3_fifo::S3FIFO::new(frames))
    }

    fn reference(&mut self, page: u64) -> bool {
        let misses = self.0.get(&page).is_none();
        if misses {
            self.0.put(page, page);
        }
        misses
    }
}
