//! What the tests of every design share: two spaces over host RAM, and a look through their tables.

use vellum_core::{Attr, PAGE_SIZE, PageTable, PhysMap, VirtAddr};
use vellum_fault::host::designs::{Design, SystemOf, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Backing, Engine, Mmu, Region, Rights, Sharing};

/// Where the regions of all tests begin.
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
    mmu: &Mmu<'_, HostSystem<'_, T>>,
    va: VirtAddr,
    need: Attr,
    bits: Attr,
    f: impl FnOnce(core::ptr::NonNull<u8>) -> R,
) -> R {
    use vellum_cache::Pages;
    let entry = mmu.table().touch(va, need, bits);
    let vellum_core::Entry::Leaf(_, attr) = entry else { panic!("{va} is {entry:?}") };
    assert!(attr.contains(need), "{va} has {attr:?}");
    let pa = mmu.table().translate(va).expect("a leaf was there");
    mmu.engine().system().memory().with(pa, f)
}

/// Loads a byte as a program would.
pub(crate) fn get<T: PageTable>(mmu: &Mmu<'_, HostSystem<'_, T>>, va: VirtAddr) -> u8 {
    // SAFETY: a frame of the host's RAM, and nobody else runs.
    at(mmu, va, Attr::READ, Attr::ACCESSED, |p| unsafe { p.read() })
}

/// Stores a byte as a program would.
pub(crate) fn put<T: PageTable>(mmu: &Mmu<'_, HostSystem<'_, T>>, va: VirtAddr, byte: u8) {
    // SAFETY: a frame of the host's RAM, and nobody else runs.
    at(mmu, va, Attr::WRITE, Attr::STATUS, |p| unsafe { p.write(byte) })
}

/// Runs `test` on a design, with an engine and two spaces, and sees every frame back.
pub(crate) fn run<D: Design>(
    test: impl for<'e, 's> FnOnce(&'e Engine<SystemOf<'s, D>>, [Mmu<'e, SystemOf<'s, D>>; 2]),
) {
    let ram = Ram::new(1 << 13);
    let before = ram.frames_in_use();
    {
        let shared = D::shared(&ram).unwrap();
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        let spaces = [1, 2].map(|n| mmu(&engine, D::table(&shared, n).unwrap()));
        test(&engine, spaces);
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
