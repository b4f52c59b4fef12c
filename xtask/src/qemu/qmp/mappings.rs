//! What the image says of its tables, held to what QEMU's own walker says.
//!
//! ```text
//!   serial line                                                   must equal
//!   qmp seed 0x1234                                               (to repeat the run)
//!   qmp leaf VA: PA XGPDACTUW SIZE RIGHTS TYPE                    a line of `info tlb`: VA: PA ...
//!            all of them, neighbours with the same rights joined  the lines of `info mem`
//!   qmp at VA PA | qmp at VA none                                 `gva2gpa VA`
//!   qmp ready MAPPINGS LEAVES                                     now; then `o /b 0x3ff 0x5a`
//! ```
//!
//! Source: QEMU 7.2, `target/i386/monitor.c`, `monitor/hmp-cmds.c`.

use super::Monitor;
use core::fmt::Write;

/// How many random mappings an image has to have.
const MAPPINGS: usize = 1000;

/// The monitor's command that lets the image go on: its scratch register, and what it waits for.
const GO_ON: &str = "o /b 0x3ff 0x5a";

/// Collects the image's lines, asks QEMU, and says what came of it.
pub(crate) struct Mappings {
    levels: u8,
    /// How many random mappings there have to be.
    least: usize,
    seed: String,
    leaves: Vec<Leaf>,
    /// An address, and where that is in memory.
    at: Vec<(u64, Option<u64>)>,
    /// A line that is none of the above.
    bad_line: Option<String>,
    is_equal: Option<bool>,
}

/// A leaf, as the image prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    va: u64,
    /// The part that `info tlb` has too.
    shown: String,
    len: u64,
    /// Of `info mem`: whether for user mode, whether writable.
    rights: (bool, bool),
}

/// A line of `info mem`: first address, bytes, rights.
type Range = (u64, u64, (bool, bool));

impl Mappings {
    /// Nothing heard yet from an image with this many levels.
    pub(crate) fn new(levels: u8) -> Self {
        let (seed, leaves, at) = (String::new(), Vec::new(), Vec::new());
        let least = MAPPINGS;
        Self { levels, least, seed, leaves, at, bad_line: None, is_equal: None }
    }

    /// Takes a line of the serial port, if it is one of these; at the last, compares.
    pub(crate) fn take(&mut self, line: &str, monitor: &mut Monitor) -> bool {
        let Some(line) = line.strip_prefix("qmp ") else { return false };
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let is_known = match kind {
            "seed" => {
                rest.clone_into(&mut self.seed);
                true
            }
            "leaf" => leaf(rest).map(|leaf| self.leaves.push(leaf)).is_some(),
            "at" => at(rest).map(|at| self.at.push(at)).is_some(),
            "ready" => {
                self.conclude(rest, monitor);
                true
            }
            _ => false,
        };
        if !is_known {
            self.bad_line = Some(line.to_owned());
        }
        true
    }

    /// Whether all that was there to compare was equal.
    pub(crate) fn are_equal(&self) -> bool {
        if self.is_equal.is_none() {
            say!("qmp {} levels: FAILED: the image never said what it has", self.levels);
        }
        self.is_equal == Some(true)
    }

    fn conclude(&mut self, stated: &str, monitor: &mut Monitor) {
        let compared = self.compare(stated, monitor);
        // Whatever came of it: the image is to end by itself.
        let released = monitor.ask(GO_ON).map_err(|stop| stop.message);
        let verdict = compared.and_then(|words| released.map(|_| words));
        self.is_equal = Some(verdict.is_ok());
        let words = verdict.unwrap_or_else(|why| format!("FAILED (seed {}): {why}", self.seed));
        say!("qmp {} levels: {words}", self.levels);
    }

    /// In words: how much is equal, or what is not.
    fn compare(&self, stated: &str, monitor: &mut Monitor) -> Result<String, String> {
        if let Some(line) = &self.bad_line {
            return Err(format!("the image said {line:?}"));
        }
        let numbers: Vec<usize> = stated.split(' ').filter_map(|n| n.parse().ok()).collect();
        let &[mappings, leaves] = &numbers[..] else {
            return Err(format!("the image is ready with {stated:?}"));
        };
        if mappings < self.least || leaves < mappings || leaves != self.leaves.len() {
            let heard = self.leaves.len();
            return Err(format!("{mappings} mappings, {leaves} leaves, {heard} leaves heard of"));
        }
        let mut ask = |line: &str| monitor.ask(line).map_err(|stop| stop.message);
        equal_lines(&self.leaves, &ask("info tlb")?)?;
        let mut translated = 0;
        for &(va, pa) in &self.at {
            let answer = ask(&format!("gva2gpa {va:#x}"))?;
            if gpa(&answer) != Some(pa) {
                let ours = pa.map_or("nowhere".to_owned(), |pa| format!("{pa:#x}"));
                let theirs = answer.trim();
                return Err(format!("the image has {va:#x} at {ours}, QEMU says {theirs:?}"));
            }
            translated += usize::from(pa.is_some());
        }
        if translated < leaves {
            return Err(format!("only {translated} of {leaves} leaves were translated"));
        }
        let mut words = format!(
            "{} mappings equal: {} leaves of `info tlb`, {} addresses by `gva2gpa`",
            thousands(mappings),
            thousands(leaves),
            thousands(self.at.len())
        );
        // With 5 levels, QEMU 7.2 has the test for a present entry the wrong way round on two
        // levels of `info mem` (mem_info_la57): it follows what is absent, and prints nothing.
        if self.levels == 4 {
            let ranges = equal_ranges(&self.leaves, &ask("info mem")?)?;
            let _ = write!(words, ", {} ranges of `info mem`", thousands(ranges));
        }
        Ok(words)
    }
}

/// `VA: PA FLAGS SIZE RIGHTS TYPE`.
fn leaf(line: &str) -> Option<Leaf> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[va, pa, flags, size, rights, _] = &words[..] else { return None };
    let shown = format!("{va} {pa} {flags}");
    let va = hex(va.strip_suffix(':')?)?;
    hex(pa)?;
    let (number, unit) = size.split_at_checked(size.len().checked_sub(1)?)?;
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    let len = number.parse::<u64>().ok()? << shift;
    let rights = (rights.contains('u'), rights.contains('w'));
    Some(Leaf { va, shown, len, rights })
}

/// `VA PA` or `VA none`.
fn at(line: &str) -> Option<(u64, Option<u64>)> {
    let (va, pa) = line.split_once(' ')?;
    Some((hex(va)?, if pa == "none" { None } else { Some(hex(pa)?) }))
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// What `gva2gpa` says: an address, or that there is none.
fn gpa(answer: &str) -> Option<Option<u64>> {
    match answer.trim() {
        "Unmapped" => Some(None),
        found => hex(found.strip_prefix("gpa: ")?.trim_start_matches("0x")).map(Some),
    }
}

/// Each leaf and each line of `info tlb`, in the same order.
fn equal_lines(leaves: &[Leaf], info_tlb: &str) -> Result<(), String> {
    let mut theirs = info_tlb.lines();
    for leaf in leaves {
        let line = theirs.next().unwrap_or("no more");
        if line.trim_end() != leaf.shown {
            return Err(format!("the image has {:?}, QEMU has {line:?}", leaf.shown));
        }
    }
    match theirs.next() {
        None => Ok(()),
        Some(line) => Err(format!("the image has no more, QEMU has {line:?}")),
    }
}

/// The leaves joined by rights, and the lines of `info mem`: how many, if they are the same.
fn equal_ranges(leaves: &[Leaf], info_mem: &str) -> Result<usize, String> {
    let ours = joined(leaves);
    let mut theirs = info_mem.lines();
    for range in &ours {
        let line = theirs.next().unwrap_or("no more");
        if mem_range(line).as_ref() != Some(range) {
            let (va, len, (user, write)) = range;
            let user = if *user { 'u' } else { '-' };
            let write = if *write { 'w' } else { '-' };
            let range = format!("{len:#x} bytes from {va:#x}, {user}r{write}");
            return Err(format!("the image has {range}, QEMU has {line:?}"));
        }
    }
    match theirs.next() {
        None => Ok(ours.len()),
        Some(line) => Err(format!("the image has no more ranges, QEMU has {line:?}")),
    }
}

/// Neighbours with the same rights as one range, wherever their memory is.
fn joined(leaves: &[Leaf]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for leaf in leaves {
        match ranges.last_mut() {
            // QEMU counts in 48 bits: the halves touch.
            Some((va, len, rights))
                if *rights == leaf.rights && low(*va + *len) == low(leaf.va) =>
            {
                *len += leaf.len;
            }
            _ => ranges.push((leaf.va, leaf.len, leaf.rights)),
        }
    }
    ranges
}

/// The bits of an address that 4 levels translate.
fn low(va: u64) -> u64 {
    va & ((1 << 48) - 1)
}

/// `START-END LENGTH urw`.
fn mem_range(line: &str) -> Option<Range> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[range, len, rights] = &words[..] else { return None };
    let (start, _) = range.split_once('-')?;
    Some((hex(start)?, hex(len)?, (rights.starts_with('u'), rights.ends_with('w'))))
}

/// The number with a comma for every three digits.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::canned;
    use super::*;

    const TLB: &str = "\
0000000000400000: 0000000000007000 X---A--UW
0000000000401000: 0000000000003000 X---A--UW
ffff800000000000: 0000000040000000 -GP-----W
";
    const MEM: &str = "\
0000000000400000-0000000000402000 0000000000002000 ur-
ffff800000000000-ffff800040000000 0000000040000000 -rw
";
    const LINES: [&str; 7] = [
        "leaf 0000000000400000: 0000000000007000 X---A--UW   4K r--u- WB",
        "at 0000000000400123 0000000000007123",
        "leaf 0000000000401000: 0000000000003000 X---A--UW   4K r--u- UC-",
        "at 0000000000401fff 0000000000003fff",
        "at 0000000000402000 none",
        "leaf ffff800000000000: 0000000040000000 -GP-----W   1G rwx-g WB",
        "at ffff800000000007 0000000040000007",
    ];

    /// What QEMU answers, as asked.
    const ANSWERS: [&str; 6] =
        [TLB, "gpa: 0x7123\n", "gpa: 0x3fff\n", "Unmapped\n", "gpa: 0x40000007\n", MEM];

    /// What comes of these lines, when QEMU answers so.
    fn compared(levels: u8, lines: &[&str], answers: &[&str]) -> Result<String, String> {
        let mut mappings = Mappings { least: 2, ..Mappings::new(levels) };
        let mut monitor = canned(answers);
        for line in lines {
            assert!(mappings.take(&format!("qmp {line}"), &mut monitor));
        }
        mappings.compare("2 3", &mut monitor)
    }

    #[test]
    fn what_is_equal_is_counted() {
        let words = compared(4, &LINES, &ANSWERS).unwrap();
        let expected = "2 mappings equal: 3 leaves of `info tlb`, 4 addresses by `gva2gpa`, \
                        2 ranges of `info mem`";
        assert_eq!(words, expected);
        let words = compared(5, &LINES, &ANSWERS[..5]).unwrap();
        assert!(!words.contains("info mem"), "{words}");
    }

    #[test]
    fn every_difference_is_named() {
        let differences = [
            (0, TLB.replace("X---A", "X--DA"), "X--DA--UW"),
            (0, TLB.replace("7000", "8000"), "0000000000008000"),
            (0, TLB.lines().take(2).collect::<Vec<_>>().join("\n"), "no more"),
            (0, format!("{TLB}ffffffff80000000: 0000000000000000 ---------"), "ffffffff80000000"),
            (1, "gpa: 0x7124".to_owned(), "gpa: 0x7124"),
            (2, "Unmapped".to_owned(), "Unmapped"),
            (3, "gpa: 0".to_owned(), "nowhere"),
            (5, MEM.replace("ur-", "urw"), "urw"),
            (5, MEM.replace("0000000000002000 ur", "0000000000003000 ur"), "3000 ur-"),
            (5, MEM.lines().take(1).collect(), "no more"),
            (5, format!("{MEM}ffff900000000000-ffff900000001000 0000000000001000 -r-"), "ffff9"),
        ];
        for (at, answer, named) in differences {
            let mut answers = ANSWERS;
            answers[at] = &answer;
            let why = compared(4, &LINES, &answers).unwrap_err();
            assert!(why.contains(named), "{why} does not name {named}");
        }
    }

    #[test]
    fn an_image_that_says_too_little_fails() {
        let less = |without: usize| {
            let mut lines = LINES.to_vec();
            lines.remove(without);
            compared(4, &lines, &ANSWERS)
        };
        assert!(less(2).unwrap_err().contains("2 leaves heard of"));
        assert!(less(6).is_err());
        let mut odd = LINES.to_vec();
        odd.push("leaf what");
        assert!(compared(4, &odd, &ANSWERS).unwrap_err().contains("leaf what"));
        let mut real = Mappings::new(4);
        assert!(real.compare("2 3", &mut canned(ANSWERS)).is_err());
        assert!(!real.take("test a ... ok", &mut canned(ANSWERS)));
        assert!(!real.are_equal());
    }

    #[test]
    fn the_halves_of_four_levels_touch() {
        let leaf = |va| Leaf { va, shown: String::new(), len: 0x1000, rights: (true, false) };
        let touching = [leaf(0x7fff_ffff_f000), leaf(0xffff_8000 << 32)];
        assert_eq!(joined(&touching), [(0x7fff_ffff_f000, 0x2000, (true, false))]);
        let apart = [leaf(0x7fff_ffff_e000), leaf(0xffff_8000 << 32)];
        assert_eq!(joined(&apart).len(), 2);
    }

    #[test]
    fn numbers_are_written_in_threes() {
        let written: Vec<String> = [0, 999, 1000, 1_234_567].map(thousands).into();
        assert_eq!(written, ["0", "999", "1,000", "1,234,567"]);
    }
}
