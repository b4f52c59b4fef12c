//! A memory of so many frames, driven by references, with a policy that makes room.
//!
//! ```text
//!   reference --> frame_of[page]? --yes--> hit: touch, or its accessed bit
//!                     | no
//!                     v
//!                 arrive(shadow[page]) -> a free frame, or a victim's -> insert
//!                                               | victim's page: shadow kept
//! ```
//!
//! In [`Mode::AccessedBits`] the reference that faulted sets the bit too, as on a machine, where the
//! access is tried again once the page is there. Policies that need a clock have a tick every
//! `4 * frames` references, or as [`Replay::set_tick`] says, in both modes.
//!
//! # Invariants
//!
//! - `frame_of` and `page_of` are each other's inverse on the frames in use.

extern crate std;

use super::Stream;
use crate::replacement::{
    AccessedBits, FrameIx, NoBits, Policy, Replacement, Seen, Shadow, SizeError, Victim,
};
use std::vec;
use std::vec::Vec;

/// What a policy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every reference.
    EveryReference,
    /// Faults; of the rest what accessed bits say when it looks at them.
    AccessedBits,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::EveryReference, Self::AccessedBits];

    /// What reports call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EveryReference => "every-reference",
            Self::AccessedBits => "accessed-bits",
        }
    }
}

/// References between ticks, for each frame, unless said otherwise.
const TICK_PER_FRAME: u32 = 4;

const NOWHERE: u32 = u32::MAX;

/// Accessed bits in bytes, as a model of page-table entries.
#[derive(Debug)]
struct Bytes(Vec<bool>);

impl AccessedBits for Bytes {
    fn take(&mut self, frame: FrameIx) -> Seen {
        let is_accessed = self.0.get_mut(frame.index()).is_some_and(core::mem::take);
        Seen { is_accessed, ..Seen::default() }
    }
}

/// The memory and its pages.
#[derive(Debug)]
pub struct Replay<R> {
    policy: R,
    frame_of: Vec<u32>,
    page_of: Vec<u32>,
    shadows: Vec<Option<Shadow>>,
    bits: Bytes,
    used: u32,
    frames: u32,
    until_tick: u32,
    tick: u32,
    misses: u64,
}

impl<R: Replacement> Replay<R> {
    /// An empty memory of so many frames, for pages below `distinct`, with a policy for as many frames.
    pub fn new(policy: R, frames: u32, distinct: u32) -> Self {
        let tick = frames.saturating_mul(TICK_PER_FRAME).max(1);
        Self {
            policy,
            frame_of: vec![NOWHERE; distinct as usize],
            page_of: vec![NOWHERE; frames as usize],
            shadows: vec![None; distinct as usize],
            bits: Bytes(vec![false; frames as usize]),
            used: 0,
            frames,
            until_tick: tick,
            tick,
            misses: 0,
        }
    }

    /// References between ticks; 0 for none at all.
    pub const fn set_tick(&mut self, references: u32) {
        self.tick = references;
        self.until_tick = references;
    }

    /// Misses so far.
    pub const fn misses(&self) -> u64 {
        self.misses
    }

    /// The policy as it is.
    pub const fn policy(&self) -> &R {
        &self.policy
    }

    /// One reference, of which the policy hears; the page that had to go for it, if one had to.
    #[inline]
    pub fn reference(&mut self, page: u32) -> Option<u32> {
        match self.frame_of.get(page as usize) {
            Some(&frame) if frame != NOWHERE => {
                self.policy.touch(FrameIx(frame));
                None
            }
            _ => self.fault(page, Mode::EveryReference),
        }
    }

    /// One reference that sets an accessed bit; the page that had to go for it, if one had to.
    #[inline]
    pub fn access(&mut self, page: u32) -> Option<u32> {
        let mut gone = None;
        let mut frame = self.frame_of.get(page as usize).copied().unwrap_or(NOWHERE);
        if frame == NOWHERE {
            gone = self.fault(page, Mode::AccessedBits);
            frame = self.frame_of.get(page as usize).copied().unwrap_or(NOWHERE);
        }
        if let Some(bit) = self.bits.0.get_mut(frame as usize) {
            *bit = true;
        }
        gone
    }

    /// One reference, in that mode, and a tick when it is time for one.
    #[inline]
    pub fn step(&mut self, page: u32, mode: Mode, ticks: bool) -> Option<u32> {
        if ticks && self.tick != 0 {
            self.until_tick -= 1;
            if self.until_tick == 0 {
                self.until_tick = self.tick;
                match mode {
                    Mode::EveryReference => self.policy.tick(&mut NoBits),
                    Mode::AccessedBits => self.policy.tick(&mut self.bits),
                }
            }
        }
        match mode {
            Mode::EveryReference => self.reference(page),
            Mode::AccessedBits => self.access(page),
        }
    }

    #[inline(never)]
    fn fault(&mut self, page: u32, mode: Mode) -> Option<u32> {
        self.misses += 1;
        let shadow = self.shadows.get_mut(page as usize)?.take();
        let arrival = self.policy.arrive(shadow);
        let mut gone = None;
        let frame = if self.used < self.frames {
            self.used += 1;
            FrameIx(self.used - 1)
        } else {
            let Victim { frame, shadow } = match mode {
                Mode::EveryReference => self.policy.victim(&mut NoBits),
                Mode::AccessedBits => self.policy.victim(&mut self.bits),
            }?;
            let old = *self.page_of.get(frame.index())?;
            *self.frame_of.get_mut(old as usize)? = NOWHERE;
            *self.shadows.get_mut(old as usize)? = Some(shadow);
            gone = Some(old);
            frame
        };
        *self.page_of.get_mut(frame.index())? = page;
        *self.frame_of.get_mut(page as usize)? = frame.0;
        self.policy.insert(frame, arrival);
        gone
    }
}

/// Misses of a policy on a stream with so many frames.
///
/// # Errors
///
/// [`SizeError`] for no frames, or more than a policy can have.
pub fn misses<P: Policy>(stream: &Stream, frames: u32, mode: Mode) -> Result<u64, SizeError> {
    if frames == 0 || frames > crate::MOST_FRAMES {
        return Err(SizeError::Frames { frames });
    }
    let mut cells = vec![P::Cell::default(); P::cells(frames)];
    let mut replay = Replay::new(P::over(frames, &mut cells)?, frames, stream.distinct());
    for &page in stream.pages() {
        replay.step(page, mode, P::TICKS);
    }
    Ok(replay.misses())
}
