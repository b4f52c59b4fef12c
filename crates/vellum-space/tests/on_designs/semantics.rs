//! What the calls do, on every design.

use vellum_core::{PAGE_SIZE, PageTable, VirtAddr};
use vellum_fault::host::designs::{Design, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Deny, Engine, FaultError, Mmu};
use vellum_space::abi::{map, prot};
use vellum_space::{AccessError, AddressSpace, Errno, Layout, Limits, Rules};

type Lock = spin::RwLock<()>;
type Host<'r, T> = HostSystem<'r, T>;
type Space<'e, 'r, T> = AddressSpace<'e, Host<'r, T>, Lock>;

const RW: u64 = prot::READ | prot::WRITE;
const ANON: u64 = map::PRIVATE | map::ANONYMOUS;
const BASE: u64 = 0x7000_0000_0000;

/// Two spaces' translations, and the rules.
struct Given<'e, 'r, T: PageTable> {
    rules: &'e Rules,
    mmus: [Mmu<'e, Host<'r, T>>; 2],
}

impl<'e, 'r, T: PageTable> Given<'e, 'r, T> {
    fn space(self) -> (Space<'e, 'r, T>, Mmu<'e, Host<'r, T>>) {
        let [one, other] = self.mmus;
        (AddressSpace::new(one, self.rules, Layout::default(), Limits::default()), other)
    }
}

fn run<D: Design>(test: impl for<'e, 's> FnOnce(Given<'e, 's, D::Table<'s>>)) {
    let ram = Ram::new(1 << 13);
    let before = ram.frames_in_use();
    {
        let shared = D::shared(&ram).unwrap();
        let rules = Rules::new(ram.count_frames());
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        test(Given {
            rules: &rules,
            mmus: [1, 2].map(|n| mmu(&engine, D::table(&shared, n).unwrap())),
        });
        assert_eq!(rules.committed(), 0, "every promise is taken back");
    }
    assert_eq!(ram.frames_in_use(), before, "every frame is back");
}

fn page(n: u64) -> u64 {
    BASE + n * PAGE_SIZE
}

fn maps<T: PageTable>(space: &Space<'_, '_, T>) -> Vec<String> {
    let mut text = String::new();
    space.write_maps(&mut text).unwrap();
    text.lines().map(|line| line[..30].to_owned()).collect()
}

fn line(from: u64, to: u64, rights: &str) -> String {
    format!("{:08x}-{:08x} {rights}", page(from), page(to))
}

fn neighbours_become_one_and_are_cut_again<T: PageTable>(given: Given<'_, '_, T>) {
    let (space, _) = given.space();
    let fixed = ANON | map::FIXED;
    for n in [0, 2, 1] {
        assert_eq!(space.mmap(page(n), PAGE_SIZE, RW, fixed, None), Ok(page(n)));
    }
    assert_eq!(maps(&space), [line(0, 3, "rw-p")]);
    space.mprotect(page(1), PAGE_SIZE, prot::READ).unwrap();
    assert_eq!(maps(&space).len(), 3);
    space.mprotect(page(1), PAGE_SIZE, RW).unwrap();
    assert_eq!(maps(&space).len(), 1);
    space.munmap(page(1), PAGE_SIZE).unwrap();
    assert_eq!(maps(&space).len(), 2);
    assert_eq!(space.munmap(page(1), 0), Err(Errno::Einval));
    assert_eq!(space.munmap(page(1), PAGE_SIZE), Ok(()));
    assert_eq!(space.size_bytes(), 2 * PAGE_SIZE);
}

fn what_is_written_is_read_until_it_is_unmapped<T: PageTable>(given: Given<'_, '_, T>) {
    let (space, _) = given.space();
    let at = space.mmap(0, 3 * PAGE_SIZE, RW, ANON, None).unwrap();
    let va = VirtAddr::new(at + PAGE_SIZE - 3);
    space.write(va, b"across").unwrap();
    let mut back = [0; 6];
    space.read(va, &mut back).unwrap();
    assert_eq!(&back, b"across");
    space.munmap(at + PAGE_SIZE, PAGE_SIZE).unwrap();
    let second = VirtAddr::new(at + PAGE_SIZE);
    let gone = FaultError::Deny(Deny::Unmapped(second));
    assert_eq!(space.read(va, &mut back), Err(AccessError { done: 3, error: gone }));
}

fn a_child_has_its_own_copy<T: PageTable>(given: Given<'_, '_, T>) {
    let (space, child) = given.space();
    let at = VirtAddr::new(space.mmap(0, 2 * PAGE_SIZE, RW, ANON, None).unwrap());
    space.write(at, b"parent").unwrap();
    let child = space.fork(child).unwrap();
    child.write(at, b"CHILD").unwrap();
    let mut back = [0; 6];
    space.read(at, &mut back).unwrap();
    assert_eq!(&back, b"parent");
    child.read(at, &mut back).unwrap();
    assert_eq!(&back, b"CHILDt");
    drop(space);
    child.read(at, &mut back).unwrap();
    assert_eq!(&back, b"CHILDt");
}

fn a_stack_grows_to_its_limit_and_not_into_its_neighbour<T: PageTable>(given: Given<'_, '_, T>) {
    let (space, _) = given.space();
    let fixed = ANON | map::FIXED | map::GROWSDOWN;
    let top = page(4096);
    space.mmap(top - PAGE_SIZE, PAGE_SIZE, RW, fixed, None).unwrap();
    space.write(VirtAddr::new(top - 4 * PAGE_SIZE), &[1]).unwrap();
    assert_eq!(space.size_bytes(), 4 * PAGE_SIZE);
    let limit = space.limits().stack;
    let beyond = VirtAddr::new(top - limit - 1);
    let unmapped = FaultError::Deny(Deny::Unmapped(beyond));
    assert_eq!(space.write(beyond, &[1]), Err(AccessError { done: 0, error: unmapped }));
    space.mmap(top - 300 * PAGE_SIZE, PAGE_SIZE, RW, ANON | map::FIXED, None).unwrap();
    space.write(VirtAddr::new(top - 43 * PAGE_SIZE), &[1]).unwrap();
    assert!(space.write(VirtAddr::new(top - 44 * PAGE_SIZE), &[1]).is_err());
}

fn the_heap_follows_brk<T: PageTable>(given: Given<'_, '_, T>) {
    let (space, _) = given.space();
    let start = space.brk(0);
    assert_eq!(space.brk(start + 5000), start + 5000);
    space.write(VirtAddr::new(start + 4999), &[7]).unwrap();
    assert_eq!(space.brk(start + 100), start + 100);
    assert!(space.write(VirtAddr::new(start + 4999), &[7]).is_err());
    assert_eq!(space.brk(start - 1), start + 100);
    assert_eq!(space.sbrk(0x3000), Ok(start + 100));
    assert!(maps(&space).len() == 1);
    let mut text = String::new();
    space.write_maps(&mut text).unwrap();
    assert!(text.ends_with("[heap]\n"), "{text}");
}

macro_rules! design {
    ($name:ident, $design:ty) => {
        design!($name, $design:
            neighbours_become_one_and_are_cut_again,
            what_is_written_is_read_until_it_is_unmapped,
            a_child_has_its_own_copy,
            a_stack_grows_to_its_limit_and_not_into_its_neighbour,
            the_heap_follows_brk,
        );
    };
    ($name:ident, $design:ty: $($test:ident),* $(,)?) => {
        mod $name { $(
            #[test]
            fn $test() {
                super::run::<$design>(|given| super::$test(given));
            }
        )* }
    };
}
vellum_fault::for_each_design!(design);
