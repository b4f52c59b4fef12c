use super::acts::{self, ACTS, PAGES};
use super::designs::{Design, NAMES, Visit, with_design};
use super::{ROWS, plan};
use crate::cli::Options;

#[test]
fn every_act_has_a_name_and_every_design_does_all_of_them() {
    struct Count(usize);
    impl Visit for Count {
        fn visit<D: Design>(&mut self) {
            assert!(NAMES.contains(&D::NAME));
            acts::turn::<D>(&mut |act| {
                act();
                self.0 += 1;
            });
        }
    }
    for name in NAMES {
        let mut count = Count(0);
        with_design(name, &mut count);
        assert_eq!(count.0, ACTS.len(), "{name}");
    }
    assert_eq!(PAGES % 16, 0, "windows of 16 pages cover them");
}

#[test]
fn a_quick_run_has_a_row_for_each_act() {
    let only = vec!["time".to_owned(), "threads".to_owned()];
    let report = plan::run(&Options { quick: true, only, ..Options::default() });
    assert_eq!(report.rows.len(), ACTS.len() + 2);
    assert!(report.rows.iter().all(|row| row.peers.len() + 1 == NAMES.len() && row.ours > 0.0));
}

#[test]
fn rows_are_described_under_their_names() {
    let described: Vec<_> = include_str!("rows.txt")
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(described, ROWS);
}
