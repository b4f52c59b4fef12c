//! loom models: a few steps of two threads on the page cache, in every order that matters.
//!
//! ```text
//!   reads     two readers of a page; a reader beside a truncation, a sweep, a reader of another page of
//!             its chain; a page found while its frame goes and comes back as another
//!   sweeps    storing, dropping and forgetting beside each other and beside who stores through a share
//! ```
//!
//! In each execution a frame is used by nobody who does not come after its last owner
//! (`modelled::Ram`, with a cell for each frame that loom watches), and at the end all frames are back.
//!
//! # What they see
//!
//! Each of these was done to the code by hand once, and failed at the model named (and at others):
//!
//! | left out or turned round | seen by |
//! |---|---|
//! | the second look at the length; the fence before it; that of a sweep | `no_page_is_left_behind_an_end_…` |
//! | `insert` not looking for the page first | `a_page_is_read_once_…` |
//! | a share taken behind the chain's lock | `a_page_that_is_found_is_that_page_…`, `who_finds_a_page_…` |
//! | dropping a page that is owned; its state read before its owners | `a_page_that_was_stored_to_…` |
//! | dirty cleared behind the write | `a_store_beside_a_write_back_…` |
//! | a page taken for uncached for a moment (`PageInfo::clear_unless`) | `no_sweep_misses_…` |
//! | facts set or read relaxed | `a_page_is_read_once_…`, `the_last_page_…` |
//! | a block's count relaxed | `a_block_goes_back_once` |
//! | `Count`: `put` relaxed, or without its fence; `is_sole` relaxed | `no_page_is_left_…`, `a_page_that_was_stored_to_…` |
//!
//! Not seen by any: a reader that looks whether its page is cached before it says that it is ready, and not
//! in one step. Who maps such a page looks once more (vellum-fault's models).
//!
//! # How much they see
//!
//! Executions with at most [`PREEMPTIONS`] (or `LOOM_MAX_PREEMPTIONS`) switches away from a thread that
//! could go on. The chains' lock is a mutex of loom's, the allocator a word of bits.

mod reads;
mod sweeps;

use crate::modelled::{Disk, Ram};
use crate::page::State;
use crate::{Cache, FileId};
use core::sync::atomic::{AtomicU64 as Counter, Ordering::Relaxed};
use loom::model::Builder;
use loom::thread;
use std::sync::Arc;
use std::vec::Vec;

/// Switches away from a thread that could go on, in one execution.
const PREEMPTIONS: usize = 3;

const FILE: FileId = FileId(1);
const OTHER: FileId = FileId(2);

/// What all threads of a model share.
struct World {
    ram: Ram,
    disk: Disk,
    cache: Cache<Ram>,
}

impl World {
    /// Whether the page is cached and differs from its file.
    fn is_dirty(&self, index: u64) -> bool {
        let page = self.cache.find(FILE, index);
        page.is_some_and(|page| page.info().state().contains(State::DIRTY))
    }
}

/// A part of a model that is one thread's.
type Part = fn(&World);

/// Runs `before`, then `parts` as threads, then `after`, in every execution.
fn explore<const N: usize>(frames: u32, before: Part, parts: [Part; N], after: Part) {
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    let executions = Arc::new(Counter::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        let ram = Ram::new(frames);
        let disk = Disk::new(&ram, 4 << 12);
        let cache = Cache::new(ram.clone(), 0).unwrap();
        let world = Arc::new(World { ram: ram.clone(), disk, cache });
        before(&world);
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let world = Arc::clone(&world);
                thread::spawn(move || part(&world))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        after(&world);
        drop(world);
        assert_eq!(ram.count_free(), frames, "every frame is back");
    });
    std::eprintln!("{} executions", executions.load(Relaxed));
}
