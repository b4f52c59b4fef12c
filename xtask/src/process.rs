//! Other programs: start them, show what they print, keep their status.

use crate::stop::{Result, Stop};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};

/// The program and its arguments as one would type them.
pub(crate) fn shown(command: &Command) -> String {
    let words = core::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs it on our own terminal, and tells whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(status(command)?.success())
}

/// Runs it on our own terminal.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().map_err(|e| cannot_start(command, &e))
}

/// Runs it on our own terminal; any status but 0 ends xtask.
pub(crate) fn must_succeed(command: &mut Command) -> Result {
    let status = status(command)?;
    if status.success() {
        return Ok(());
    }
    Err(Stop::failed(format!("`{}` failed: {status}", shown(command))))
}

/// Its standard output, when it could be started and succeeded; its errors are not shown.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it with its standard output in our hands: `f` gets each line, without its end.
pub(crate) fn each_line(command: &mut Command, mut f: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|e| cannot_start(command, &e))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // Tests may print bytes that are no UTF-8; lines are split as bytes.
        while reader.by_ref().read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            f(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    child.wait().map_err(|e| cannot_start(command, &e))
}

/// The status to leave with when we stand in for another program.
pub(crate) fn passed_on(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return u8::try_from(128 + signal).unwrap_or(u8::MAX);
        }
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn cannot_start(command: &Command, error: &std::io::Error) -> Stop {
    let program = command.get_program().to_string_lossy();
    Stop::unable(format!("cannot start `{program}`: {error}; is it installed and in PATH?"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_one_by_one_and_the_status_is_kept() {
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "printf 'a\\nb\\n\\377c'; exit 3"]);
        let status = each_line(&mut shell, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["a", "b", "\u{fffd}c"]);
        assert_eq!(passed_on(status), 3);
    }

    #[test]
    fn a_signal_becomes_128_and_its_number() {
        let mut shell = Command::new("sh");
        let status = status(shell.args(["-c", "kill -TERM $$"])).unwrap();
        assert_eq!(passed_on(status), 128 + 15);
    }

    #[test]
    fn a_missing_program_is_named() {
        let stop = status(&mut Command::new("no-such-program-of-ours")).unwrap_err();
        assert_eq!(stop.status, 2);
        assert!(stop.message.contains("no-such-program-of-ours"), "{}", stop.message);
    }
}
