//! A whole trace in memory.
//!
//! ```text
//!   Reader --collect--> events: 8 bytes each, room reserved step by step --survey--> Trace
//!             |                                                             |
//!             +-- at `limit`: done, nothing behind it is decoded            +-- pages counted
//!             +-- no limit, MOST_EVENTS: too long
//! ```
//!
//! # Invariants
//!
//! - However many events a small packed file holds, no more are kept than were asked for, or than
//!   [`Trace::MOST_EVENTS`]; memory that the host refuses is an error and not an abort.

use super::{Event, Reader, TraceError, TraceFault};
use std::collections::{HashSet, TryReserveError};
use vellum_core::Vpn;

/// Events that room is made for at a time, at least.
const STEP: usize = 1 << 16;

/// A whole trace in memory.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What reports call it.
    pub name: String,
    /// The references, in order.
    pub events: Vec<Event>,
    /// How many different pages they touch.
    pub pages: u64,
    /// The lowest page among them.
    pub lowest: Vpn,
    /// The highest.
    pub highest: Vpn,
}

impl Trace {
    /// The most events that are read without a limit: 2 GiB of them. Whoever has a longer trace
    /// can say how much of it to read; a packed file of a few KiB may claim to be one.
    pub const MOST_EVENTS: usize = 1 << 28;

    /// Decodes the first `limit` events and nothing behind them; without a limit, all.
    ///
    /// # Errors
    ///
    /// The reader's, [`TraceFault::NoEvents`], [`TraceFault::Memory`], and without a limit
    /// [`TraceFault::TooLong`] where there are more than [`MOST_EVENTS`](Self::MOST_EVENTS).
    pub fn read(
        name: &str,
        mut reader: Reader<'_>,
        limit: Option<usize>,
    ) -> Result<Self, TraceError> {
        let events = collect(&mut reader, limit, Self::MOST_EVENTS)?;
        Self::of(name, events).map_err(|fault| reader.whole(fault))
    }

    /// The trace of these events; `None` if there are none, or no memory to count their pages.
    #[must_use]
    pub fn from_events(name: &str, events: Vec<Event>) -> Option<Self> {
        Self::of(name, events).ok()
    }

    pub(crate) fn of(name: &str, events: Vec<Event>) -> Result<Self, TraceFault> {
        let surveyed = survey(&events).map_err(|_| TraceFault::Memory { events: events.len() })?;
        let (lowest, highest, pages) = surveyed.ok_or(TraceFault::NoEvents)?;
        Ok(Self { name: name.to_owned(), events, pages, lowest, highest })
    }
}

/// The first `limit` events; or all of them, if they are not more than `most`.
pub(super) fn collect(
    reader: &mut Reader<'_>,
    limit: Option<usize>,
    most: usize,
) -> Result<Vec<Event>, TraceError> {
    let mut events = Vec::new();
    while limit.is_none_or(|limit| events.len() < limit) {
        let Some(event) = reader.next().transpose()? else { break };
        if limit.is_none() && events.len() == most {
            return Err(reader.whole(TraceFault::TooLong { most }));
        }
        if events.len() == events.capacity() {
            let room = events.try_reserve(STEP).or_else(|_| events.try_reserve_exact(STEP));
            room.map_err(|_| reader.whole(TraceFault::Memory { events: events.len() }))?;
        }
        events.push(event);
    }
    Ok(events)
}

/// The lowest and the highest page, and how many there are. Most events are to pages seen a moment
/// ago, so a small table of recent ones spares the set nearly all of the work.
fn survey(events: &[Event]) -> Result<Option<(Vpn, Vpn, u64)>, TryReserveError> {
    const RECENT: usize = 4096;
    let mut recent = vec![None; RECENT];
    let mut seen = HashSet::new();
    for event in events {
        let page = event.page();
        let slot = &mut recent[page.as_u64() as usize % RECENT];
        if slot.replace(page) != Some(page) {
            seen.try_reserve(1)?;
            seen.insert(page);
        }
    }
    let ends = seen.iter().min().zip(seen.iter().max());
    Ok(ends.map(|(&lowest, &highest)| (lowest, highest, seen.len() as u64)))
}
