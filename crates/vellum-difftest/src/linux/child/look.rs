//! A look at the own process that changes nothing.
//!
//! ```text
//!   record:  STATE | pages | a byte for each page        | length | text of smaps, as it is
//!                            mapped, in core, present,
//!                            swapped, file, guard
//! ```
//!
//! smaps is read from its start until a region begins behind the arena's neighbourhood. The arena
//! lies below everything else, so that this is one or two pages of text; the regions of the heap
//! come behind those of the program.
//!
//! Source: Documentation/filesystems/proc.rst; Documentation/admin-guide/mm/pagemap.rst, bits 63
//! (present), 62 (swapped), 61 (file or shared) and 58 (guard).

use super::{NO_EYES, Plan, call, leave};
use crate::abi::PAGE;
use crate::linux::memory::Records;
use crate::linux::record::{self, page};
use crate::op::MARGIN;

/// How much of smaps is asked for at once: what the kernel makes in one go.
const CHUNK: usize = 4096;

/// Descriptors of this process's own files in /proc.
pub(super) struct Eyes<'a> {
    smaps: i32,
    pagemap: i32,
    plan: Plan<'a>,
    base: u64,
}

impl<'a> Eyes<'a> {
    /// Opens them: of the process that calls, and none that it forks later.
    pub(super) fn open(plan: &Plan<'a>, base: u64) -> Self {
        let open = |path: &core::ffi::CStr| {
            // SAFETY: the path ends in a zero.
            match unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) } {
                fd if fd >= 0 => fd,
                _ => leave(NO_EYES),
            }
        };
        let (smaps, pagemap) = (open(c"/proc/self/smaps"), open(c"/proc/self/pagemap"));
        Self { smaps, pagemap, plan: *plan, base }
    }

    pub(super) fn close(&self) {
        // SAFETY: the descriptors are ours, and not used again.
        unsafe {
            libc::close(self.smaps);
            libc::close(self.pagemap);
        }
    }

    /// Records the state.
    pub(super) fn look(&self) {
        let out = self.plan.records;
        record::state(out, self.base);
        self.pages(out);
        let length = out.room(8);
        out.word(0);
        let text = self.text(out);
        // SAFETY: the eight bytes recorded above.
        unsafe { length.cast::<u64>().write_unaligned(text) };
    }

    fn pages(&self, out: Records) {
        let pages = u64::from(self.plan.sequence.pages);
        let scratch = out.scratch();
        let words = scratch.cast::<u64>();
        let at = (self.base / PAGE * 8).cast_signed();
        // SAFETY: 8 bytes for each of at most 4096 pages fit into the scratch memory.
        let read = unsafe { libc::pread(self.pagemap, words.cast(), pages as usize * 8, at) };
        if read.cast_unsigned() as u64 != pages * 8 {
            leave(NO_EYES);
        }
        // SAFETY: behind them, a byte for each page fits too.
        let vector = unsafe { scratch.add(pages as usize * 8) };
        // SAFETY: mincore writes a byte for each page there.
        let whole = unsafe { libc::syscall(libc::SYS_mincore, self.base, pages * PAGE, vector) };
        out.word(pages);
        for index in 0..pages {
            let at = index as usize;
            // SAFETY: within what pread wrote.
            let word = unsafe { words.add(at).read_unaligned() };
            let mapped = call(whole).is_ok() || {
                let address = self.base + index * PAGE;
                // SAFETY: one byte of the vector.
                unsafe { libc::syscall(libc::SYS_mincore, address, PAGE, vector.add(at)) == 0 }
            };
            // SAFETY: within the vector, and written if mapped.
            let in_core = mapped && unsafe { vector.add(at).read() } & 1 != 0;
            // A guard is stored as what was swapped out is.
            let guard = word >> 58 & 1 != 0;
            let bit = |set: bool, bit: u8| if set { bit } else { 0 };
            out.byte(
                bit(mapped, page::MAPPED)
                    | bit(in_core, page::IN_CORE)
                    | bit(word >> 63 & 1 != 0, page::PRESENT)
                    | bit(word >> 62 & 1 != 0 && !guard, page::SWAPPED)
                    | bit(word >> 61 & 1 != 0, page::FILE)
                    | bit(guard, page::GUARD),
            );
        }
    }

    /// Keeps the text of smaps up to the arena's end, and perhaps some more; its length.
    fn text(&self, out: Records) -> u64 {
        let mut length = 0;
        // SAFETY: a descriptor of ours.
        unsafe { libc::lseek(self.smaps, 0, libc::SEEK_SET) };
        loop {
            let chunk = out.room(CHUNK);
            // SAFETY: there is room for that much.
            let read = unsafe { libc::read(self.smaps, chunk.cast(), CHUNK) };
            let Ok(read) = usize::try_from(read) else { leave(NO_EYES) };
            out.keep(read);
            length += read as u64;
            // SAFETY: just written, within the room, and nobody writes as long as the slice lives.
            let text = unsafe { core::slice::from_raw_parts(chunk, read) };
            if read == 0 || self.passed(text) {
                return length;
            }
        }
    }

    /// Whether a region begins in that text that lies behind the arena's neighbourhood.
    fn passed(&self, text: &[u8]) -> bool {
        let end = self.base + 2 * MARGIN;
        // Names of sizes begin with a capital; whole lines are read.
        let starts = text.split(|&b| b == b'\n').filter(|l| l.first().is_some_and(is_digit));
        starts.map(hexadecimal).any(|start| start >= end)
    }
}

const fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn hexadecimal(line: &[u8]) -> u64 {
    let digits = line.iter().take_while(|&byte| is_digit(byte));
    digits.fold(0, |number, &digit| {
        number << 4 | u64::from(if digit < b'a' { digit - b'0' } else { digit - b'a' + 10 })
    })
}
