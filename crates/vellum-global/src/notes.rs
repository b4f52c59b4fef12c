//! What a look-up read, kept until it is known to count.
//!
//! ```text
//!   try 1:  head, node, node ...  somebody wrote: none of it counts
//!   try 2:  head, node            nobody did: now the sink hears of it
//! ```
//!
//! A look-up that takes no lock learns at its end whether what it read belongs together, so a sink
//! cannot be told on the way. There is room for [`Notes::ROOM`] references; a look-up that reads
//! more, as in chains of a table that got no memory for its directory, is done again for the rest.
//! For a sink that hears nothing there is no room, and nothing is kept.

use vellum_core::{PAGE_SHIFT, PhysAddr, Ref, Sink};

/// Who takes a look-up's notes: [`Notes`] for a sink that hears, `()` for one that does not, so that
/// nothing of it is left then.
pub trait Note {
    /// Forgets what a look-up noted that has to start again.
    fn restart(&mut self);

    /// Notes a reference that shares nothing with the walk to any other page.
    fn note(&mut self, pa: PhysAddr, bytes: u8, parallel: bool);

    /// Tries `look` until nobody has written meanwhile; what an attempt has noted that did not count is
    /// forgotten.
    #[inline]
    fn until<R>(&mut self, mut look: impl FnMut(&mut Self) -> Option<R>) -> R {
        loop {
            self.restart();
            if let Some(found) = look(self) {
                return found;
            }
        }
    }
}

impl Note for () {
    #[inline]
    fn restart(&mut self) {}

    #[inline]
    fn note(&mut self, _: PhysAddr, _: u8, _: bool) {}
}

impl Note for Notes<'_> {
    #[inline]
    fn restart(&mut self) {
        Notes::restart(self);
    }

    #[inline]
    fn note(&mut self, pa: PhysAddr, bytes: u8, parallel: bool) {
        Notes::note(self, pa, bytes, parallel);
    }
}

/// The references of one look-up, after some that were told already.
#[derive(Debug)]
pub struct Notes<'r> {
    skip: usize,
    seen: usize,
    read: &'r mut [Ref],
}

const NOTHING: Ref = Ref { pa: PhysAddr::new(0), bytes: 0, span: PAGE_SHIFT, parallel: false };

impl Notes<'_> {
    /// References that are held at a time.
    pub const ROOM: usize = 16;

    /// Forgets what a look-up noted that has to start again.
    #[inline]
    pub const fn restart(&mut self) {
        self.seen = 0;
    }

    /// Notes a reference that shares nothing with the walk to any other page.
    #[inline]
    pub fn note(&mut self, pa: PhysAddr, bytes: u8, parallel: bool) {
        if let Some(slot) = self.seen.checked_sub(self.skip).and_then(|i| self.read.get_mut(i)) {
            *slot = Ref { pa, bytes, span: PAGE_SHIFT, parallel };
        }
        self.seen += 1;
    }

    /// Does `look` and tells `sink` what it noted; what it returned.
    #[inline]
    pub fn told<S: Sink, R>(sink: &mut S, mut look: impl FnMut(&mut Notes<'_>) -> R) -> R {
        if !S::HEARS {
            return look(&mut Notes { skip: 0, seen: 0, read: &mut [] });
        }
        let mut read = [NOTHING; Notes::ROOM];
        let mut notes = Notes { skip: 0, seen: 0, read: &mut read };
        loop {
            notes.restart();
            let result = look(&mut notes);
            let new = notes.seen.saturating_sub(notes.skip);
            notes.read.iter().take(new).for_each(|&r| sink.reference(r));
            if new <= Notes::ROOM {
                return result;
            }
            notes.skip += Notes::ROOM;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn everything_is_told_once_and_in_order_however_long_the_look_up() {
        for count in [0, 1, 15, 16, 17, 32, 33, 50] {
            let mut told = Vec::new();
            let result = Notes::told(&mut |r: Ref| told.push(r.pa.as_u64()), |notes| {
                // A first try that does not count.
                (0..7).for_each(|_| notes.note(PhysAddr::new(999), 8, false));
                notes.restart();
                (0..count).for_each(|n| notes.note(PhysAddr::new(n), 8, false));
                count
            });
            assert_eq!(result, count);
            assert_eq!(told, (0..count).collect::<Vec<_>>());
        }
    }
}
