//! Leaves out references that could not miss.
//!
//! ```text
//!   data:   R5  R5  W5  W5  R5  R7  W7  R5
//!   kept:   R5      W5          R7  W7  R5     the page changes, or is written for the first time
//! ```
//!
//! A reference to the page that its stream referenced last hits the most recent entry of any
//! split first-level TLB and changes nothing. The first write after reads of the page is kept: it
//! is where a dirty bit would be set.
//!
//! # Invariants
//!
//! - Filtering what was filtered changes nothing.

use super::{Event, Kind};
use vellum_core::Vpn;

/// What each stream referenced last.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    fetched: Option<Vpn>,
    data: Option<(Vpn, Kind)>,
}

impl Filter {
    pub(crate) const fn new() -> Self {
        Self { fetched: None, data: None }
    }

    /// Whether the event belongs into a trace; it is then the last of its stream.
    pub(crate) fn keep(&mut self, event: Event) -> bool {
        let (page, kind) = (event.page(), event.kind());
        if kind == Kind::Fetch {
            return self.fetched.replace(page) != Some(page);
        }
        let keep = match self.data {
            Some((last, _)) if last != page => true,
            Some((_, wrote)) => kind == Kind::Write && wrote != Kind::Write,
            None => true,
        };
        if keep {
            self.data = Some((page, kind));
        }
        keep
    }
}
