//! What `smaps` says of memory that parents and children have by the same parts of a table.

use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::Engine;
use vellum_fault::host::designs::mmu;
use vellum_fault::host::{HostSystem, Ram};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{map, prot};
use vellum_space::{AddressSpace, Layout, Limits, Rules, Usage};

type Table<'r> = Radix<X86_64<4>, &'r Ram>;
type Space<'e, 'r> = AddressSpace<'e, HostSystem<'r, Table<'r>>, spin::RwLock<()>>;

const BASE: u64 = 0x7000_0000_0000;
/// Two nodes of the table.
const PAGES: u64 = 1024;
const ALL: u64 = PAGES * PAGE_SIZE;

fn write(space: &Space<'_, '_>, page: u64, byte: u8) {
    space.write(VirtAddr::new(BASE + page * PAGE_SIZE), &[byte]).unwrap();
}

fn read(space: &Space<'_, '_>, page: u64) -> u8 {
    let mut byte = [0];
    space.read(VirtAddr::new(BASE + page * PAGE_SIZE), &mut byte).unwrap();
    byte[0]
}

/// A parent of [`PAGES`] pages that are written, two children, and a way to make them.
fn family(
    test: impl for<'e, 'r> FnOnce(&'e Engine<HostSystem<'r, Table<'r>>>, [Space<'e, 'r>; 3]),
) {
    let ram = Ram::new(1 << 13);
    let rules = Rules::new(ram.count_frames());
    let before = ram.frames_in_use();
    {
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        let table = || mmu(&engine, Table::new(&ram).unwrap());
        let parent = Space::new(table(), &rules, Layout::default(), Limits::default());
        let fixed = map::PRIVATE | map::ANONYMOUS | map::FIXED;
        parent.mmap(BASE, ALL, prot::READ | prot::WRITE, fixed, None).unwrap();
        (0..PAGES).for_each(|page| write(&parent, page, page as u8));
        let children = [(); 2].map(|()| parent.fork(table()).unwrap());
        let [one, two] = children;
        test(&engine, [parent, one, two]);
    }
    assert_eq!((ram.frames_in_use(), rules.committed()), (before, 0));
}

fn pss(spaces: &[&Space<'_, '_>]) -> u64 {
    spaces.iter().map(|space| space.usage().pss_bytes()).sum()
}

#[test]
fn what_three_have_is_a_third_of_each() {
    family(|_, [parent, one, two]| {
        for space in [&parent, &one, &two] {
            let Usage { rss, shared_dirty, private_dirty, anonymous, .. } = space.usage();
            assert_eq!((rss, shared_dirty, private_dirty, anonymous), (ALL, ALL, 0, ALL));
            assert_eq!(space.usage().pss_bytes(), ALL / 3);
            assert_eq!(space.with_mmu(|mmu| mmu.rss().resident()), PAGES);
        }
    });
}

/// However far the spaces have parted, what they have adds up to what there is.
#[test]
fn parts_add_up_to_what_there_is() {
    family(|engine, [parent, one, two]| {
        let frames = || {
            let mut pages = 0;
            use vellum_cache::Pages;
            engine.system().each_info(&mut |info| pages += u64::from(info.maps() > 0));
            pages * PAGE_SIZE
        };
        let adds_up = |spaces: &[&Space<'_, '_>]| {
            // Each of three spaces rounds each page down, by less than a byte in 64.
            let (sum, all) = (pss(spaces), frames());
            assert!(sum <= all && all - sum < PAGE_SIZE / 16, "{sum} of {all}");
        };
        adds_up(&[&parent, &one, &two]);
        for page in [3, 700, 4] {
            write(&one, page, 200);
            adds_up(&[&parent, &one, &two]);
        }
        let usage = one.usage();
        assert_eq!((usage.private_dirty, usage.shared_dirty), (3 * PAGE_SIZE, ALL - 3 * PAGE_SIZE));
        write(&parent, 3, 100);
        adds_up(&[&parent, &one, &two]);
        assert_eq!([&parent, &one, &two].map(|space| read(space, 3)), [100, 200, 3]);
        one.munmap(BASE + PAGE_SIZE, 600 * PAGE_SIZE).unwrap();
        adds_up(&[&parent, &one, &two]);
        drop(two);
        adds_up(&[&parent, &one]);
        drop(parent);
        adds_up(&[&one]);
        assert_eq!(one.usage().shared_dirty, 0);
        assert_eq!(one.usage().private_dirty, (PAGES - 600) * PAGE_SIZE);
    });
}

/// Nothing of what a call was to change has changed when there is no memory for a copy of the table's part.
#[test]
fn a_part_that_cannot_be_copied_stops_a_call_before_it_begins() {
    family(|engine, [parent, one, two]| {
        let maps = |space: &Space<'_, '_>| {
            let mut text = String::new();
            space.write_maps(&mut text).unwrap();
            text
        };
        let (before, ram) = (maps(&one), engine.system().ram());
        ram.limit(Some(0));
        let middle = (BASE + 8 * PAGE_SIZE, 600 * PAGE_SIZE);
        assert!(one.mprotect(middle.0, middle.1, prot::READ).is_err());
        assert!(one.munmap(middle.0, middle.1).is_err());
        assert_eq!(maps(&one), before);
        // Parts that go whole take no memory.
        assert_eq!(two.munmap(BASE, ALL), Ok(()));
        ram.limit(None);
        assert_eq!(one.mprotect(middle.0, middle.1, prot::READ), Ok(()));
        for page in 0..PAGES {
            assert_eq!((read(&parent, page), read(&one, page)), (page as u8, page as u8));
        }
    });
}
