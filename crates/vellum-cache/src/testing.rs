//! What the tests of this crate stand on: an arena with a record for each frame.

use crate::page::{PageInfo, Pages};
use std::vec::Vec;
use vellum_core::PhysAddr;
use vellum_testkit::Arena;

/// An arena and its records.
pub(crate) struct Ram<'a>(&'a Arena, Vec<PageInfo>);

impl<'a> Ram<'a> {
    pub(crate) fn new(arena: &'a Arena) -> Self {
        Self(arena, (0..arena.count_frames()).map(|_| PageInfo::new()).collect())
    }
}

// SAFETY: a record for each frame of the arena, by its distance from the first one; lent as shared.
unsafe impl<'a> Pages for Ram<'a> {
    type Memory = &'a Arena;

    fn memory(&self) -> &&'a Arena {
        &self.0
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        self.1.get(pa.number().as_u64().checked_sub(self.0.first().as_u64())? as usize)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        self.1.iter().for_each(f);
    }
}
