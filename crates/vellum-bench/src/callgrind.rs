//! Instructions of a program, counted by valgrind.
//!
//! ```text
//!   valgrind --tool=callgrind  PROGRAM --pairs ...     "==1== Collected : 456"
//! ```
//!
//! A count does not depend on what else the machine does. What a figure is, the caller makes of the
//! difference between two counts: starting and setting up are in both, and fall out of it.
//!
//! Callgrind counts a `rep stos` once for each byte that it stores, which no processor does. The C
//! library's `memset` is therefore told to use vector stores instead (a page then takes some 130
//! instructions), whoever calls it.
//!
//! Source: Valgrind's manual, "Callgrind"; glibc's manual, "Hardware Capability Tunables".

use std::path::Path;
use std::process::{Command, Stdio};

/// From this many bytes on `memset` would use `rep stosb`: never.
const TUNABLES: &str = "glibc.cpu.x86_rep_stosb_threshold=0x7fffffff";

/// Whether valgrind can be started.
#[must_use]
pub fn available() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Instructions that `program` takes for `--pairs NAME COUNT`.
///
/// # Errors
///
/// Why there is no count.
pub fn collected(program: &Path, name: &str, count: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--pairs", name, &count.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind does not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(count_in)
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind counted nothing for {name}: {}", output.status))
}

/// `==123== Collected : 456`.
fn count_in(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("Collected")?;
    rest.trim_start_matches([' ', ':']).split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_valgrinds_words() {
        assert_eq!(count_in("==123== Collected : 45678"), Some(45678));
        assert_eq!(count_in("==123== Collected : 45678 1 2"), Some(45678));
        assert_eq!(count_in("==123== Events    : Ir"), None);
    }
}
