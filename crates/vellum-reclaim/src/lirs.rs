//! LIRS: pages whose last two references lie close together stay; the others pass through a short queue.
//!
//! ```text
//!   stack S, by last reference                    queue Q, resident HIR
//!   top     [h] [L] [g] [L] [h] [L] [g] [L]      next -> [h] [h] [h] <- comes
//!                                      ^ bottom: always L
//!     L  LIR, about 99% of the frames            a victim that is in S stays there as g, a ghost
//!     h  HIR, resident
//!     g  HIR, gone                               g or h in S referenced: L now, and the bottom L is h
//! ```
//!
//! Being in S says that a page's reuse distance is shorter than that of the bottom LIR page; whatever is
//! below that one is dropped from S (pruning). The paper bounds no ghosts; here there are as many as
//! frames, and the one that went first makes room.
//!
//! With accessed bits only the front of Q, and the bottom of S where it is about to become HIR, are
//! looked at. The first bit that is found of a page in Q is that of its fault, and sends it round once.
//!
//! # Invariants
//!
//! - Each resident frame is LIR, in S alone, or HIR, in Q and perhaps in S. A ghost is in S and in the
//!   queue of ghosts.
//! - The bottom of S is LIR, or S is empty.
//!
//! Costs: pruning is O(1) for each page that had been put on S.
//!
//! Source: S. Jiang and X. Zhang, "LIRS: an efficient low inter-reference recency set replacement policy",
//! SIGMETRICS 2002.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{self, Look, Looks, Search};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

/// The only list of the stack's nodes; its front is the bottom.
const STACK: u8 = 0;

const QUEUE: u8 = 0;
const GHOSTS: u8 = 1;
const FREE: u8 = 2;

/// Flag in the stack: LIR.
const LIR: u32 = 1 << 16;
/// Flag in Q: no accessed bit was found since its fault.
const FRESH: u32 = 1 << 16;

/// LIRS. 64 bytes a frame.
#[derive(Debug)]
pub struct Lirs<'m> {
    stack: Lists<'m, 1>,
    queues: Lists<'m, 3>,
    frames: u32,
    lirs: u32,
    evictions: Evictions,
}

impl<'m> Lirs<'m> {
    /// Nodes for so many frames, and their ghosts, in stack and queues.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        let members = 2 * frames as usize;
        Lists::<1>::cells(members) + Lists::<3>::cells(members)
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, nodes: &'m mut [Node]) -> Result<Self, SizeError> {
        let (needed, lent) = (Self::cells(frames), nodes.len());
        SizeError::check(frames, needed, lent)?;
        let middle = Lists::<1>::cells(2 * frames as usize);
        let Some((stack, queues)) = nodes.split_at_mut_checked(middle) else {
            return Err(SizeError::Cells { needed, lent });
        };
        let mut queues = Lists::new(queues);
        queues.free_ghosts(FREE, frames);
        let (stack, evictions) = (Lists::new(stack), Evictions::default());
        Ok(Self { stack, queues, frames, lirs: 0, evictions })
    }

    /// How many pages may be LIR: all but a hundredth, and at least one place for others.
    const fn most_lirs(&self) -> u32 {
        let others = self.frames / 100;
        self.frames - if others == 0 { 1 } else { others }
    }

    /// Drops from the stack's bottom what is not LIR.
    fn prune(&mut self) {
        while let Some(bottom) = self.stack.front(STACK) {
            if self.stack.has(bottom, LIR) {
                return;
            }
            self.stack.unlink(bottom);
            if bottom >= self.frames {
                self.queues.move_to_list(FREE, bottom);
            }
        }
    }

    /// Makes it LIR, at the stack's top, and as many others HIR as are too many.
    fn promote(&mut self, frame: u32, was_accessed: &mut impl FnMut(u32) -> bool) {
        self.queues.unlink(frame);
        self.stack.unlink(frame);
        self.stack.push_back(STACK, frame);
        self.stack.raise(frame, LIR);
        self.lirs += 1;
        let mut spared = 0;
        while self.lirs > self.most_lirs() {
            let Some(bottom) = self.stack.front(STACK) else { return };
            // The machine may know that it is no old page; once round at most.
            if spared < self.lirs && was_accessed(bottom) {
                spared += 1;
                self.stack.move_to_back(STACK, bottom);
            } else {
                self.stack.unlink(bottom);
                self.lirs -= 1;
                self.queues.push_back(QUEUE, bottom);
            }
            self.prune();
        }
    }

    /// What a reference to a resident page does.
    fn reference(&mut self, frame: u32, was_accessed: &mut impl FnMut(u32) -> bool) {
        if self.stack.has(frame, LIR) {
            let was_bottom = self.stack.front(STACK) == Some(frame);
            self.stack.move_to_back(STACK, frame);
            if was_bottom {
                self.prune();
            }
        } else if self.stack.is_on(STACK, frame) {
            self.promote(frame, was_accessed);
        } else if self.queues.is_on(QUEUE, frame) {
            self.stack.push_back(STACK, frame);
            self.queues.move_to_back(QUEUE, frame);
            self.prune();
        }
    }

    /// Takes a HIR page out of Q; its place in the stack is a ghost's from then on.
    fn take(&mut self, frame: u32) -> Victim {
        let mut shadow = self.evictions.shadow();
        self.queues.unlink(frame);
        if self.stack.is_on(STACK, frame) {
            if self.queues.front(FREE).is_none() {
                if let Some(oldest) = self.queues.front(GHOSTS) {
                    self.stack.unlink(oldest);
                }
            }
            shadow = self.queues.bury(GHOSTS, FREE, shadow.time);
            self.stack.replace(frame, shadow.slot);
        }
        Victim { frame: FrameIx(frame), shadow }
    }

    /// The front of Q; where Q is empty, the bottom of the stack, which comes there.
    fn candidate(&mut self) -> Option<u32> {
        if self.queues.len(QUEUE) == 0 {
            let bottom = self.stack.front(STACK)?;
            self.stack.unlink(bottom);
            self.lirs -= 1;
            self.queues.push_back(QUEUE, bottom);
            self.prune();
        }
        self.queues.front(QUEUE)
    }
}

impl Search for Lirs<'_> {
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim> {
        loop {
            let frame = self.candidate()?;
            match looks.at(frame)? {
                Look::Idle => return Some(self.take(frame)),
                Look::Used if !self.queues.has(frame, FRESH) => {
                    self.reference(frame, &mut |at| looks.was_accessed(at));
                }
                Look::Used | Look::Held => {
                    self.queues.lower(frame, FRESH);
                    self.queues.move_to_back(QUEUE, frame);
                }
            }
        }
    }

    fn shadow(&mut self) -> Shadow {
        self.evictions.shadow()
    }

    fn frames(&self) -> u32 {
        self.frames
    }
}

impl Replacement for Lirs<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        let ghost =
            shadow.and_then(|it| self.queues.exhume(it, self.frames, FREE, |list| list == GHOSTS));
        if let (Some(_), Some(Shadow { slot, .. })) = (ghost, shadow) {
            // The bottom is LIR, so that nothing is left to prune.
            self.stack.unlink(slot);
        }
        Arrival { ghost, ..self.evictions.arrival(shadow) }
    }

    fn insert(&mut self, frame: FrameIx, arrival: Arrival) {
        if frame.0 >= self.frames || self.contains(frame) {
            return;
        }
        if arrival.is_remembered() || self.lirs < self.most_lirs() {
            self.promote(frame.0, &mut |_| false);
            return;
        }
        self.stack.push_back(STACK, frame.0);
        self.queues.push_back(QUEUE, frame.0);
        self.queues.raise(frame.0, FRESH);
        self.prune();
    }

    fn touch(&mut self, frame: FrameIx) {
        if frame.0 < self.frames {
            self.reference(frame.0, &mut |_| false);
        }
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        looks::victim(self, bits)
    }

    fn remove(&mut self, frame: FrameIx) {
        if !self.contains(frame) {
            return;
        }
        self.lirs -= u32::from(self.stack.has(frame.0, LIR));
        self.stack.unlink(frame.0);
        self.queues.unlink(frame.0);
        self.prune();
    }

    fn contains(&self, frame: FrameIx) -> bool {
        frame.0 < self.frames
            && (self.stack.is_on(STACK, frame.0) || self.queues.is_on(QUEUE, frame.0))
    }

    fn len(&self) -> u32 {
        self.lirs + self.queues.len(QUEUE)
    }

    fn ghosts(&self) -> u32 {
        self.queues.len(GHOSTS)
    }
}
