//! Lowest nodes shared after a fork, on the MMU: the right to write is gone above the leaves.

use super::paging::private;
use crate::metal::harness::{Outcome, check, check_eq, fail};
use crate::metal::memory::{self, FRAMES, KernelMemory};
use crate::metal::{Kernel, probe};
use vellum_core::{Attr, Change, Entry, FrameSource, Gone, PAGE_SIZE, Run, Span, VirtAddr};
use vellum_x86::ErrorCode;

/// What a lowest node maps: 2 MiB, a block of order 9.
const NODE: u64 = 512 * PAGE_SIZE;
const ORDER: u8 = 9;

/// R/W of an entry.
const WRITABLE: u64 = 1 << 1;

/// Fails unless a store faults as one to a page that may be read.
fn refused(va: VirtAddr) -> Outcome {
    // SAFETY: the frames are this test's, if it does not fault.
    match unsafe { probe::store(va, 3) } {
        Err(trap) if trap.page_fault() == Some(ErrorCode::PRESENT | ErrorCode::WRITE) => Ok(()),
        other => fail!("a store to {va}: {other:?}"),
    }
}

fn writable(span: Span) -> bool {
    matches!(span.entry, Entry::Leaf(_, attr) if attr.contains(Attr::WRITE))
}

/// A store faults although the leaf allows it, and works again once nobody else links the node; after a
/// copy it faults in both.
pub(super) fn a_shared_node_is_not_written_through(kernel: &Kernel) -> Outcome {
    let (va, free) = (private(0x4000_0000), FRAMES.stats().free);
    let (last, space) = (va.wrapping_add(NODE - 8), kernel.space);
    let block = FRAMES.alloc(ORDER)?;
    space.map(Run::new(va, block, NODE, Attr::RW))?;
    for at in [va, last] {
        // SAFETY: the frames are ours.
        unsafe { probe::store(at, 1)? };
    }

    let child = space.fork((va, NODE))?;
    let Some(leaf) = space.last_entry(va)? else { fail!("nothing was read to translate {va}") };
    check!(probe::load(memory::direct(leaf))? & WRITABLE != 0, "the leaf lost its right itself");
    check!(!writable(space.translate(va)?) && !writable(child.translate(last)?));
    for at in [va, last] {
        refused(at)?;
        check_eq!(probe::load(at)?, 1);
    }
    check!(space.protect(va, PAGE_SIZE, Change::setting(Attr::EXEC)).is_err());
    check_eq!(child.retire(), 0);
    check_eq!(space.unshare(va, PAGE_SIZE)?, 0);
    // SAFETY: the frames are ours.
    unsafe { probe::store(last, 2)? };
    check_eq!(probe::load(last)?, 2);

    let child = space.fork((va, NODE))?;
    refused(last)?;
    check_eq!(space.unshare(va, PAGE_SIZE)?, NODE);
    check!(space.last_entry(va)? != Some(leaf), "the node is the same");
    refused(va)?;
    check_eq!((probe::load(va)?, probe::load(last)?), (1, 2));
    check!(!writable(child.translate(va)?));
    check_eq!(child.retire(), NODE);

    let mut bytes = 0;
    space.unmap(va, NODE, |gone| {
        if let Gone::Run(run) = gone {
            bytes += run.len;
        }
    })?;
    check_eq!(bytes, NODE);
    // SAFETY: allocated above; unmapped from both and flushed.
    unsafe { KernelMemory.free(block, ORDER) };
    check_eq!(FRAMES.stats().free, free);
    Ok(())
}
