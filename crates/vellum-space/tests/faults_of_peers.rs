//! What made other kernels panic, or lose a store: each as its public report has it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::host::designs::mmu;
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Engine, System};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{map, mremap, prot};
use vellum_space::{AddressSpace, Errno, FileMap, Layout, Limits, Rules};

type Space<'e, 'r> = AddressSpace<'e, HostSystem<'r, Radix<X86_64<4>, &'r Ram>>, spin::RwLock<()>>;

const RW: u64 = prot::READ | prot::WRITE;
const ANON: u64 = map::PRIVATE | map::ANONYMOUS;

fn run(test: impl for<'e, 'r> FnOnce(Space<'e, 'r>, FileMap)) {
    let ram = Ram::new(1 << 12);
    let rules = Rules::new(ram.count_frames());
    let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
    let file = engine.system().files().create(&[1; 6000]);
    let file = FileMap { file, descriptor: 3, offset: 0, readable: true, writable: true };
    let table = Radix::new(&ram).unwrap();
    test(
        AddressSpace::new(mmu(&engine, table), &rules, Layout::default(), Limits::default()),
        file,
    );
}

/// asterinas 1172: lengths of 0, in every call.
#[test]
fn a_length_of_nothing_reaches_no_assertion() {
    run(|space, file| {
        assert_eq!(space.mmap(0, 0, 3, 460_833, Some(file)), Err(Errno::Einval));
        let at = space.mmap(0, PAGE_SIZE, RW, ANON, None).unwrap();
        assert_eq!(space.mprotect(at, 0, prot::READ), Ok(()));
        assert_eq!(space.munmap(at, 0), Err(Errno::Einval));
        assert_eq!(space.madvise(at, 0, 4), Ok(()));
        assert_eq!(space.mremap(at, PAGE_SIZE, 0, 0, 0), Err(Errno::Einval));
        assert_eq!(space.msync(at, 0, 4), Ok(()));
        assert_eq!(space.mlock(at, 0), Ok(()));
    });
}

/// asterinas 1213: lengths that overflow when a page, or the address, is added.
#[test]
fn a_length_of_nearly_everything_overflows_nothing() {
    run(|space, _| {
        let at = space.mmap(0, PAGE_SIZE, RW, ANON, None).unwrap();
        for len in [u64::MAX, u64::MAX - 4094, !(PAGE_SIZE - 1), 1 << 63, 1 << 47, u64::MAX - at] {
            assert_eq!(space.mmap(0, len, RW, ANON, None), Err(Errno::Enomem), "{len:#x}");
            assert_eq!(space.mmap(at, len, RW, ANON | map::FIXED, None), Err(Errno::Enomem));
            assert_eq!(space.munmap(at, len), Err(Errno::Einval), "{len:#x}");
            assert!(space.mprotect(at, len, prot::READ).is_err(), "{len:#x}");
            assert!(space.madvise(at, len, 4).is_err(), "{len:#x}");
            assert_eq!(space.mremap(at, PAGE_SIZE, len, mremap::MAYMOVE, 0), Err(Errno::Einval));
            let flags = mremap::MAYMOVE | mremap::FIXED;
            assert!(space.mremap(at, len, len, flags, 0x1000_0000).is_err(), "{len:#x}");
            assert!(space.mremap(at, len, PAGE_SIZE, 0, 0).is_err(), "{len:#x}");
            assert!(space.mlock(at, len).is_err() || len > u64::MAX - PAGE_SIZE, "{len:#x}");
            let _either = space.munlock(at, len);
            let _either = space.msync(at, len, 4);
            let _either = space.mseal(at, len, 1);
            assert!(space.mincore(at, len, &mut [0; 4]).is_err(), "{len:#x}");
        }
        assert_eq!(space.size_bytes(), PAGE_SIZE);
    });
}

/// asterinas 1604: hints and fixed addresses at both ends, and beyond.
#[test]
fn no_address_reaches_an_assertion() {
    run(|space, file| {
        let end = space.layout().end;
        for addr in [0, 1, 4095, 4096, 0xffff, end - 1, end, end + 1, 1 << 47, 1 << 63, u64::MAX] {
            for flags in [ANON, ANON | map::FIXED, ANON | map::FIXED_NOREPLACE, ANON | map::BIT32] {
                for len in [1, PAGE_SIZE, 3 * PAGE_SIZE + 1] {
                    if let Ok(at) = space.mmap(addr, len, RW, flags, Some(file)) {
                        assert_eq!(space.munmap(at, len), Ok(()));
                    }
                }
            }
            let _any = space.munmap(addr, PAGE_SIZE);
            let _any = space.mprotect(addr, PAGE_SIZE, RW);
            let _any = space.mremap(addr, PAGE_SIZE, PAGE_SIZE, mremap::MAYMOVE, addr);
            let _any = space.brk(addr);
            let _any = space.write(VirtAddr::new(addr), &[1; 9000]);
        }
        let heap = space.layout().heap;
        space.brk(heap);
        assert_eq!(space.size_bytes(), 0);
    });
}

/// asterinas 2197: a longer range moved to a fixed place below the first.
#[test]
fn a_move_may_be_longer_than_what_it_moves() {
    run(|space, _| {
        let (old, new) = (0x1a0_8000, 0x20_0000);
        space.mmap(old, 0x2_0000, RW, ANON | map::FIXED, None).unwrap();
        for n in 0..32u8 {
            space.write(VirtAddr::new(old + u64::from(n) * PAGE_SIZE), &[n]).unwrap();
        }
        let flags = mremap::MAYMOVE | mremap::FIXED;
        assert_eq!(space.mremap(old, 0x2_0000, 0x10_0000, flags, new), Ok(new));
        for n in 0..32u8 {
            let mut byte = [0];
            space.read(VirtAddr::new(new + u64::from(n) * PAGE_SIZE), &mut byte).unwrap();
            assert_eq!(byte, [n]);
        }
        assert_eq!(space.size_bytes(), 0x10_0000);
        assert_eq!(space.munmap(new, 0x10_0000), Ok(()));
    });
}

/// asterinas 1203: all bits of rights and flags that a program can think of.
#[test]
fn no_flags_reach_an_unwrap() {
    run(|space, file| {
        assert_eq!(space.mmap(0, 0, 0xb, 0x4_f142, None), Err(Errno::Ebadf));
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            let (prot, flags) = (bits >> 40 & 0xff, bits >> 8 & 0xff_ffff & !map::FIXED);
            if let Ok(at) =
                space.mmap(0, PAGE_SIZE, prot, flags & !map::FIXED_NOREPLACE, Some(file))
            {
                space.munmap(at, PAGE_SIZE).unwrap();
            }
        }
        assert_eq!(space.size_bytes(), 0);
    });
}
