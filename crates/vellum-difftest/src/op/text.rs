//! The text of an operation and of a sequence, and how it is read.
//!
//! ```text
//!   # a comment
//!   arena 64                                     pages; may be left out
//!   heap                                         the arena is where brk grows
//!   mmap 0 4 r|w private|anon|fixed              at page 0, 4 pages
//!   mmap 4 2 r shared|fixed file 3               from page 3 of the file; fileR and fileW are
//!   munmap 1+7 1                                 descriptors for one of both; at page 1, byte 7
//!   munmap @0x7ffffffff000 1                     an address as it is
//!   mremap 0 4 8 maymove|fixed 20
//!   madvise 0 4 dontneed
//!   write 3+100 7
//! ```
//!
//! Lengths, offsets and addresses are in pages, with bytes behind a plus; what is vast is in
//! hexadecimal. Bits without a name are, too. What follows ` = ` and lines that begin with `!` are
//! expectations, of [`expect`](crate::expect).

use super::{ARENA_PAGES, Access, Op, Place, Resource, Sequence, Source};
use crate::abi::{self, Names, PAGE};
use core::fmt;

/// Bytes as pages and the rest.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

/// Source where on lengths are written in hexadecimal.
const VAST: u64 = 1 << 40;

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / PAGE, self.0 % PAGE) {
            _ if self.0 >= VAST => write!(f, "{:#x}", self.0),
            (pages, 0) => write!(f, "{pages}"),
            (pages, bytes) => write!(f, "{pages}+{bytes}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = PAGE.cast_signed();
        match *self {
            Self::Absolute(address) => write!(f, "@{address:#x}"),
            Self::Arena(at) if at >= 0 => Bytes(at.cast_unsigned()).fmt(f),
            Self::Arena(at) => match at.rem_euclid(page) {
                0 => write!(f, "{}", at.div_euclid(page)),
                bytes => write!(f, "{}+{bytes}", at.div_euclid(page)),
            },
        }
    }
}

/// Bits by their names.
#[derive(Clone, Copy, Debug)]
pub struct Bits(pub Names, pub u64);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.1;
        let mut between = "";
        for &(name, bits) in self.0 {
            if rest & bits == bits {
                write!(f, "{between}{name}")?;
                rest &= !bits;
                between = "|";
            }
        }
        match (rest, between) {
            (0, "") => f.write_str("0"),
            (0, _) => Ok(()),
            _ => write!(f, "{between}{rest:#x}"),
        }
    }
}

/// One value by its name.
#[derive(Clone, Copy, Debug)]
struct Value(Names, u64);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match abi::name(self.0, self.1) {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.1),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing => Ok(()),
            Self::File(Access::ReadWrite, offset) => write!(f, " file {}", Bytes(offset)),
            Self::File(Access::Read, offset) => write!(f, " fileR {}", Bytes(offset)),
            Self::File(Access::Write, offset) => write!(f, " fileW {}", Bytes(offset)),
            Self::Bad => f.write_str(" bad"),
        }
    }
}

const RESOURCES: [(&str, Resource); 4] = [
    ("as", Resource::AddressSpace),
    ("data", Resource::Data),
    ("memlock", Resource::Locked),
    ("stack", Resource::Stack),
];

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = RESOURCES.iter().find(|(_, known)| known == self).map_or("", |&(name, _)| name);
        f.write_str(name)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Map { at, len, prot, flags, from } => {
                let (prot, flags) = (Bits(abi::PROT, prot), Bits(abi::MAP, flags));
                write!(f, "mmap {at} {} {prot} {flags}{from}", Bytes(len))
            }
            Self::Unmap { at, len } => write!(f, "munmap {at} {}", Bytes(len)),
            Self::Protect { at, len, prot } => {
                write!(f, "mprotect {at} {} {}", Bytes(len), Bits(abi::PROT, prot))
            }
            Self::Remap { at, old_len, new_len, flags, to } => {
                let flags = Bits(abi::MREMAP, flags);
                write!(f, "mremap {at} {} {} {flags} {to}", Bytes(old_len), Bytes(new_len))
            }
            Self::Advise { at, len, advice } => {
                write!(f, "madvise {at} {} {}", Bytes(len), Value(abi::ADVICE, advice))
            }
            Self::Lock { at, len } => write!(f, "mlock {at} {}", Bytes(len)),
            Self::Lock2 { at, len, flags } => {
                write!(f, "mlock2 {at} {} {}", Bytes(len), Bits(abi::MLOCK, flags))
            }
            Self::Unlock { at, len } => write!(f, "munlock {at} {}", Bytes(len)),
            Self::LockAll { flags } => write!(f, "mlockall {}", Bits(abi::MLOCKALL, flags)),
            Self::UnlockAll => f.write_str("munlockall"),
            Self::Sync { at, len, flags } => {
                write!(f, "msync {at} {} {}", Bytes(len), Bits(abi::MSYNC, flags))
            }
            Self::InCore { at, len } => write!(f, "mincore {at} {}", Bytes(len)),
            Self::Seal { at, len, flags } => write!(f, "mseal {at} {} {flags:#x}", Bytes(len)),
            Self::Read { at } => write!(f, "read {at}"),
            Self::Write { at, value } => write!(f, "write {at} {value}"),
            Self::Scan { at, len } => write!(f, "scan {at} {}", Bytes(len)),
            Self::Fill { at, len, value } => write!(f, "fill {at} {} {value}", Bytes(len)),
            Self::Truncate { len } => write!(f, "ftruncate {}", Bytes(len)),
            Self::FileWrite { offset, len, value } => {
                write!(f, "pwrite {} {} {value}", Bytes(offset), Bytes(len))
            }
            Self::FileRead { offset, len } => write!(f, "pread {} {}", Bytes(offset), Bytes(len)),
            Self::Fork => f.write_str("fork"),
            Self::ForkProbe => f.write_str("fork-probe"),
            Self::Break { to } => write!(f, "brk {}", Bytes(to)),
            Self::Limit { what, pages } => write!(f, "rlimit {what} {pages}"),
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pages != ARENA_PAGES {
            writeln!(f, "arena {}", self.pages)?;
        }
        if self.heap {
            writeln!(f, "heap")?;
        }
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

/// Words of a line, taken from the left.
struct Words<'a>(core::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn bytes(&mut self, what: &str) -> Result<u64, String> {
        bytes(self.word(what)?).ok_or_else(|| format!("{what} is not a number of pages and bytes"))
    }

    fn place(&mut self) -> Result<Place, String> {
        let word = self.word("the address")?;
        place(word).ok_or_else(|| format!("`{word}` is not an address"))
    }

    fn bits(&mut self, names: Names, what: &str) -> Result<u64, String> {
        let word = self.word(what)?;
        word.split('|').try_fold(0, |bits, name| Ok(bits | value(names, name, what)?))
    }

    fn value(&mut self, names: Names, what: &str) -> Result<u64, String> {
        value(names, self.word(what)?, what)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.word("the value")?.parse().map_err(|_| "the value is not a byte".to_owned())
    }

    fn from(&mut self) -> Result<Source, String> {
        let access = match self.0.next() {
            None => return Ok(Source::Nothing),
            Some("bad") => return Ok(Source::Bad),
            Some("file") => Access::ReadWrite,
            Some("fileR") => Access::Read,
            Some("fileW") => Access::Write,
            Some(word) => return Err(format!("`{word}` is not file, fileR, fileW or bad")),
        };
        Ok(Source::File(access, self.bytes("the file's offset")?))
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn value(names: Names, name: &str, what: &str) -> Result<u64, String> {
    abi::value(names, name).or_else(|| number(name)).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|&(known, _)| known).collect();
        format!("`{name}` is not a name of {what}; they are {}", names.join(", "))
    })
}

/// Pages and bytes, or bytes in hexadecimal.
fn bytes(word: &str) -> Option<u64> {
    if word.starts_with("0x") {
        return number(word);
    }
    let (pages, bytes) = word.split_once('+').unwrap_or((word, "0"));
    let (pages, bytes): (u64, u64) = (pages.parse().ok()?, bytes.parse().ok()?);
    pages.checked_mul(PAGE)?.checked_add(bytes)
}

fn place(word: &str) -> Option<Place> {
    if let Some(address) = word.strip_prefix('@') {
        return Some(Place::Absolute(number(address)?));
    }
    let (pages, bytes) = word.split_once('+').unwrap_or((word, "0"));
    let (pages, bytes): (i64, i64) = (pages.parse().ok()?, bytes.parse().ok()?);
    Some(Place::Arena(pages.checked_mul(PAGE.cast_signed())?.checked_add(bytes)?))
}

impl core::str::FromStr for Op {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = Words(line.split_whitespace());
        let op = operation(&mut words)?;
        match words.0.next() {
            None => Ok(op),
            Some(word) => Err(format!("`{word}` is one word too many")),
        }
    }
}

fn operation(words: &mut Words<'_>) -> Result<Op, String> {
    let name = words.word("an operation")?;
    // Those that do not begin with an address.
    match name {
        "mlockall" => return Ok(Op::LockAll { flags: words.bits(abi::MLOCKALL, "mlockall")? }),
        "munlockall" => return Ok(Op::UnlockAll),
        "ftruncate" => return Ok(Op::Truncate { len: words.bytes("the length")? }),
        "fork" => return Ok(Op::Fork),
        "fork-probe" => return Ok(Op::ForkProbe),
        "brk" => return Ok(Op::Break { to: words.bytes("the end")? }),
        "rlimit" => return limit(words),
        "pwrite" | "pread" => {
            let (offset, len) = (words.bytes("the offset")?, words.bytes("the length")?);
            return Ok(match name {
                "pread" => Op::FileRead { offset, len },
                _ => Op::FileWrite { offset, len, value: words.byte()? },
            });
        }
        _ => {}
    }
    let at = words.place()?;
    match name {
        "read" => return Ok(Op::Read { at }),
        "write" => return Ok(Op::Write { at, value: words.byte()? }),
        _ => {}
    }
    let len = words.bytes("the length")?;
    Ok(match name {
        "mmap" => Op::Map {
            at,
            len,
            prot: words.bits(abi::PROT, "a protection")?,
            flags: words.bits(abi::MAP, "a flag")?,
            from: words.from()?,
        },
        "munmap" => Op::Unmap { at, len },
        "mprotect" => Op::Protect { at, len, prot: words.bits(abi::PROT, "a protection")? },
        "mremap" => Op::Remap {
            at,
            old_len: len,
            new_len: words.bytes("the new length")?,
            flags: words.bits(abi::MREMAP, "a flag")?,
            to: words.place()?,
        },
        "madvise" => Op::Advise { at, len, advice: words.value(abi::ADVICE, "advice")? },
        "mlock" => Op::Lock { at, len },
        "mlock2" => Op::Lock2 { at, len, flags: words.bits(abi::MLOCK, "a flag")? },
        "munlock" => Op::Unlock { at, len },
        "msync" => Op::Sync { at, len, flags: words.bits(abi::MSYNC, "a flag")? },
        "mincore" => Op::InCore { at, len },
        "mseal" => Op::Seal { at, len, flags: words.bits(&[], "a flag")? },
        "scan" => Op::Scan { at, len },
        "fill" => Op::Fill { at, len, value: words.byte()? },
        _ => return Err(format!("`{name}` is not an operation")),
    })
}

fn limit(words: &mut Words<'_>) -> Result<Op, String> {
    let name = words.word("a resource")?;
    let what = RESOURCES.iter().find(|(known, _)| *known == name);
    let (_, what) = *what.ok_or_else(|| format!("`{name}` is not as, data, memlock or stack"))?;
    let pages = words.word("the limit")?.parse().map_err(|_| "the limit is not a number of pages");
    Ok(Op::Limit { what, pages: pages? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_back_as_itself() {
        for line in [
            "mmap 0 4 r|w private|anon|fixed",
            "mmap -3+4095 0+1 0 shared_validate|0x80000000 fileR 3+7",
            "mmap @0x7ffffffff000 0xffffffffffffffff r droppable|anon bad",
            "munmap 5 2",
            "mprotect 5 2 r|growsdown",
            "mremap 5 2 9 maymove|fixed 20",
            "madvise 5 2 guard_install",
            "madvise 5 2 0x63",
            "mlock 1 2",
            "mlock2 1 2 onfault|0x2",
            "munlock 1 2",
            "mlockall future|onfault",
            "munlockall",
            "msync 0 1 async|sync",
            "mincore 0+1 1",
            "mseal 0 1 0x0",
            "read 3+100",
            "write 3+100 7",
            "scan 0 9",
            "fill 0 9 200",
            "ftruncate 0+100",
            "pwrite 1 1 9",
            "pread 1 1",
            "fork",
            "fork-probe",
            "brk 5+1",
            "rlimit stack 10",
        ] {
            let op: Op = line.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(op.to_string(), line);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (line, says) in [
            ("", "an operation"),
            ("mmap 0", "length"),
            ("mmap 0 1 r private x", "`x`"),
            ("frobnicate 0 1", "`frobnicate`"),
            ("madvise 0 1 please", "`please`"),
            ("munmap 0 1 1", "too many"),
            ("rlimit cpu 3", "`cpu`"),
        ] {
            let error = line.parse::<Op>().expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
