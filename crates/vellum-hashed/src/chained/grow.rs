//! Linear hashing of chains: one bucket more, one bucket less, and memory that goes back.
//!
//! ```text
//!            hold s            move            publish          let go of s
//!   s: [a] b c d      s: [a] c                                              look-ups of b, d that
//!   n: -              n: [b] d                 n + 1                        began at s find its
//!                     (nobody looks there)                                  version moved
//! ```

use super::{Chained, EMPTY, VERSION, WORDS};
use crate::directory::{Directory, bucket_of, parent};
use vellum_core::Memory;
use vellum_global::node::{self, Words};
use vellum_global::word::store;
use vellum_global::{Key, Node, Nodes, Pool};

impl<M: Memory> Chained<M> {
    /// Splits up to `steps` buckets while there are more entries than buckets; does nothing while
    /// somebody else does. Nodes that become buckets go into `nodes`.
    pub(super) fn grow<'t>(&'t self, steps: u64, nodes: &mut Nodes<'t, M>) {
        self.directory.grow(&self.entries, steps, |n| self.split(n, nodes));
    }

    /// Moves what belongs to bucket `n`, the next, out of the one that it is split from, and
    /// publishes it before that is given back.
    pub(super) fn split<'t>(&'t self, n: u64, nodes: &mut Nodes<'t, M>) {
        let to = self.bucket(n);
        let (from, held) = self.hold_bucket(parent(n));
        to.set(EMPTY);
        // SAFETY: a word of the new bucket, in whose segment nobody looks there before n + 1 is seen.
        unsafe { store(self.memory(), to.at().wrapping_add(VERSION), 0) };
        let moves =
            |tag: u64| Key::from_tag(tag).is_some_and(|key| bucket_of(key.hash(), n + 1) == n);
        let first = from.words();
        let vacant = moves(first.tag);
        if vacant {
            to.set(Words { next: 0, ..first });
        }
        let (mut before, mut filled) = (from, None);
        // SAFETY: the bucket is held; a node is changed only after the next was found.
        for node in unsafe { node::nodes(self.memory(), first.next) } {
            let words = node.words();
            if !moves(words.tag) {
                before = node;
                continue;
            }
            before.set_next(words.next);
            if to.tag() == 0 {
                to.set(Words { next: 0, ..words });
                filled = Some(node);
            } else {
                node.set_next(to.next());
                to.set_next(node.at().as_u64());
            }
        }
        let pulled = if vacant { self.vacate(from) } else { None };
        self.directory.publish(n);
        drop(held);
        for node in [filled, pulled].into_iter().flatten() {
            // SAFETY: of our pool, and in no chain any more; whoever has its address only reads it.
            unsafe { nodes.put(&self.pool, node.at()) };
        }
    }

    /// Gives memory back after many entries are gone: no more buckets than the next power of
    /// two above what is there, hence a load of at least a half where there were more, and no frame
    /// without a node in use.
    ///
    /// Costs a step a bucket that goes. It takes the table exclusively, hence no space may be open.
    /// Two buckets that become one may need a node; where the memory has none, as many stay.
    ///
    /// ```
    /// # fn main() -> Result<(), vellum_core::OutOfFrames> {
    /// use vellum_hashed::Chained;
    /// use vellum_testkit::Arena;
    ///
    /// let arena = Arena::new(64);
    /// let mut table = Chained::with_capacity(&arena, 4096)?;
    /// assert_eq!((table.count_buckets(), arena.frames_in_use()), (4096, 32));
    /// table.shrink();
    /// assert_eq!((table.count_buckets(), arena.frames_in_use()), (128, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink(&mut self) {
        let (pool, mut nodes) = (&self.pool, Nodes::new(&self.pool));
        self.directory.shrink(*self.entries.get_mut(), |directory, last| {
            join(directory, last, pool, &mut nodes)
        });
        drop(nodes);
        self.pool.trim();
    }

    /// Gives the frames of nodes back that have no node in use, though the table is shared.
    ///
    /// # Safety
    ///
    /// No other call on the table or its spaces is under way: a kernel's grace period has passed.
    pub unsafe fn reclaim(&self) {
        // SAFETY: the caller's: look-ups are calls.
        unsafe { self.pool.reclaim() };
    }
}

/// Moves the entries of the last bucket to that which it was split from, in a table that is
/// exclusive; `false`, and nothing has changed, if that takes a node and there is none.
fn join<'p, M: Memory>(
    directory: &Directory<M, WORDS>,
    last: u64,
    pool: &'p Pool<M>,
    nodes: &mut Nodes<'p, M>,
) -> bool {
    let memory = directory.memory();
    // SAFETY: buckets of segments that are there, and the table is exclusive.
    let bucket = |n| unsafe { Node::new(memory, directory.head(n)) };
    let (from, to) = (bucket(last), bucket(parent(last)));
    let first = from.words();
    if to.tag() == 0 {
        to.set(first);
    } else if first.tag != 0 {
        let node = nodes.refill(pool, 1).ok().and_then(|()| nodes.take(pool));
        let Some(at) = node else { return false };
        // SAFETY: a node of the pool, which `nodes` had alone.
        let node = unsafe { Node::new(memory, at) };
        node.set(first);
        // SAFETY: the table is exclusive.
        let end = unsafe { node::nodes(memory, first.next) }.last().unwrap_or(node);
        end.set_next(to.next());
        to.set_next(at.as_u64());
    }
    true
}
