//! Arrays at simulated addresses, and the tape that their accesses go to.
//!
//! ```text
//!   ARENA      + bytes of the array before, a page apart
//!     +-----------+   +------------------------+
//!     | Array<u32>|   | Array<u64>             | ...        from 2 MiB on aligned to 2 MiB
//!     +-----------+   +------------------------+
//!   get(i), set(i): host memory gives the value, the tape gets the page of address + i * size
//! ```
//!
//! # Invariants
//!
//! - Arrays do not overlap, and no element lies across pages.
//! - The tape holds at most its limit of events, those that came first.

use crate::trace::{Event, Filter, Kind, Trace, TraceFault};
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, Vpn};

/// The first page of the first array: where a process of Linux maps large pieces.
const ARENA: u64 = 0x7f00_0000_0000 >> PAGE_SHIFT;

/// Pages of 2 MiB.
const HUGE: u64 = 512;

/// Events that room is made for at a time, at least.
const STEP: usize = 1 << 16;

/// What a program has accessed.
#[derive(Debug)]
pub(super) struct Tape {
    events: Vec<Event>,
    filter: Filter,
    limit: usize,
    is_limited: bool,
    next: u64,
    fault: Option<TraceFault>,
}

/// An array of elements whose size is a power of two, at most a page.
#[derive(Debug)]
pub(super) struct Array<T> {
    first: u64,
    items: Vec<T>,
}

impl Tape {
    /// An empty tape for so many events.
    pub(super) const fn new(limit: Option<usize>) -> Self {
        let most = match limit {
            Some(limit) => limit,
            None => Trace::MOST_EVENTS,
        };
        Self {
            events: Vec::new(),
            filter: Filter::new(),
            limit: most,
            is_limited: limit.is_some(),
            next: ARENA,
            fault: None,
        }
    }

    /// An array of `count` elements that are made by `f`, which is not recorded.
    pub(super) fn array<T>(
        &mut self,
        count: usize,
        f: impl FnMut(usize) -> T,
    ) -> Result<Array<T>, TraceFault> {
        const {
            assert!(size_of::<T>().is_power_of_two() && size_of::<T>() <= PAGE_SIZE as usize);
        }
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        let mut items = Vec::new();
        items.try_reserve_exact(count).map_err(|_| TraceFault::Data { bytes })?;
        items.extend((0..count).map(f));
        let pages = bytes.div_ceil(PAGE_SIZE);
        let first = if pages < HUGE { self.next } else { self.next.next_multiple_of(HUGE) };
        self.next = first + pages + 1;
        Ok(Array { first: first << PAGE_SHIFT, items })
    }

    /// Whether there is no room: what the program does from now on is not recorded.
    pub(super) const fn is_full(&self) -> bool {
        self.events.len() >= self.limit || self.fault.is_some()
    }

    #[inline]
    fn access(&mut self, address: u64, kind: Kind) {
        let Some(page) = Vpn::new(address >> PAGE_SHIFT) else { return };
        let event = Event::new(page, kind);
        if self.filter.keep(event) {
            self.push(event);
        }
    }

    fn push(&mut self, event: Event) {
        if self.is_full() {
            if !self.is_limited && self.fault.is_none() {
                self.fault = Some(TraceFault::TooLong { most: self.limit });
            }
            return;
        }
        if self.events.len() == self.events.capacity() {
            let room = self.events.try_reserve(STEP);
            if room.or_else(|_| self.events.try_reserve_exact(STEP)).is_err() {
                self.fault = Some(TraceFault::Memory { events: self.events.len() });
                return;
            }
        }
        self.events.push(event);
    }

    /// What was recorded.
    pub(super) fn trace(self, name: &str) -> Result<Trace, TraceFault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Trace::of(name, self.events),
        }
    }
}

impl<T: Copy> Array<T> {
    /// Element `i`.
    #[inline]
    pub(super) fn get(&self, tape: &mut Tape, i: usize) -> T {
        tape.access(self.first + (i * size_of::<T>()) as u64, Kind::Read);
        self.items[i]
    }

    /// Makes element `i` this.
    #[inline]
    pub(super) fn set(&mut self, tape: &mut Tape, i: usize, value: T) {
        tape.access(self.first + (i * size_of::<T>()) as u64, Kind::Write);
        self.items[i] = value;
    }

    /// How many elements there are.
    pub(super) const fn len(&self) -> usize {
        self.items.len()
    }

    /// The elements, unrecorded.
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_events_at_the_addresses_of_their_elements() {
        let mut tape = Tape::new(None);
        let mut small = tape.array(1000, |i| i as u32).unwrap();
        let large = tape.array(1 << 18, |_| 0u64).unwrap();
        assert_eq!(small.get(&mut tape, 999), 999);
        small.set(&mut tape, 0, 7);
        assert_eq!(small.get(&mut tape, 0), 7);
        assert_eq!(large.get(&mut tape, 511) + large.get(&mut tape, 512), 0);
        let trace = tape.trace("t").unwrap();
        let pages: Vec<_> =
            trace.events.iter().map(|e| (e.page().as_u64() - ARENA, e.kind())).collect();
        let huge = HUGE.next_multiple_of(512);
        // The read after the write of the same page is left out.
        let expected =
            [(0, Kind::Read), (0, Kind::Write), (huge, Kind::Read), (huge + 1, Kind::Read)];
        assert_eq!(pages, expected);
    }

    #[test]
    fn a_full_tape_says_so_unless_it_was_limited() {
        let fill = |limit| {
            let mut tape = Tape { limit: 3, ..Tape::new(limit) };
            let array = tape.array(10 * 512, |_| 0u64).unwrap();
            let sum: u64 = (0..10).map(|page| array.get(&mut tape, page * 512)).sum();
            assert_eq!(sum, 0);
            assert!(tape.is_full());
            tape.trace("t")
        };
        assert_eq!(fill(Some(3)).unwrap().events.len(), 3);
        assert!(matches!(fill(None), Err(TraceFault::TooLong { most: 3 })));
    }
}
