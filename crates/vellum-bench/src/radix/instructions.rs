//! Instructions of each row, counted by valgrind.
//!
//! ```text
//!   radix --pairs seq:x86_64 0      make ready                n0
//!   radix --pairs seq:x86_64 1      make ready, measure       n1
//!                                   (n1 - n0) / pages = instructions for each page
//! ```
//!
//! The amounts are [`Amounts::small`]: a count for each page does not depend on how many there are,
//! but for the tables' share, which is there as well.

use super::live::Live;
use super::rows::{Amounts, Meter, Row};
use super::table::{self, Table, Visit};
use crate::callgrind::collected;
use std::path::Path;

/// What can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A row, and the name of a contender.
    Row(Row, &'static str),
    /// A row of ours alone.
    Live(Live),
}

impl Counted {
    /// As the child takes it.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::Row(row, name) => format!("{}:{name}", row.name()),
            Self::Live(row) => row.title().to_owned(),
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        struct Names(Vec<&'static str>);
        impl Visit for Names {
            fn visit<T: Table>(&mut self) {
                self.0.push(T::NAME);
            }
        }
        let mut names = Names(Vec::new());
        table::all(&mut names);
        let rows = Row::ALL.into_iter();
        let rows = rows.flat_map(|row| names.0.iter().map(move |&name| Self::Row(row, name)));
        let mut all = rows.chain(Live::ALL.map(Self::Live));
        all.find(|counted| counted.word() == word)
    }

    /// One turn; for how many pages.
    fn turn(self, meter: Meter<'_>) -> u64 {
        struct Turn<'a> {
            row: Row,
            name: &'static str,
            meter: Meter<'a>,
            pages: u64,
        }
        impl Visit for Turn<'_> {
            fn visit<T: Table>(&mut self) {
                if T::NAME == self.name && !T::LACKS.contains(&self.row) {
                    self.pages = self.row.turn::<T>(&Amounts::small(), self.meter);
                }
            }
        }
        match self {
            Self::Row(row, name) => {
                let mut turn = Turn { row, name, meter, pages: 0 };
                table::all(&mut turn);
                turn.pages
            }
            Self::Live(row) => row.turn(&Amounts::small(), meter),
        }
    }

    /// Instructions for each page; `program` is this program.
    ///
    /// # Errors
    ///
    /// Why there is no count.
    pub fn per_page(self, program: &Path) -> Result<f64, String> {
        let word = self.word();
        let [without, with] = [0, 1].map(|count| collected(program, &word, count));
        let pages = self.turn(&mut |act| act());
        Ok((with? as f64 - without? as f64) / pages as f64)
    }
}

/// Runs a row up to what is measured, and with a `count` that is not 0 that as well; then the
/// process ends, so that giving everything back is in neither.
///
/// # Errors
///
/// The line to say when there is no such row, or no such number.
pub fn child(word: &str, count: &str) -> Result<(), String> {
    let count: u64 = count.parse().map_err(|_| format!("`{count}` is no number"))?;
    let counted = Counted::parse(word).ok_or_else(|| format!("nobody is called `{word}`"))?;
    counted.turn(&mut |act| {
        if count > 0 {
            act();
        }
        std::process::exit(0);
    });
    Err(format!("`{word}` cannot be done"))
}
