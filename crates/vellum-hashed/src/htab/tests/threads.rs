//! Look-ups and changes beside changes.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "hundreds of tables; threads under Miri are below")]
fn a_look_up_finds_its_page_wherever_the_pair_has_it() {
    let pages: Vec<_> = pages_of(0).take(20).collect();
    fn make<M: Memory>(memory: M) -> Htab<M> {
        let table = Htab::new(memory).unwrap();
        fill(&table, pages_of(0).take(18));
        table
    }
    let chained = {
        let arena = Arena::new(FRAMES);
        let table = make(&arena);
        pages[..18].iter().copied().filter(|&n| bytes(&table, n).len() > 2).collect::<Vec<_>>()
    };
    let [_, last] = chained[..] else { panic!("two are in the chain") };
    let free = *pages[..18].iter().find(|n| !chained.contains(n)).unwrap();
    for &n in &pages[..18] {
        let raw = [leaf(n & 0xffff)];
        // Pushed out; called back; moved up because another page went; moved with the pair.
        whatever_comes_between!(n, raw, |m| make(m), |table| fill(table, [pages[18]]));
        let touched = leaf(last & 0xffff) | pte::ACCESSED;
        let known = if n == last { [raw[0], touched] } else { [raw[0]; 2] };
        whatever_comes_between!(n, known, |m| make(m), |table| _ = put(table, last, touched));
        let known = if n == free { [raw[0], 0] } else { [raw[0]; 2] };
        whatever_comes_between!(n, known, |m| make(m), |table| _ = put(table, free, 0));
        whatever_comes_between!(n, raw, |m| make(m), |table| step(table));
        // Alone in the pair: it may have come up into the group that was read already.
        let others = || pages[..18].iter().filter(move |&&other| other != n);
        whatever_comes_between!(n, raw, |m| make(m), |table| {
            others().for_each(|&other| _ = put(table, other, 0));
        });
    }
    // One that is not there is not found either.
    whatever_comes_between!(pages[19], [0], |m| make(m), |table| step(table));
}

#[test]
fn nobody_misses_an_entry_that_growth_moves() {
    let (rounds, steps, count) = if cfg!(miri) { (1, 2, 20) } else { (60, 8, 100) };
    for _ in 0..rounds {
        let arena = Arena::new(FRAMES);
        let table = Htab::new(&arena).unwrap();
        // Of the first pairs, which are the first to move.
        let pages: Vec<u64> = (0..steps).flat_map(|g| pages_of(g).take(count / 4)).collect();
        fill(&table, pages.iter().copied());
        let mut sorted = pages.clone();
        sorted.sort_unstable();
        thread::scope(|scope| {
            scope.spawn(|| (0..steps).for_each(|_| step(&table)));
            scope.spawn(|| {
                for &n in &pages {
                    assert_eq!(table.walk(key(n), &mut ()), leaf(n & 0xffff), "page {n}");
                }
            });
            if !cfg!(miri) {
                scope.spawn(|| assert_eq!(scanned(&table), sorted, "a scan passed over an entry"));
            }
        });
        assert_eq!(table.state(), (LEAST, steps));
    }
}

#[test]
fn spaces_change_in_parallel_while_the_table_grows() {
    let (threads, pages) = if cfg!(miri) { (2, 20) } else { (4, 4000) };
    let arena = Arena::new(1024);
    let table = Htab::new(&arena).unwrap();
    let everybody = Barrier::new(usize::from(threads));
    let leaf = |n: u64| Entry::Leaf(crate::testing::RAM.wrapping_add(n * PAGE_SIZE), Attr::RW);
    thread::scope(|scope| {
        for me in 2..2 + threads {
            let (table, everybody) = (&table, &everybody);
            scope.spawn(move || {
                let space = table.space(asid(me)).unwrap();
                let mut stock = space.stock();
                let mut set = |n, expect, new| {
                    let len = PAGE_SIZE;
                    space.replace_refilling(page(n), len, expect, new, &mut stock, &mut direct())
                };
                for n in 0..pages {
                    assert_eq!(set(n, Entry::Hole, leaf(n)), Ok(()));
                    // Every fifth goes again.
                    if n % 5 == 4 {
                        assert_eq!(set(n - 1, leaf(n - 1), Entry::Hole), Ok(()));
                    }
                }
                for n in 0..pages {
                    let gone = n % 5 == 3 && n + 1 < pages;
                    let expected = if gone { Entry::Hole } else { leaf(n) };
                    assert_eq!(space.walk(page(n), &mut ()).unwrap().entry, expected);
                }
                // Until the last one is here, everybody's entries are.
                everybody.wait();
                if !cfg!(miri) {
                    space.retire(&mut direct());
                }
            });
        }
    });
    if !cfg!(miri) {
        assert!(table.count_groups() > GROUPS, "it never grew");
        assert_eq!((table.count_entries(), table.asids().count()), (0, 0));
        check(&table);
    }
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}
