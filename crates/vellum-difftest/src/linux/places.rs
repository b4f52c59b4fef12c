//! Where the kernel of this host puts mappings, in a process of its own.
//!
//! ```text
//!   record:  first | length | text of maps | an address, or minus an error, for each request
//! ```

use super::child::{call, leave, settle};
use super::memory::{Records, Shared};
use super::wait;
use crate::abi::PAGE;
use crate::places::{Ask, Begun, Call, Places, SLOTS};
use crate::subject::SubjectError;

/// The status of a process that cannot see what it has.
const NO_MAPS: i32 = 94;
/// Read from maps at once.
const CHUNK: usize = 4096;

/// Runs requests in a child.
///
/// # Errors
///
/// If the host refuses what is needed for that.
pub fn run(asks: &[Ask]) -> Result<Places, SubjectError> {
    let mut shared = Shared::new()?;
    shared.clear();
    let records = shared.records();
    // SAFETY: the child calls only what may be called between fork and exec of a program with threads
    // (system calls, and code of ours that takes no lock and no heap), and never returns.
    match unsafe { libc::fork() } {
        -1 => return Err(SubjectError::last("fork")),
        0 => child(asks, records),
        pid => wait(pid)?,
    }
    read(shared.written()?, asks.len())
}

fn child(asks: &[Ask], out: Records) -> ! {
    settle();
    // SAFETY: a mapping of a page where nothing is, and away with it.
    let first = unsafe {
        let at = libc::syscall(
            libc::SYS_mmap,
            0,
            PAGE,
            0,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        libc::syscall(libc::SYS_munmap, at, PAGE);
        at
    };
    out.word(first.cast_unsigned());
    maps(out);
    let mut slots = [(0, 0); SLOTS];
    let mut count = 0;
    for ask in asks {
        let given = ask.call(&slots).map_or(Ok(0), |it| carried_out(ask, it));
        if let (Ok(at), Some(_)) = (given, ask.call(&slots)) {
            ask.follow(&mut slots, &mut count, at);
        }
        out.word(match given {
            Ok(at) => at,
            Err(errno) => errno.wrapping_neg(),
        });
    }
    leave(0)
}

fn carried_out(ask: &Ask, it: Call) -> Result<u64, u64> {
    // SAFETY: without `MAP_FIXED` nothing is replaced, and what is unmapped, moved or grown is a mapping
    // that was made here, which nobody uses.
    let returned = unsafe {
        match (it, *ask) {
            (Call::Map(hint), Ask::Map { len, flags, .. }) => {
                libc::syscall(libc::SYS_mmap, hint, len, 0, flags, -1, 0)
            }
            (Call::Unmap(at, len), _) => libc::syscall(libc::SYS_munmap, at, len),
            (Call::Grow(at, old, new), _) => libc::syscall(libc::SYS_mremap, at, old, new, 1, 0),
            (Call::Map(_), _) => 0,
        }
    };
    call(returned)
}

/// Records the text of /proc/self/maps, with its length in front.
fn maps(out: Records) {
    // SAFETY: the path ends in a zero.
    let fd = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let length = out.room(8);
    out.word(0);
    let mut all = 0;
    loop {
        let chunk = out.room(CHUNK);
        // SAFETY: there is room for that much.
        let Ok(read) = usize::try_from(unsafe { libc::read(fd, chunk.cast(), CHUNK) }) else {
            leave(NO_MAPS)
        };
        if read == 0 {
            break;
        }
        out.keep(read);
        all += read as u64;
    }
    // SAFETY: the eight bytes recorded above; the descriptor is closed once.
    unsafe {
        length.cast::<u64>().write_unaligned(all);
        libc::close(fd);
    }
}

/// Reads a record.
fn read(mut record: &[u8], count: usize) -> Result<Places, SubjectError> {
    let short = || SubjectError::Record("it ends too early".to_owned());
    let mut word = || -> Result<u64, SubjectError> {
        let (word, rest) = record.split_first_chunk::<8>().ok_or_else(short)?;
        record = rest;
        Ok(u64::from_ne_bytes(*word))
    };
    let first = word()?;
    let length = usize::try_from(word()?).map_err(|_| short())?;
    let (text, rest) = record.split_at_checked(length).ok_or_else(short)?;
    let begun = String::from_utf8_lossy(text).lines().filter_map(region).collect();
    let words = rest.chunks_exact(8).filter_map(|word| word.first_chunk::<8>());
    let given: Vec<_> = words.map(|word| u64::from_ne_bytes(*word)).collect();
    if given.len() != count {
        return Err(short());
    }
    // An error's number is below a page, and so is no address.
    let given = given.into_iter().map(|word| match word.wrapping_neg() {
        errno @ 1..PAGE => Err(errno),
        _ => Ok(word),
    });
    Ok(Places { begun, first, given: given.collect() })
}

/// A line of maps; nothing for what lies in the kernel's half.
fn region(line: &str) -> Option<Begun> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok().filter(|&at| at < 1 << 47);
    Some((number(start)?, number(end)?, line.ends_with("[stack]")))
}
