//! How often a second-level TLB of some size misses.
//!
//! ```text
//!   misses |*
//!          |   *
//!          |      *                   the knee: what is used again fits from here on
//!          |         *  *  *  *
//!          +---------------------> entries
//!          256  ...        16,384
//! ```
//!
//! A TLB does not see which table fills it, so this is measured with one design alone: the first that
//! was asked for and can hold the trace. Of each trace the first [`EVENTS`] are replayed, by a processor
//! with the first level and the ways that were asked for.

use crate::machine::MachineConfig;
use crate::report::Run;
use serde::{Deserialize, Serialize};
use vellum_tlb::{Geometry, Preset};

/// Entries of the second level.
pub const ENTRIES: [u32; 7] = [256, 512, 1024, 2048, 4096, 8192, 16_384];

/// Events of each trace.
pub const EVENTS: usize = 4_000_000;

/// Ways where those of the preset do not divide the entries.
const WAYS: u16 = 8;

/// One trace at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlbSizeReport {
    /// The trace's name.
    pub trace: String,
    /// The design that it was measured with.
    pub design: String,
    /// The TLB's name; its second level has other sizes here.
    pub tlb_preset: String,
    /// Entries of the second level.
    pub l2_entries: u32,
    /// Its ways.
    pub l2_ways: u16,
    /// Events replayed.
    pub events: u64,
    /// Different pages among them.
    pub pages: u64,
    /// Why no design was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Misses of the first level, data and instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l1_misses: Option<u64>,
    /// Misses of the second level: walks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_misses: Option<u64>,
}

/// The processor with a second level of so many entries.
#[must_use]
pub fn machine(machine: &MachineConfig, entries: u32) -> MachineConfig {
    let ways = Geometry::new(entries, machine.tlb.l2.ways());
    let l2 = ways.or_else(|| Geometry::new(entries, WAYS)).unwrap_or(machine.tlb.l2);
    MachineConfig { tlb: Preset { l2, ..machine.tlb }, ..machine.clone() }
}

impl TlbSizeReport {
    /// The row of such a run.
    #[must_use]
    pub fn new(run: Run, machine: &MachineConfig) -> Self {
        Self {
            l2_entries: machine.tlb.l2.entries(),
            l2_ways: machine.tlb.l2.ways(),
            l1_misses: run.tlb.map(|tlb| tlb.l1d_misses + tlb.l1i_misses),
            l2_misses: run.tlb.map(|tlb| tlb.l2_misses),
            trace: run.trace,
            design: run.design,
            tlb_preset: run.tlb_preset,
            events: run.events,
            pages: run.pages,
            unsupported: run.unsupported,
        }
    }

    /// Walks for each thousand events.
    #[must_use]
    pub fn misses_per_1000(&self) -> Option<f64> {
        Some(self.l2_misses? as f64 * 1000.0 / self.events.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CachePreset;

    #[test]
    fn every_preset_gets_each_size() {
        for tlb in Preset::ALL {
            let config =
                MachineConfig { tlb: *tlb, walk_caches: Vec::new(), cache: CachePreset::DEFAULT };
            for entries in ENTRIES {
                let sized = machine(&config, entries).tlb;
                assert_eq!((sized.l2.entries(), sized.l1d), (entries, tlb.l1d), "{}", tlb.name);
            }
        }
    }
}
