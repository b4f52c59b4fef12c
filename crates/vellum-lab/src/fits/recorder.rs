//! Records how large the processes of a command are, and when they live.
//!
//! ```text
//!   COMMAND ----+---- make ----+---- cc ---- ...       /proc/PID/stat      parent, text, data
//!               |              +---- cc ---- ...       /proc/PID/status    most resident (VmHWM)
//!               +---- sh ---- ...                         read every few milliseconds
//! ```
//!
//! A process is followed from the sample that shows it first to the one that shows it last; what
//! lives for less than the time between two samples is missed. When it executes another program its
//! memory is a new one, and so a new line of the stream. Only descendants of the command are looked
//! at, and nothing but sizes and times is kept.
//!
//! A process counts with the most memory that was ever resident, libraries included, which other
//! processes may share: nobody shares what lies in one piece. Its text and its initialised data count
//! whole, though a system that loads on demand may never have read all of them, and are known to the
//! byte; the rest the kernel counts in pages.
//!
//! Source: proc(5), `/proc/pid/stat` and `/proc/pid/status`.

use super::stream::{Process, Segments};
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::process::{Command, ExitStatus};
use std::time::Instant;
use vellum_core::PAGE_SIZE;

/// What tells one memory from another: process, its start, and where its program was loaded.
type Key = (u32, u64, u64);

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    pid: u32,
    parent: u32,
    started: u64,
    code: (u64, u64),
    data: (u64, u64),
}

impl Look {
    /// The text of `/proc/PID/stat`, whose second field may contain anything.
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The manual counts from 1, and two are before the parenthesis.
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let parent = u32::try_from(field(4)?).ok()?;
        let (code, data) = ((field(26)?, field(27)?), (field(45)?, field(46)?));
        Some(Self { pid, parent, started: field(22)?, code, data })
    }

    const fn key(&self) -> Key {
        (self.pid, self.started, self.code.0)
    }

    fn segments(&self, resident: u64) -> Segments {
        let text = self.code.1.saturating_sub(self.code.0);
        let data = self.data.1.saturating_sub(self.data.0);
        let whole = [text, data].map(|n| n.next_multiple_of(PAGE_SIZE)).iter().sum();
        Segments::from_iter([text, data, resident.saturating_sub(whole)])
    }
}

/// The bytes after `VmHWM:`; none of a process that has ended and waits to be collected.
fn most_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A process that was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: u64,
    last: u64,
    segments: Segments,
}

/// What was seen by now.
#[derive(Debug, Default)]
struct Recorder {
    seen: HashMap<Key, Seen>,
    ours: HashSet<(u32, u64)>,
}

impl Recorder {
    /// One look at every process there is.
    fn sample(&mut self, root: u32, now: u64) -> io::Result<()> {
        let mut parents = HashSet::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // It may end at any time, and then there is nothing more to read.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let Some(look) = Look::parse(pid, &stat) else { continue };
            let is_ours = pid == root
                || parents.contains(&look.parent)
                || self.ours.contains(&(pid, look.started));
            if !is_ours {
                continue;
            }
            parents.insert(pid);
            self.ours.insert((pid, look.started));
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            // In the middle of executing another program there is no text yet.
            let resident = most_resident(&status).filter(|_| look.code.0 > 0);
            if let Some(resident) = resident {
                self.note(look.key(), look.segments(resident), now);
            }
        }
        Ok(())
    }

    fn note(&mut self, key: Key, segments: Segments, now: u64) {
        let seen = self.seen.entry(key).or_insert(Seen { first: now, last: now, segments });
        seen.last = now;
        if segments.bytes() > seen.segments.bytes() {
            seen.segments = segments;
        }
    }

    fn finish(self, every: u64) -> Vec<Process> {
        let process = |seen: &Seen| Process {
            arrival_ms: seen.first,
            lifetime_ms: seen.last - seen.first + every,
            segments: seen.segments,
        };
        let mut all: Vec<Process> = self.seen.values().map(process).collect();
        all.retain(|process| process.segments.bytes() > 0);
        all.sort_unstable_by_key(|p| (p.arrival_ms, p.lifetime_ms, p.segments.bytes()));
        all
    }
}

/// Runs a command to its end, and looks at it and its descendants every so many milliseconds.
///
/// # Errors
///
/// The system's, mostly because the command cannot be started or there is no `/proc`.
pub fn record(command: &mut Command, every_ms: u64) -> io::Result<(Vec<Process>, ExitStatus)> {
    // Without it nothing is started in vain.
    fs::metadata("/proc/self/stat")?;
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut recorder = Recorder::default();
    let every = Duration::from_millis(every_ms);
    let mut next = start;
    let status = loop {
        let now = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        recorder.sample(child.id(), now)?;
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // A sample that took too long does not make the next ones hurry.
        next = (next + every).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()).max(every / 4));
    };
    Ok((recorder.finish(every_ms), status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_from_behind_a_name_that_contains_anything() {
        let fields: Vec<String> = (3..=52).map(|n| (n * 1000).to_string()).collect();
        let stat = format!("17 (a) R 5 (b) {}\n", fields.join(" "));
        let look = Look::parse(17, &stat).unwrap();
        assert_eq!((look.pid, look.parent, look.started), (17, 4000, 22_000));
        assert_eq!((look.code, look.data), ((26_000, 27_000), (45_000, 46_000)));
        assert_eq!(Look::parse(17, "17 (a) R 5"), None);
        assert_eq!(Look::parse(17, ""), None);
    }

    #[test]
    fn the_rest_is_what_was_resident_beyond_text_and_data() {
        let look = |text: u64, data: u64| Look {
            pid: 1,
            parent: 1,
            started: 0,
            code: (0x1000, 0x1000 + text),
            data: (0x9000, 0x9000 + data),
        };
        let segments = |text, data, resident| look(text, data).segments(resident).to_string();
        assert_eq!(segments(5000, 100, 40_960), "5000+100+28672");
        assert_eq!(segments(5000, 0, 40_960), "5000+32768");
        assert_eq!(segments(90_000, 10, 40_960), "90000+10");
    }

    #[test]
    fn the_most_resident_is_in_kib() {
        assert_eq!(most_resident("Name:\tx\nVmHWM:\t    1234 kB\nVmRSS: 7 kB\n"), Some(1234 << 10));
        assert_eq!(most_resident("Name:\tx\nState:\tZ (zombie)\n"), None);
        assert_eq!(most_resident("VmHWM:\t18446744073709551615 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_command_and_what_it_starts_are_recorded() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.2 & sleep 0.3; wait"]);
        let (all, status) = record(&mut command, 5).unwrap();
        assert!(status.success());
        assert!(all.len() >= 3, "a shell and two sleepers: {all:?}");
        let long = |ms| all.iter().filter(|process| process.lifetime_ms > ms).count();
        assert!(long(100) >= 3 && long(200) >= 2, "{all:?}");
        assert!(all.iter().all(|process| process.segments.bytes() > 10_000), "{all:?}");
    }
}
