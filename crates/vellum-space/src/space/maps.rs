//! `/proc/PID/maps`, byte for byte.
//!
//! ```text
//!   00400000-00452000 r-xp 00000000 08:02 173521                             /usr/bin/dbus-daemon
//!   |start   |end     |rights, p(rivate) or s(hared)                         ^ column 73
//!                          |offset  |device |inode
//! ```
//!
//! Source: Linux, fs/proc/task_mmu.c (`show_map_vma`), Documentation/filesystems/proc.rst.

use super::AddressSpace;
use super::parts::Parts;
use super::regions::Found;
use crate::vma::{VmFlags, Vma};
use core::fmt::{self, Write};
use lock_api::RawRwLock;
use vellum_cache::{FileLabel, Files};
use vellum_core::PAGE_SHIFT;
use vellum_fault::{Backing, System};

/// Where names begin.
const NAME_COLUMN: usize = 73;

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Writes a line for each region, as `/proc/PID/maps` has it.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_maps(&self, to: &mut dyn Write) -> fmt::Result {
        let parts = self.parts.read();
        let mut from = 0;
        while let Some(found) = parts.next(from) {
            parts.write_line(&found, to)?;
            from = found.end;
        }
        Ok(())
    }
}

impl<S: System> Parts<'_, S> {
    /// One region's line, with its end.
    pub(super) fn write_line(&self, found: &Found, to: &mut dyn Write) -> fmt::Result {
        let Found { start, end, vma } = found;
        let letter = |flag, letter| if vma.flags.contains(flag) { letter } else { '-' };
        let sharing = if vma.flags.contains(VmFlags::MAYSHARE) { 's' } else { 'p' };
        let (label, offset) = match vma.backing {
            Backing::File(file) => (self.files().label(file), vma.index << PAGE_SHIFT),
            _ => (FileLabel::default(), 0),
        };
        let FileLabel { major, minor, inode } = label;
        let mut line = Counted { to, column: 0 };
        write!(
            line,
            "{start:08x}-{end:08x} {}{}{}{sharing} {offset:08x} {major:02x}:{minor:02x} {inode}",
            letter(VmFlags::READ, 'r'),
            letter(VmFlags::WRITE, 'w'),
            letter(VmFlags::EXEC, 'x'),
        )?;
        line.write_char(' ')?;
        let mut name = Name { line, is_begun: false };
        self.write_name(found, vma, &mut name)?;
        to.write_char('\n')
    }

    fn write_name(&self, found: &Found, vma: &Vma, to: &mut dyn Write) -> fmt::Result {
        match vma.backing {
            Backing::File(file) => self.files().write_name(file, to),
            Backing::Hook(number) => self.files().write_hook_name(number, to),
            Backing::Anon if found.start < self.brk && found.end > self.layout.heap => {
                to.write_str("[heap]")
            }
            Backing::Anon if found.start <= self.layout.stack && self.layout.stack <= found.end => {
                to.write_str("[stack]")
            }
            Backing::Anon => Ok(()),
        }
    }
}

/// Counts what is written.
struct Counted<'a> {
    to: &'a mut dyn Write,
    column: usize,
}

impl Write for Counted<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.column += s.len();
        self.to.write_str(s)
    }
}

/// A name, before which the line is filled with spaces, at least one: only if there is one. It stays in
/// its line, whatever its file is called.
struct Name<'a> {
    line: Counted<'a>,
    is_begun: bool,
}

impl Write for Name<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if s.is_empty() {
            return Ok(());
        }
        if !self.is_begun {
            while self.line.column + 1 < NAME_COLUMN {
                self.line.write_char(' ')?;
            }
            self.line.write_char(' ')?;
            self.is_begun = true;
        }
        for (i, part) in s.split('\n').enumerate() {
            if i > 0 {
                self.line.write_str("\\012")?;
            }
            self.line.write_str(part)?;
        }
        Ok(())
    }
}
