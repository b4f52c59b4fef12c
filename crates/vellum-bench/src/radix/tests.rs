//! Every contender, ours and theirs, does what the rows take for granted.

use super::instructions::{self, Counted};
use super::live::Live;
use super::rows::{Amounts, Row};
use super::table::{self, Table, Visit};
use super::{ROWS, check, flat};

/// Amounts that a build without optimisation does at once.
fn tiny() -> Amounts {
    Amounts::new(4 << 20, 2 << 20, 1, 100)
}

#[test]
fn help_explains_every_row() {
    let told = include_str!("rows.txt").lines().filter_map(|line| line.split_whitespace().next());
    assert!(told.eq(ROWS));
}

#[test]
fn every_contender_passes_the_check() {
    assert_eq!(check::all(), Ok(()));
}

#[test]
fn every_contender_measures_every_row_that_it_has_a_call_for() {
    struct Turns(usize);
    impl Visit for Turns {
        fn visit<T: Table>(&mut self) {
            for row in Row::ALL.into_iter().filter(|row| !T::LACKS.contains(row)) {
                let mut calls = 0;
                let pages = row.turn::<T>(&tiny(), &mut |act| {
                    calls += 1;
                    act();
                });
                assert!(calls == 1 && pages > 0, "{} {row:?}", T::NAME);
                self.0 += 1;
            }
        }
    }
    let mut turns = Turns(0);
    table::all(&mut turns);
    assert_eq!(turns.0, 5 * Row::ALL.len() - 1);
}

#[test]
fn ours_measures_every_row_of_a_table_in_use() {
    for row in Live::ALL {
        assert!(row.turn(&tiny(), &mut |act| act()) > 0, "{row:?}");
    }
}

#[test]
fn every_contender_measures_small_ranges_over_many_tables() {
    struct Turns;
    impl Visit for Turns {
        fn visit<T: Table>(&mut self) {
            let pages = flat::turn::<T>(1 << 20, &mut |act| act());
            assert_eq!(pages, [256 * 256; 3], "{}", T::NAME);
        }
    }
    table::all(&mut Turns);
}

#[test]
fn what_is_counted_is_found_by_its_word() {
    let all = Row::ALL.map(|row| Counted::Row(row, "x86_64"));
    for counted in all.into_iter().chain(Live::ALL.map(Counted::Live)) {
        assert_eq!(Counted::parse(&counted.word()), Some(counted));
    }
    assert!(instructions::child("map:nobody", "1").unwrap_err().contains("`map:nobody`"));
    assert!(instructions::child("map:x86_64", "x").unwrap_err().contains("`x`"));
}
