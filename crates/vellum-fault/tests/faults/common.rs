//! What the tests of every design share: three spaces over host RAM, a look through their tables, and an
//! account of every frame.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use vellum_cache::Pages;
use vellum_cache::page::State;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, PhysAddr, PhysMap, VirtAddr, Walk};
use vellum_fault::host::designs::{Design, SystemOf, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{
    Access, Backing, Cost, Engine, FaultError, Marker, Mmu, Region, Rights, RssKind, Sharing,
    System,
};

/// The system of these tests.
pub(crate) type Host<'r, T> = HostSystem<'r, T>;

/// Three spaces that nothing is in.
pub(crate) type Spaces<'e, 's, T> = [Mmu<'e, Host<'s, T>>; 3];

/// Where the regions of all tests begin: at a multiple of 2 MiB.
pub(crate) const BASE: VirtAddr = VirtAddr::new(0x7000_0000_0000);

/// A region of this many pages at [`BASE`].
pub(crate) fn region(backing: Backing, sharing: Sharing, pages: u64) -> Region {
    Region {
        start: BASE,
        len: pages * PAGE_SIZE,
        rights: Rights::RW,
        backing,
        sharing,
        index: 0,
        family: 7,
        huge: false,
        around: 1,
    }
}

/// A private anonymous region.
pub(crate) fn anon(pages: u64) -> Region {
    region(Backing::Anon, Sharing::Private, pages)
}

/// The address of page `n` of the region.
pub(crate) fn page(n: u64) -> VirtAddr {
    BASE.wrapping_add(n * PAGE_SIZE)
}

fn at<T: PageTable, R>(
    mmu: &Mmu<'_, Host<'_, T>>,
    va: VirtAddr,
    need: Attr,
    bits: Attr,
    f: impl FnOnce(core::ptr::NonNull<u8>) -> R,
) -> R {
    let entry = mmu.table().touch(va, need, bits);
    let Entry::Leaf(_, attr) = entry else { panic!("{va} is {entry:?}") };
    assert!(attr.contains(need), "{va} has {attr:?}");
    let pa = mmu.table().translate(va).expect("a leaf was there");
    mmu.engine().system().memory().with(pa, f)
}

/// Loads a byte as a program would.
pub(crate) fn get<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, va: VirtAddr) -> u8 {
    // SAFETY: a frame of the host's RAM, and nobody else runs.
    at(mmu, va, Attr::READ, Attr::ACCESSED, |p| unsafe { p.read() })
}

/// Stores a byte as a program would.
pub(crate) fn put<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, va: VirtAddr, byte: u8) {
    // SAFETY: a frame of the host's RAM, and nobody else runs.
    at(mmu, va, Attr::WRITE, Attr::STATUS, |p| unsafe { p.write(byte) })
}

/// What a leaf counts: something that three spaces can divide.
const LEAF: u32 = 6;

/// Faults, with the space for oneself where it takes that.
pub(crate) fn fault<T: PageTable>(
    mmu: &mut Mmu<'_, Host<'_, T>>,
    region: &Region,
    va: VirtAddr,
    access: Access,
) -> Result<Cost, FaultError> {
    match mmu.fault(region, va, access) {
        Err(FaultError::Exclusive) => mmu.fault_exclusive(region, va, access),
        done => done,
    }
}

/// Sees that every share, every `maps` and every counter is what the tables of these spaces, which are
/// all that there are, say.
pub(crate) fn audit<T: PageTable>(engine: &Engine<Host<'_, T>>, spaces: &[&Mmu<'_, Host<'_, T>>]) {
    let system = engine.system();
    let (mut maps, mut out) = (BTreeMap::<PhysAddr, u32>::new(), 0);
    // A leaf in a part of tables that several link is one: so of it, each has a share.
    let share = |mmu: &Mmu<'_, Host<'_, T>>, va| {
        let spaces = mmu.co_owners(va, PAGE_SIZE).0 + 1;
        assert_eq!(LEAF % spaces, 0, "{spaces} spaces");
        LEAF / spaces
    };
    for mmu in spaces {
        let mut rss = BTreeMap::<u8, u64>::new();
        mmu.visit(VirtAddr::new(0), 1 << 47, &mut |span| {
            match span.entry {
                Entry::Leaf(pa, _) => {
                    for i in 0..span.len / PAGE_SIZE {
                        let pa = pa.wrapping_add(i * PAGE_SIZE);
                        if pa == engine.zeros() {
                            continue;
                        }
                        *maps.entry(pa).or_default() +=
                            share(mmu, span.va.wrapping_add(i * PAGE_SIZE));
                        let state = system.info(pa).unwrap().state();
                        let kind = match () {
                            () if state.contains(State::ANON) => RssKind::Anon,
                            () if state.contains(State::MEMORY) => RssKind::Shmem,
                            () => RssKind::File,
                        };
                        *rss.entry(kind as u8).or_default() += 1;
                    }
                }
                Entry::Soft(soft) if matches!(Marker::of(soft), Some(Marker::Swap(_))) => {
                    *rss.entry(RssKind::Swap as u8).or_default() += 1;
                    out += 1;
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        for kind in [RssKind::Anon, RssKind::File, RssKind::Shmem, RssKind::Swap] {
            let there = rss.get(&(kind as u8)).copied().unwrap_or(0);
            assert_eq!(mmu.rss().pages(kind), there, "{kind:?}");
        }
    }
    let mut mapped = 0;
    for (pa, count) in &maps {
        let info = system.info(*pa).unwrap();
        let cached = u32::from(info.state().contains(State::CACHED));
        assert_eq!(count % LEAF, 0, "{pa} is linked by a table that is not here");
        let count = count / LEAF;
        assert_eq!((info.maps(), info.owners()), (count, count + cached), "{pa}: {info:?}");
        mapped += u64::from(count);
    }
    let mut counted = 0;
    system.each_info(&mut |info| counted += u64::from(info.maps()));
    assert_eq!(counted, mapped, "a page that no table maps counts mappings");
    assert!(system.swap().count_used() as u64 <= out, "a place in swap that no table names");
}

/// Runs `test` on a design, with an engine and three spaces, and sees every frame back.
pub(crate) fn run<D: Design>(
    test: impl for<'e, 's> FnOnce(&'e Engine<SystemOf<'s, D>>, [Mmu<'e, SystemOf<'s, D>>; 3]),
) {
    let ram = Ram::new(if cfg!(miri) { 1 << 9 } else { 1 << 13 });
    let before = ram.frames_in_use();
    {
        let shared = D::shared(&ram).unwrap();
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        let spaces = [1, 2, 3].map(|n| mmu(&engine, D::table(&shared, n).unwrap()));
        test(&engine, spaces);
        assert_eq!(engine.system().swap().count_used(), 0, "every place in swap is free");
    }
    assert_eq!(ram.frames_in_use(), before, "every frame is back");
}

/// A module for each design, with a test for each function.
macro_rules! on_every_design {
    ($($test:ident),* $(,)?) => {
        macro_rules! design {
            ($name:ident, $design:ty) => {
                mod $name { $(
                    #[test]
                    fn $test() {
                        crate::common::run::<$design>(|e, m| super::$test::<<$design as vellum_fault::host::designs::Design>::Table<'_>>(e, m));
                    }
                )* }
            };
        }
        vellum_fault::for_each_design!(design);
    };
}
pub(crate) use on_every_design;
