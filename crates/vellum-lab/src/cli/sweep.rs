//! `--sweep`: the same comparison once for each of some values.
//!
//! ```text
//!   l2=512..8192         512 1024 2048 4096 8192      doubling
//!   l2=512..2048+512     512 1024 1536 2048           by steps
//! ```
//!
//! # Invariants
//!
//! - Values ascend, and there is at least one.

use crate::machine::MachineConfig;
use crate::report::{SweepAxis, SweepPoint};
use crate::workload::Workload;
use core::str::FromStr;
use vellum_core::PAGE_SIZE;
use vellum_tlb::{Geometry, Preset};

/// The most values of a sweep.
const MOST: usize = 1000;

/// What to sweep, and the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) axis: SweepAxis,
    pub(super) values: Vec<u64>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || {
            "expected l2=FIRST..LAST or pages=FIRST..LAST, and maybe +STEP, of numbers from 1 on"
                .to_owned()
        };
        let (axis, range) = text.split_once('=').ok_or_else(shape)?;
        let axis = match axis {
            "l2" => SweepAxis::L2,
            "pages" => SweepAxis::Pages,
            _ => return Err(shape()),
        };
        let (first, rest) = range.split_once("..").ok_or_else(shape)?;
        let (last, step) = match rest.split_once('+') {
            Some((last, step)) => (last, Some(number(step).ok_or_else(shape)?)),
            None => (rest, None),
        };
        let first = number(first).ok_or_else(shape)?;
        let last = number(last).ok_or_else(shape)?;
        let next = |&value: &u64| match step {
            Some(step) => value.checked_add(step),
            None => value.checked_mul(2),
        };
        let values = core::iter::successors(Some(first), next).take_while(|&value| value <= last);
        let values: Vec<u64> = values.take(MOST + 1).collect();
        match values.len() {
            0 => Err(format!("{first} is beyond {last}")),
            1..=MOST => Ok(Self { axis, values }),
            _ => Err(format!("more than {MOST} values")),
        }
    }
}

/// A number that is not 0, maybe with K or M (binary).
fn number(text: &str) -> Option<u64> {
    let units = [('K', 10), ('M', 20)];
    let unit = units.iter().find_map(|&(c, shift)| Some((text.strip_suffix(c)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()?.checked_mul(1 << shift)).flatten();
    number.filter(|&n| n > 0)
}

impl Sweep {
    /// The processors: `machine` with each size of the second level, its ways as they are; or
    /// `machine` alone, where something else is swept.
    pub(super) fn machines(
        &self,
        machine: &MachineConfig,
    ) -> Result<Vec<(MachineConfig, Option<SweepPoint>)>, String> {
        if self.axis != SweepAxis::L2 {
            return Ok(vec![(machine.clone(), None)]);
        }
        let ways = machine.tlb.l2.ways();
        let sized = |&value: &u64| {
            let entries = u32::try_from(value).ok();
            let l2 = entries.and_then(|n| Geometry::new(n, ways).or_else(|| Geometry::new(n, 8)));
            let l2 = l2.ok_or_else(|| {
                format!("--sweep l2: {value} entries are no sets of {ways} ways, nor of 8")
            })?;
            let tlb = Preset { l2, ..machine.tlb };
            let point = SweepPoint { over: self.axis, value };
            Ok((MachineConfig { tlb, ..machine.clone() }, Some(point)))
        };
        self.values.iter().map(sized).collect()
    }

    /// Each workload with each size of its data.
    pub(super) fn workloads(
        &self,
        workloads: &[Workload],
    ) -> Result<Vec<(Workload, SweepPoint)>, String> {
        let sized = |workload: Workload, value: u64| {
            let bytes = value.checked_mul(PAGE_SIZE);
            let sized = bytes.and_then(|bytes| workload.with_bytes(bytes)).ok_or_else(|| {
                format!("--sweep pages: {workload} cannot have {value} pages of data")
            })?;
            Ok((sized, SweepPoint { over: self.axis, value }))
        };
        let points = workloads.iter().flat_map(|&w| self.values.iter().map(move |&v| (w, v)));
        points.map(|(workload, value)| sized(workload, value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<u64> {
        text.parse::<Sweep>().unwrap().values
    }

    #[test]
    fn values_double_or_go_by_steps() {
        assert_eq!(values("l2=512..8192"), [512, 1024, 2048, 4096, 8192]);
        assert_eq!(values("l2=512..8191"), [512, 1024, 2048, 4096]);
        assert_eq!(values("l2=512..2048+512"), [512, 1024, 1536, 2048]);
        assert_eq!(values("pages=1K..4K"), [1024, 2048, 4096]);
        assert_eq!(values("pages=5..5"), [5]);
    }

    #[test]
    fn what_is_no_sweep_is_refused() {
        for bad in [
            "",
            "l2",
            "l2=",
            "l2=1",
            "l1=1..2",
            "l2=..2",
            "l2=0..2",
            "l2=1..2+0",
            "l2=4..2",
            "l2=1..9999+1",
            "l2=a..b",
            "pages=1..99999999999999999999",
        ] {
            assert!(bad.parse::<Sweep>().is_err(), "{bad}");
        }
    }
}
