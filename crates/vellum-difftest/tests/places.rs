//! Where mappings go that have no address: on the kernel of this host, and on ours.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use vellum_difftest::places::{Ask, asks, ours};

/// Requests that differ, in words.
fn differs(asks: &[Ask]) -> Option<String> {
    let theirs = vellum_difftest::linux::places::run(asks).expect("it runs");
    let own = ours(asks, &theirs).expect("it begins the same");
    let pairs = theirs.given.iter().zip(&own);
    let at = pairs.clone().position(|(theirs, own)| theirs != own)?;
    let lines = asks.iter().zip(pairs).take(at + 1);
    Some(
        lines
            .map(|(ask, (theirs, own))| format!("{ask:x?}: {theirs:x?}, ours {own:x?}\n"))
            .collect(),
    )
}

#[test]
fn places_are_those_of_linux() {
    for number in 0..400 {
        let asks = asks(31, number, 40);
        let Some(found) = differs(&asks) else { continue };
        // Shorter: without each that need not be there.
        let mut small = asks;
        for at in (0..small.len()).rev() {
            let mut fewer = small.clone();
            fewer.remove(at);
            if differs(&fewer).is_some() {
                small = fewer;
            }
        }
        panic!("{found}\nin short:\n{}", differs(&small).unwrap_or_default());
    }
}

#[test]
fn most_requests_succeed_and_meet_both_ends() {
    let mut aligned = 0;
    let mut given = 0;
    for number in 0..40 {
        let asks = asks(31, number, 40);
        let theirs = vellum_difftest::linux::places::run(&asks).expect("it runs");
        for (ask, result) in asks.iter().zip(&theirs.given) {
            let Ask::Map { len, .. } = *ask else { continue };
            given += u32::from(result.is_ok());
            let is_large = len.is_multiple_of(1 << 21);
            aligned += u32::from(is_large && result.is_ok_and(|at| at.is_multiple_of(1 << 21)));
        }
    }
    assert!(given > 800 && aligned > 100, "{given} {aligned}");
}
