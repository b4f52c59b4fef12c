//! The text that `valgrind --tool=lackey --trace-mem=yes` prints.
//!
//! ```text
//!   ==2184== Lackey, an example Valgrind tool      skipped: valgrind's own, as are
//!   --2184-- WARNING: unhandled syscall: 334           its warnings, and
//!   **2184** printed by a client request               what the program has it print
//!   I  04001090,3                                  fetch of 3 bytes
//!    L 1ffefff2d8,8                                load
//!    S 1ffefff2d0,8                                store
//!    M 0421c7cc,4                                  load, then store
//! ```
//!
//! An access that straddles pages touches each of them, lowest first. Consecutive references to
//! one page are thinned out as in the other format (see `filter.rs`).
//!
//! # Invariants
//!
//! - At a fault the input stands at the first byte of the line at fault.
//!
//! Source: Valgrind manual, 13.2.4 "Lackey: Memory trace".

use super::filter::Filter;
use super::input::Input;
use super::{Event, Kind, TraceFault};
use std::collections::VecDeque;
use vellum_core::{VirtAddr, Vpn};

/// Longest line that is looked at; those that valgrind itself prints may be longer and are skipped.
const LONGEST_LINE: usize = 256;

/// Largest access; the widest that x86 programs make (XSAVE) is a few KiB.
const LARGEST_ACCESS: u64 = 1 << 16;

/// The events of the current line that were not handed out yet.
#[derive(Debug, Default)]
pub(super) struct Lackey {
    filter: Filter,
    pending: VecDeque<Event>,
}

impl Lackey {
    /// Whether a text of lackey's may begin with these bytes.
    pub(super) fn could_start_with(start: &[u8]) -> bool {
        let access = [b"I  ", b" L ", b" S ", b" M "].iter().any(|&p| start.starts_with(p));
        access || is_valgrinds_own(start)
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, TraceFault> {
        loop {
            while let Some(event) = self.pending.pop_front() {
                if self.filter.keep(event) {
                    return Ok(Some(event));
                }
            }
            if !self.read_line(input)? {
                return Ok(None);
            }
        }
    }

    /// Turns one line into events; `false` at the end of the text.
    fn read_line(&mut self, input: &mut Input<'_>) -> Result<bool, TraceFault> {
        let ahead = input.peek(LONGEST_LINE)?;
        if ahead.is_empty() {
            return Ok(false);
        }
        if is_valgrinds_own(ahead) {
            skip_line(input)?;
            return Ok(true);
        }
        let (line, len) = match ahead.iter().position(|&b| b == b'\n') {
            Some(end) => (&ahead[..end], end + 1),
            None if ahead.len() < LONGEST_LINE => (ahead, ahead.len()),
            None => return Err(TraceFault::Line),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            let (kinds, first, last) = parse(line).ok_or(TraceFault::Line)?;
            for &kind in kinds {
                let pages = first.as_u64()..=last.as_u64();
                self.pending.extend(pages.filter_map(Vpn::new).map(|page| Event::new(page, kind)));
            }
        }
        input.skip(len);
        Ok(true)
    }
}

/// Whether a line that begins so is valgrind's own: a mark twice, then the process or the time.
fn is_valgrinds_own(line: &[u8]) -> bool {
    let marked = [b"==", b"--", b"**"].iter().find_map(|&mark| line.strip_prefix(mark));
    marked.is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
}

/// Kinds of access, and first and last page, of a line.
fn parse(line: &[u8]) -> Option<(&'static [Kind], Vpn, Vpn)> {
    let (kinds, rest): (&[Kind], _) = match line.split_at_checked(3)? {
        (b"I  ", rest) => (&[Kind::Fetch], rest),
        (b" L ", rest) => (&[Kind::Read], rest),
        (b" S ", rest) => (&[Kind::Write], rest),
        (b" M ", rest) => (&[Kind::Read, Kind::Write], rest),
        _ => return None,
    };
    let (address, size) = core::str::from_utf8(rest).ok()?.split_once(',')?;
    let first = VirtAddr::new(number(address, 16)?);
    let size = number(size, 10).filter(|size| (1..=LARGEST_ACCESS).contains(size))?;
    let last = first.checked_add(size - 1)?;
    Some((kinds, first.number(), last.number()))
}

/// A number of digits alone: the standard parser would take a sign as well.
fn number(text: &str, radix: u32) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_alphanumeric());
    digits.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

fn skip_line(input: &mut Input<'_>) -> Result<(), TraceFault> {
    loop {
        let ahead = input.ahead();
        if let Some(end) = ahead.iter().position(|&b| b == b'\n') {
            input.skip(end + 1);
            return Ok(());
        }
        input.skip(ahead.len());
        if !input.read_more()? {
            return Ok(());
        }
    }
}
