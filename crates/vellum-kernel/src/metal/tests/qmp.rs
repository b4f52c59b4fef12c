//! What the walker says of a random table, beside what QEMU's own walker says of the same table.
//!
//! ```text
//!   kernel's mappings -.                        image                            cargo xtask test
//!   1,024 random ones --+--> table --> CR3      Walker --> serial port  -------> lines --.
//!                              ^                                                          = ?
//!                              '---- QEMU: gva2gpa, info tlb, info mem  <--- QMP <-------'
//!                                               waits <--- o /b 0x3ff 0x5a <-------------'
//! ```
//!
//! With the word `qmp=wait` the image prints what the walker found, and waits to be let go on;
//! `seed=0x...` repeats a run. Without, the walker is still held to the table itself.
//!
//! # Invariants
//!
//! - Nobody accesses a random mapping, so that their frames need not be ours, or exist at all; and
//!   accessed and dirty of the kernel's own mappings are preset. Nothing in the table changes while
//!   it is compared.

use crate::metal::console::println;
use crate::metal::harness::{Failure, Outcome, check, check_eq, fail};
use crate::metal::memory::{self, FRAMES, KernelMemory};
use crate::metal::{Kernel, machine, paging};
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{
    Attr, Cause, Direct, Entry, MemoryType, PAGE_SHIFT, PageTable, PhysAddr, PhysMap, RangeError,
    Ref, Run, Span, VirtAddr, Walk,
};
use vellum_radix::dump::Leaf;
use vellum_radix::{Format, Radix, Walker, X86_64};
use vellum_x86::{Cr3, Feature, Pcid};
use x86_64::instructions::port::Port;

/// Random mappings, besides the kernel's own.
const MAPPINGS: u64 = 1024;

/// The scratch register of the first serial port, which nothing else uses.
const SCRATCH: u16 = 0x3ff;

/// What xtask writes there when it has seen enough.
const GO_ON: u8 = 0x5a;

/// Numbers that look random, by a seed: `SplitMix64`.
///
/// Source: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[self.below(N as u64) as usize]
    }
}

pub(super) fn walker_agrees_with_qemu(kernel: &Kernel) -> Outcome {
    if machine::levels() == 5 { run::<5>(kernel) } else { run::<4>(kernel) }
}

fn run<const LEVELS: usize>(kernel: &Kernel) -> Outcome {
    let free = FRAMES.stats().free;
    let seed = kernel.boot.option("seed").map(|digits| digits.trim_start_matches("0x"));
    let seed = match seed.map(|digits| u64::from_str_radix(digits, 16)) {
        Some(seed) => seed?,
        None => machine::time_stamp(),
    };
    let is_watched = kernel.boot.option("qmp") == Some("wait");
    let mut table: Radix<X86_64<LEVELS>, _> = Radix::new(KernelMemory)?;
    let outcome = fill(kernel, &mut table, &mut Random(seed)).and_then(|leaves| {
        if is_watched {
            println!("\nqmp seed {seed:#x}");
        }
        // SAFETY: the table maps all that the kernel's own table maps, to the same frames and with
        // the same rights, and nobody uses the rest.
        unsafe { under(table.root(), || report(&table, leaves, is_watched, seed)) }
    });
    // SAFETY: CR3 has the kernel's own table again, and no translation is left of this one.
    table.retire(&mut unsafe { Direct::new(|_| {}) });
    outcome?;
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}

/// Runs `f` on other tables.
///
/// # Safety
///
/// They map what the kernel uses as its own do.
unsafe fn under(root: PhysAddr, f: impl FnOnce() -> Outcome) -> Outcome {
    let Some(cr3) = Cr3::new(root, Pcid::ZERO) else { fail!("{root} is no root") };
    // SAFETY: the caller's promise; frames come from RAM, which the CPU can reach.
    unsafe { machine::cpu().load(cr3) };
    let outcome = f();
    check!(paging::load(), "the kernel has no tables");
    // What was cached of the other tables is forgotten before their nodes are.
    machine::cpu().flush_everything();
    outcome
}

/// Maps the kernel and the random mappings; tells how many leaves there are.
fn fill<const LEVELS: usize>(
    kernel: &Kernel,
    table: &mut Radix<X86_64<LEVELS>, KernelMemory>,
    random: &mut Random,
) -> Result<u64, Failure> {
    let features = machine::features();
    let largest = if features.has(Feature::GIB_LEAVES) { 30 } else { 21 };
    // SAFETY: the table is not loaded yet.
    let mut gather = unsafe { Direct::new(|_| {}) };
    let mut mapped = Ok(());
    kernel.space.visit_all(&mut |span| {
        if let (Entry::Leaf(pa, attr), Ok(())) = (span.entry, mapped) {
            let run = Run::new(span.va, pa, span.len, attr | Attr::STATUS);
            mapped = table.map(run.with_leaves_up_to(largest), &mut gather);
        }
    })?;
    mapped?;
    let kernels = count_leaves(table)?;
    let (mut made, mut restrictions) = (0, 0);
    let mut restricted = [None; 256];
    let mut last = VirtAddr::new(0);
    while made < MAPPINGS {
        let page = random.one_of([PAGE_SHIFT, PAGE_SHIFT, PAGE_SHIFT, 21, largest]);
        // Half of them near the one before, so that nodes have more than one entry.
        let near = random.next() & 1 == 0;
        let at = if near { last.as_u64() + (random.below(64) << page) } else { random.next() };
        let va = <X86_64<LEVELS>>::CANONICAL.extend(at).align_down(page);
        let pa = PhysAddr::new(random.below(1 << features.physical_bits)).align_down(page);
        let run = Run::new(va, pa, 1 << page, attributes(random)).with_leaves_up_to(page);
        match table.map(run, &mut gather) {
            Ok(()) => made += 1,
            // Something is there; or the table's policy refuses what is writable and executable.
            Err(RangeError { cause: Cause::Mapped(_) | Cause::WriteAndExecute(_), .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        last = va;
        // The kernel lives in the upper half, and shares nodes with the mappings there.
        if va.as_u64() >> 63 == 0 && random.below(8) == 0 {
            restricted[restrictions % restricted.len()] = Some(va);
            restrictions += 1;
        }
    }
    // At the end, since a link without the right to write is one that a table does not change below.
    for va in restricted.into_iter().flatten() {
        restrict(table, va, random)?;
    }
    Ok(kernels + MAPPINGS)
}

/// Readable; everything else as it comes.
fn attributes(random: &mut Random) -> Attr {
    let memory = random.one_of([
        MemoryType::WriteBack,
        MemoryType::WriteThrough,
        MemoryType::UncachedMinus,
        MemoryType::Uncached,
        MemoryType::WriteCombining,
        MemoryType::WriteProtect,
    ]);
    let bits = Attr::from_bits(random.next() as u32);
    (bits | Attr::READ).with_memory(memory)
}

/// Takes a right away in one of the nodes above the leaf of `va`: not as our own tables do it.
fn restrict<T: Walk>(table: &T, va: VirtAddr, random: &mut Random) -> Outcome {
    let mut links = [PhysAddr::new(0); 5];
    let mut count = 0;
    table.walk(va, &mut |r: Ref| {
        links[count.min(4)] = r.pa;
        count += 1;
    })?;
    check!(count >= 2, "{va} has no table entry above its leaf");
    let link = links[random.below(count as u64 - 1) as usize];
    let (writable, user, no_execute) = (1 << 1, 1 << 2, 1 << 63);
    let (set, clear) = random.one_of([(0, writable), (0, user), (no_execute, 0)]);
    KernelMemory.with(link, |p| {
        // SAFETY: an entry of a node of a table that is not loaded, reached by nobody else.
        let entry = unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) };
        entry.store(entry.load(Ordering::Relaxed) & !clear | set, Ordering::Relaxed);
    });
    Ok(())
}

/// What a table says of a leaf that states `own`: a link without the right to write, which the walker
/// has found in `all`, counts where it links a lowest node.
fn stated(own: Attr, all: Attr, theirs: Entry) -> Attr {
    match theirs {
        Entry::Leaf(_, attr) if !attr.contains(Attr::WRITE) && !all.contains(Attr::WRITE) => {
            own - Attr::WRITE
        }
        _ => own,
    }
}

/// A walker of the table, kept within RAM.
fn walker<const LEVELS: usize>(
    table: &Radix<X86_64<LEVELS>, KernelMemory>,
) -> Walker<X86_64<LEVELS>, KernelMemory, impl Fn(PhysAddr) -> bool> {
    let is_ram = |pa: PhysAddr| {
        memory::ram().iter().any(|ram| ram.start() <= pa.as_u64() && pa.as_u64() < ram.end())
    };
    // SAFETY: the table leads to its own nodes alone: frames of RAM that were initialised when they
    // were taken, that the direct map reaches, and that this test alone has.
    unsafe { Walker::new(table.root(), KernelMemory, is_ram) }
}

/// How many leaves the walker visits in all.
fn count_leaves<const LEVELS: usize>(
    table: &Radix<X86_64<LEVELS>, KernelMemory>,
) -> Result<u64, Failure> {
    let mut leaves = 0;
    let mut corrupt = None;
    for (va, len) in <X86_64<LEVELS>>::CANONICAL.halves() {
        walker(table).visit(va, len, &mut |told| {
            match told {
                Ok(_) => leaves += 1,
                Err(found) => corrupt = Some(found),
            }
            ControlFlow::Continue(())
        })?;
    }
    match corrupt {
        None => Ok(leaves),
        Some(found) => fail!("{found}"),
    }
}

/// Holds the walker to the table, prints what it reports, and waits to be let go on.
fn report<const LEVELS: usize>(
    table: &Radix<X86_64<LEVELS>, KernelMemory>,
    leaves: u64,
    is_watched: bool,
    seed: u64,
) -> Outcome {
    check_eq!(count_leaves(table)?, leaves);
    let walker = walker(table);
    let mut random = Random(seed);
    let mut outcome = Ok(());
    for (va, len) in <X86_64<LEVELS>>::CANONICAL.halves() {
        walker.visit(va, len, &mut |told| {
            outcome = told.map_err(Failure::from).and_then(|item| {
                // Any byte of the leaf, and the first one behind it.
                let at = item.span.va.wrapping_add(random.below(item.span.len));
                let behind = item.span.va.wrapping_add(item.span.len);
                let found = walker.translate(at)?;
                check_eq!(
                    found.map(|(pa, attr)| Entry::Leaf(pa, attr)),
                    Some(leaf_at(item.span, at))
                );
                let theirs = leaf_at(table.walk(at, &mut ())?, at);
                check_eq!(
                    found.map(|(pa, all)| Entry::Leaf(pa, stated(item.own, all, theirs))),
                    Some(theirs)
                );
                if let (true, Some((pa, _))) = (is_watched, found) {
                    println!("qmp leaf {}", Leaf::of::<X86_64<LEVELS>>(item));
                    println!("qmp at {at:016x} {pa:016x}");
                    if let Ok(None) = walker.translate(behind) {
                        println!("qmp at {behind:016x} none");
                    }
                }
                Ok(())
            });
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if outcome.is_err() {
            break;
        }
    }
    outcome?;
    if is_watched {
        println!("qmp ready {MAPPINGS} {leaves}");
        wait();
    }
    Ok(())
}

/// What a span says about the byte at `va`, which is in it.
fn leaf_at(span: Span, va: VirtAddr) -> Entry {
    match span.entry {
        Entry::Leaf(pa, attr) => Entry::Leaf(pa.wrapping_add(va.as_u64() - span.va.as_u64()), attr),
        entry => entry,
    }
}

/// Until xtask says so, through QEMU's monitor; where nobody does, its limit ends the machine.
fn wait() {
    let mut scratch = Port::<u8>::new(SCRATCH);
    // SAFETY: reading a scratch register does nothing, and the console's driver does not use it.
    while unsafe { scratch.read() } != GO_ON {
        core::hint::spin_loop();
    }
}
