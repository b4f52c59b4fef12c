//! Memory that runs out at every allocation of every call: the space is as before, or as Linux leaves it,
//! and no frame is lost.

use core::ops::ControlFlow;
use vellum_core::{Entry, PAGE_SIZE, PageTable, PhysAddr, PhysMap, VirtAddr};
use vellum_fault::host::designs::{Design, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Access, Engine, Mmu, System};
use vellum_space::abi::{madv, map, mremap, prot};
use vellum_space::{AddressSpace, Errno, FileMap, Layout, Limits, Rules};

type Space<'e, 'r, T> = AddressSpace<'e, HostSystem<'r, T>, spin::RwLock<()>>;
type Spare<'e, 'r, T> = Mmu<'e, HostSystem<'r, T>>;

const RW: u64 = prot::READ | prot::WRITE;
const FIXED: u64 = map::PRIVATE | map::ANONYMOUS | map::FIXED;
const BASE: u64 = 0x7000_0000_0000;

fn page(n: u64) -> u64 {
    BASE + n * PAGE_SIZE
}

/// What a space is: its regions, and what each page holds. Nothing is faulted in for that.
fn picture<T: PageTable>(space: &Space<'_, '_, T>, ram: &Ram) -> (String, Vec<(u64, u8, bool)>) {
    let mut text = String::new();
    space.write_maps(&mut text).unwrap();
    let mut pages = Vec::new();
    space.with_mmu(|mmu| {
        mmu.visit(VirtAddr::new(BASE), 1 << 30, &mut |span| {
            for at in (0..span.len).step_by(PAGE_SIZE as usize) {
                let (byte, is_soft) = match span.entry {
                    Entry::Leaf(pa, _) => (first_byte(ram, pa.wrapping_add(at)), false),
                    _ => (0, true),
                };
                pages.push((span.va.as_u64() + at, byte, is_soft));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    });
    (text, pages)
}

fn first_byte(ram: &Ram, pa: PhysAddr) -> u8 {
    // SAFETY: a mapped frame of the host's RAM, and nobody else runs.
    ram.with(pa, |p| unsafe { p.read() })
}

/// Regions of several kinds, with pages in some.
fn furnish<T: PageTable>(space: &Space<'_, '_, T>, file: FileMap) {
    space.mmap(page(0), 16 * PAGE_SIZE, RW, FIXED, None).unwrap();
    for n in [0, 1, 2, 7, 8, 15] {
        space.write(VirtAddr::new(page(n)), &[n as u8 + 1]).unwrap();
    }
    space.mprotect(page(4), 2 * PAGE_SIZE, prot::READ).unwrap();
    let shared = map::SHARED | map::FIXED;
    space.mmap(page(32), 4 * PAGE_SIZE, RW, shared, Some(file)).unwrap();
    space.write(VirtAddr::new(page(33)), &[77]).unwrap();
    let private = map::PRIVATE | map::FIXED;
    space.mmap(page(40), 4 * PAGE_SIZE, RW, private, Some(file)).unwrap();
    space.write(VirtAddr::new(page(41)), &[88]).unwrap();
    space.mmap(page(1000), PAGE_SIZE, RW, FIXED | map::GROWSDOWN, None).unwrap();
}

/// Runs a call, which may take the other space's translations for a child.
type Run<T> = for<'e, 'r> fn(&Space<'e, 'r, T>, &mut Option<Spare<'e, 'r, T>>) -> Result<(), Errno>;

/// A call, and whether it may have done a part of its work when it is refused.
struct Call<T: PageTable> {
    name: &'static str,
    run: Run<T>,
    may_be_partial: bool,
}

fn calls<T: PageTable>() -> Vec<Call<T>> {
    macro_rules! call {
        ($name:literal, $partial:literal, |$space:ident, $spare:ident| $body:expr) => {
            Call { name: $name, may_be_partial: $partial, run: |$space, $spare| $body }
        };
    }
    vec![
        call!("mmap over regions", false, |space, _spare| {
            space.mmap(page(1), 9 * PAGE_SIZE, prot::READ, FIXED, None).map(drop)
        }),
        call!("mmap in the middle", false, |space, _spare| {
            space.mmap(page(10), PAGE_SIZE, prot::READ, FIXED, None).map(drop)
        }),
        call!("munmap in the middle", false, |space, _spare| space.munmap(page(10), PAGE_SIZE)),
        call!("munmap of several", false, |space, _spare| {
            space.munmap(page(1), 33 * PAGE_SIZE)
        }),
        call!("mprotect in the middle", true, |space, _spare| {
            space.mprotect(page(9), PAGE_SIZE, prot::READ)
        }),
        call!("mremap elsewhere", false, |space, _spare| {
            let flags = mremap::MAYMOVE | mremap::FIXED;
            space.mremap(page(6), 4 * PAGE_SIZE, 4 * PAGE_SIZE, flags, page(200)).map(drop)
        }),
        call!("mremap to more", false, |space, _spare| {
            let (old, new) = (3 * PAGE_SIZE, 700 * PAGE_SIZE);
            space.mremap(page(0), old, new, mremap::MAYMOVE, 0).map(drop)
        }),
        call!("madvise of a flag", false, |space, _spare| {
            space.madvise(page(10), PAGE_SIZE, madv::DONTFORK)
        }),
        call!("guard pages", true, |space, _spare| {
            space.madvise(page(1), 3 * PAGE_SIZE, madv::GUARD_INSTALL)
        }),
        call!("mlock", true, |space, _spare| space.mlock(page(6), 10 * PAGE_SIZE)),
        call!("mseal", true, |space, _spare| space.mseal(page(9), PAGE_SIZE, 0)),
        call!("a fault", false, |space, _spare| {
            let done = space.fault(VirtAddr::new(page(3)), Access::Write);
            done.map(drop).map_err(|_| Errno::Enomem)
        }),
        call!("a fault that grows a stack", true, |space, _spare| {
            let done = space.fault(VirtAddr::new(page(990)), Access::Write);
            done.map(drop).map_err(|_| Errno::Enomem)
        }),
        call!("a fault in a private file", false, |space, _spare| {
            let done = space.fault(VirtAddr::new(page(42)), Access::Write);
            done.map(drop).map_err(|_| Errno::Enomem)
        }),
        call!("fork", false, |space, spare| { space.fork(spare.take().unwrap()).map(drop) }),
    ]
}

fn check<D: Design>() {
    let count = calls::<D::Table<'_>>().len();
    for index in 0..count {
        let mut succeeded = false;
        for allocations in 0..200 {
            if run_one::<D>(index, allocations) {
                succeeded = true;
                break;
            }
        }
        assert!(succeeded, "call {index} needs more than 200 allocations");
    }
}

/// Runs one call with so many allocations that succeed; whether it did.
fn run_one<D: Design>(index: usize, allocations: u32) -> bool {
    let ram = Ram::new(1 << 12);
    let before = ram.frames_in_use();
    let done = {
        let shared = D::shared(&ram).unwrap();
        let rules = Rules::new(ram.count_frames());
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        let file = engine.system().files().create(&[5; 3 * PAGE_SIZE as usize]);
        let file = FileMap { file, descriptor: 3, offset: 0, readable: true, writable: true };
        let [one, spare] = [1, 2].map(|n| mmu(&engine, D::table(&shared, n).unwrap()));
        let limits = Limits { may_lock_all: true, ..Limits::default() };
        let space = AddressSpace::new(one, &rules, Layout::default(), limits);
        furnish(&space, file);
        let call = &calls()[index];
        let picture_before = picture(&space, &ram);
        let promised = rules.committed();
        let mut spare = Some(spare);
        ram.limit(Some(allocations));
        let done = (call.run)(&space, &mut spare);
        ram.limit(None);
        if let Err(error) = done {
            let what = format!("{} with {allocations} allocations: {error:?}", call.name);
            assert!(matches!(error, Errno::Enomem | Errno::Eagain), "{what}");
            if !call.may_be_partial {
                assert_eq!(picture(&space, &ram), picture_before, "{what}");
                assert_eq!(rules.committed(), promised, "{what}");
            }
            // What was refused for memory succeeds with memory.
            if spare.is_some() {
                assert_eq!((call.run)(&space, &mut spare), Ok(()), "{what}, then with memory");
            }
        }
        drop((space, spare));
        assert_eq!(rules.committed(), 0, "{}: promises", call.name);
        done.is_ok()
    };
    assert_eq!(ram.frames_in_use(), before, "call {index} with {allocations}: frames");
    done
}

macro_rules! design {
    ($name:ident, $design:ty) => {
        #[test]
        fn $name() {
            check::<$design>();
        }
    };
}
vellum_fault::for_each_design!(design);
