//! Splits a report over machines, and puts the pieces together.
//!
//! ```text
//!   rows of a part      0 1 2 3 4 5 6 7
//!   shard 0 of 3        0     3     6
//!   shard 1 of 3          1     4     7
//!   shard 2 of 3            2     5
//! ```
//!
//! # Invariants
//!
//! - What is merged from all shards is what one run of all rows writes, to the byte.

use super::{Report, SCHEMA};
use core::fmt;
use core::iter::repeat;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// Every `of`-th row of each part, from row `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which piece, from 0.
    pub index: u64,
    /// How many pieces there are.
    pub of: u64,
}

impl Shard {
    /// Whether row `row` of a part is in it.
    #[must_use]
    pub const fn has(self, row: u64) -> bool {
        row % self.of == self.index
    }
}

/// As `0/4` to `3/4`.
impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (index, of) = text.split_once('/')?;
            Some(Self { index: index.parse().ok()?, of: of.parse().ok()? })
        };
        parse()
            .filter(|shard| shard.index < shard.of)
            .ok_or("expected INDEX/COUNT, from 0/COUNT to COUNT-1/COUNT")
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// Reports are not the pieces of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeError {
    /// There are none.
    Nothing,
    /// One was made without `--shard`, or says that it is no piece that there could be.
    NotAShard,
    /// They are pieces of different numbers of pieces.
    Counts(u64, u64),
    /// One is missing.
    Missing(Shard),
    /// One is there twice.
    Twice(Shard),
    /// They have different versions of the shape, or one that this program does not know.
    Schema(u32),
    /// Their rows are not those of one run: another has been asked for something else.
    Rows(Shard),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("there is nothing to merge"),
            Self::NotAShard => f.write_str("a report was not made with --shard"),
            Self::Counts(a, b) => write!(f, "a shard of {a} and one of {b} do not go together"),
            Self::Missing(shard) => write!(f, "shard {shard} is missing"),
            Self::Twice(shard) => write!(f, "shard {shard} is there twice"),
            Self::Schema(schema) => write!(f, "schema {schema} is not known"),
            Self::Rows(shard) => {
                write!(f, "shard {shard} has other rows than the ones before it ask for")
            }
        }
    }
}

impl core::error::Error for MergeError {}

impl Report {
    /// The whole report of which these are all the shards, in any order.
    ///
    /// # Errors
    ///
    /// [`MergeError`].
    pub fn merge(shards: Vec<Self>) -> Result<Self, MergeError> {
        let mut shards = in_order(shards)?;
        Ok(Self {
            runs: weave(&mut shards, |shard| &mut shard.runs)?,
            ops: weave(&mut shards, |shard| &mut shard.ops)?,
            sparsity: weave(&mut shards, |shard| &mut shard.sparsity)?,
            resize: weave(&mut shards, |shard| &mut shard.resize)?,
            switches: weave(&mut shards, |shard| &mut shard.switches)?,
            huge: weave(&mut shards, |shard| &mut shard.huge)?,
            forks: weave(&mut shards, |shard| &mut shard.forks)?,
            tlb: weave(&mut shards, |shard| &mut shard.tlb)?,
            ..Self::default()
        })
    }
}

/// The shards from the first to the last, all there, none twice.
fn in_order(mut shards: Vec<Report>) -> Result<Vec<Report>, MergeError> {
    if let Some(other) = shards.iter().find(|shard| shard.schema != SCHEMA) {
        return Err(MergeError::Schema(other.schema));
    }
    let known = shards.iter().map(|report| report.shard.filter(|s| s.index < s.of));
    let mut known = known.collect::<Option<Vec<_>>>().ok_or(MergeError::NotAShard)?;
    known.sort_by_key(|shard| shard.index);
    let of = known.first().ok_or(MergeError::Nothing)?.of;
    if let Some(other) = known.iter().find(|shard| shard.of != of) {
        return Err(MergeError::Counts(of, other.of));
    }
    if let Some(pair) = known.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(MergeError::Twice(pair[0]));
    }
    let gap = (0..of).zip(known.iter().map(|shard| Some(shard.index)).chain(repeat(None)));
    if let Some((index, _)) = gap.into_iter().find(|&(index, there)| there != Some(index)) {
        return Err(MergeError::Missing(Shard { index, of }));
    }
    shards.sort_by_key(|report| report.shard.map(|shard| shard.index));
    Ok(shards)
}

/// The rows of one part: one of each shard in turn, until there are no more.
fn weave<R>(
    shards: &mut [Report],
    part: impl Fn(&mut Report) -> &mut Vec<R>,
) -> Result<Vec<R>, MergeError> {
    let of = shards.len();
    let rows: usize = shards.iter_mut().map(|shard| part(shard).len()).sum();
    for (index, shard) in shards.iter_mut().enumerate() {
        if part(shard).len() != (rows + of - 1 - index) / of {
            return Err(MergeError::Rows(Shard { index: index as u64, of: of as u64 }));
        }
    }
    let mut pieces: Vec<_> =
        shards.iter_mut().map(|shard| core::mem::take(part(shard)).into_iter()).collect();
    Ok((0..rows).filter_map(|row| pieces.get_mut(row % of)?.next()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::ops::OpsReport;

    fn row(n: usize) -> OpsReport {
        OpsReport {
            design: n.to_string(),
            pages: 0,
            leaf_shifts: Vec::new(),
            unsupported: None,
            fork_bytes_per_page: None,
            alias_refs: None,
            operations: Vec::new(),
        }
    }

    fn shards(rows: usize, of: u64) -> Vec<Report> {
        let piece = |index| {
            let shard = Shard { index, of };
            let ops = (0..rows).filter(|&n| shard.has(n as u64)).map(row).collect();
            Report { shard: Some(shard), ops, ..Report::default() }
        };
        (0..of).map(piece).collect()
    }

    #[test]
    fn pieces_in_any_order_make_the_whole() {
        for rows in 0..12 {
            for of in 1..6 {
                let mut pieces = shards(rows, of);
                pieces.reverse();
                let whole = Report { ops: (0..rows).map(row).collect(), ..Report::default() };
                assert_eq!(Report::merge(pieces), Ok(whole), "{rows} rows of {of} shards");
            }
        }
    }

    #[test]
    fn pieces_that_do_not_go_together_are_told() {
        assert_eq!(Report::merge(Vec::new()), Err(MergeError::Nothing));
        assert_eq!(Report::merge(vec![Report::default()]), Err(MergeError::NotAShard));
        let mut missing = shards(9, 3);
        missing.remove(1);
        assert_eq!(Report::merge(missing), Err(MergeError::Missing(Shard { index: 1, of: 3 })));
        let mut twice = shards(9, 3);
        twice.push(twice[2].clone());
        assert_eq!(Report::merge(twice), Err(MergeError::Twice(Shard { index: 2, of: 3 })));
        let mixed = [shards(9, 3).remove(0), shards(9, 2).remove(1)].to_vec();
        assert_eq!(Report::merge(mixed), Err(MergeError::Counts(3, 2)));
        let mut foreign = shards(9, 3);
        foreign[1] = shards(12, 3).remove(1);
        assert!(matches!(Report::merge(foreign), Err(MergeError::Rows(_))));
        let mut newer = shards(9, 3);
        newer[0].schema += 1;
        assert_eq!(Report::merge(newer), Err(MergeError::Schema(SCHEMA + 1)));
    }

    #[test]
    fn a_shard_is_written_as_index_and_count() {
        assert_eq!("2/5".parse(), Ok(Shard { index: 2, of: 5 }));
        assert_eq!(Shard { index: 2, of: 5 }.to_string(), "2/5");
        for bad in ["", "5/5", "1", "1/", "-1/2", "0/0", "a/b"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
