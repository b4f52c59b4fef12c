use super::acts::{self, FLAT, ROWS, Row};
use super::threads;
use crate::fault::designs::{Design, NAMES, Visit, with_design};

/// Does all rows once, with few pages; who can do the large leaf.
struct All(Vec<&'static str>);

impl Visit for All {
    fn visit<D: Design>(&mut self) {
        for Row { act, name, count, .. } in ROWS.into_iter().chain(FLAT) {
            let n = if count == 0 { 32 } else { count.min(32) };
            let mut calls = 0;
            let done = acts::run::<D>(act, n, &mut |act| {
                act();
                calls += 1;
            });
            assert_eq!(calls, 1, "{name} of {}", D::NAME);
            if act == acts::Act::Huge {
                self.0.extend(done.then_some(D::NAME));
            } else {
                assert!(done, "{name} of {}", D::NAME);
            }
        }
    }
}

#[test]
fn every_design_does_every_act_once() {
    let mut all = All(Vec::new());
    for name in NAMES {
        with_design(name, &mut all);
    }
    assert!(all.0.contains(&NAMES[0]), "large leaves of {:?}", all.0);
}

#[test]
fn targets_are_below_linux_and_leave_something() {
    for Row { name, cost, .. } in ROWS {
        let Some([linux, target]) = cost.map(super::linux::Cost::alone) else { continue };
        assert!(0.0 < target && target < linux, "{name}: {target}, {linux}");
    }
}

#[test]
fn two_threads_touch_all_pages_of_a_space() {
    struct Both(f64);
    impl Visit for Both {
        fn visit<D: Design>(&mut self) {
            self.0 = threads::passed::<D>(2);
        }
    }
    let mut both = Both(0.0);
    with_design(NAMES[0], &mut both);
    assert!(both.0 > 0.0);
}

#[test]
fn a_child_refuses_what_it_cannot_do() {
    assert!(super::child("nobody:0:1", "1").unwrap_err().contains("`nobody`"));
    assert!(super::child("radix4:99:1", "1").unwrap_err().contains("radix4:99:1"));
    assert!(super::child("radix4:0", "1").unwrap_err().contains("radix4:0"));
}
