//! The subject that is right by definition: the kernel of this host.
//!
//! ```text
//!   run(sequence)
//!     |  fork
//!     |       '--> child: signals, limits, one CPU, no huge pages
//!     |              a fresh file in memory, three descriptors
//!     |              operations, each with a record of what it gave    --> [ shared memory ]
//!     |              fork? the child goes on, this one waits, looks at itself
//!     |              a last look, then it ends
//!     '- wait, read the records
//! ```
//!
//! Each sequence has a process of its own: whatever it does to its memory ends with it, sealed
//! mappings and locked limits included, and none can see what another one left.
//!
//! The arena lies at an address where nothing else is, below everything that the process has: its
//! regions are the first in /proc/self/smaps, and a search from the top down never comes there.
//!
//! # Determinism
//!
//! Huge pages are off for the child (`PR_SET_THP_DISABLE`), capabilities are given up, limits are
//! set, and it stays on one processor and makes the file there itself, for pages wait in lists of
//! one processor before they are where MADV_PAGEOUT and MADV_FREE find them. What the host decides besides is in [`Host`].

mod child;
mod host;
mod memory;
pub mod places;
mod probe;
mod record;

pub use host::Host;

use crate::op::Sequence;
use crate::subject::{Subject, SubjectError};
use crate::trace::Trace;
use memory::Shared;

/// The kernel of this host.
#[derive(Debug)]
pub struct Linux {
    shared: Shared,
    host: Host,
    name: String,
    /// Whether there is a look behind every operation, or only at the end.
    every: bool,
}

impl Linux {
    /// A subject that looks behind every operation.
    ///
    /// # Errors
    ///
    /// If the host's kernel cannot be asked for what it has, or memory for records is refused.
    pub fn new() -> Result<Self, SubjectError> {
        let host = Host::read()?;
        let name = format!("Linux {}", host.release);
        Ok(Self { shared: Shared::new()?, host, name, every: true })
    }

    /// One that looks at the end alone: several times as fast.
    #[must_use]
    pub fn at_the_end(mut self) -> Self {
        self.every = false;
        self
    }

    /// What this host decides.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }
}

impl Subject for Linux {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, sequence: &Sequence) -> Result<Trace, SubjectError> {
        sequence.check().map_err(|(index, e)| SubjectError::Refused(index, e))?;
        self.shared.clear();
        let plan = child::Plan {
            sequence,
            records: self.shared.records(),
            host: &self.host,
            every: self.every,
        };
        // SAFETY: the child calls only what may be called between fork and exec of a program with
        // threads (system calls, and code of ours that takes no lock and no heap), and never
        // returns from `run`.
        match unsafe { libc::fork() } {
            -1 => return Err(SubjectError::last("fork")),
            0 => child::run(&plan),
            pid => wait(pid)?,
        }
        record::read(self.shared.written()?, sequence)
    }
}

/// Waits for a process to end well.
fn wait(pid: i32) -> Result<(), SubjectError> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a place for a status.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(SubjectError::io("waitpid", &error));
        }
    }
    match status {
        0 => Ok(()),
        _ if libc::WIFSIGNALED(status) => Err(SubjectError::Died(libc::WTERMSIG(status))),
        _ => Err(SubjectError::Left(libc::WEXITSTATUS(status))),
    }
}
