//! That the bench measures what it says, on a short stream.

use super::contenders::{self, Entry};
use super::{ROWS, instructions};
use vellum_reclaim::host::{Mode, Stream, misses, opt};
use vellum_reclaim::{Lru, Sieve};

#[test]
fn the_rows_are_those_of_the_text() {
    let told = include_str!("rows.txt").lines().filter_map(|line| line.split_whitespace().next());
    assert!(told.eq(ROWS));
}

fn misses_of(entry: &Entry, stream: &Stream, frames: u32) -> u64 {
    let mut found = 0;
    (entry.turn)(stream, frames, &mut |pass| found = pass());
    found
}

#[test]
fn every_contender_runs_a_pass_and_nobody_beats_the_bound() {
    let stream = Stream::synthetic(997, 20_000);
    let bound = opt::misses(&stream, 128);
    for entry in contenders::all() {
        let misses = misses_of(&entry, &stream, 128);
        assert!(misses >= bound && misses < 10_000, "{}: {misses}, bound {bound}", entry.name);
    }
}

#[test]
fn three_implementations_of_lru_agree() {
    let stream = Stream::synthetic(997, 20_000);
    let all = contenders::all();
    let lrus: Vec<&Entry> = all.iter().filter(|it| it.row == "lru").collect();
    assert_eq!(lrus.len(), 3);
    let expected = misses::<Lru>(&stream, 128, Mode::EveryReference).unwrap();
    for entry in lrus {
        assert_eq!(misses_of(entry, &stream, 128), expected, "{}", entry.name);
    }
    assert_ne!(misses::<Sieve>(&stream, 128, Mode::EveryReference).unwrap(), expected);
}

#[test]
fn each_peer_stands_in_a_row_of_ours() {
    let all = contenders::all();
    for peer in all.iter().filter(|it| !it.is_ours) {
        assert!(all.iter().any(|it| it.is_ours && it.row == peer.row), "{}", peer.name);
    }
    assert!(instructions::child("nobody:lru:true", "1").unwrap_err().contains("`nobody"));
    assert!(instructions::child("lru:lru:true", "x").unwrap_err().contains("`x`"));
}
