//! Other programs: start them, show what they print, keep their status.
//!
//! ```text
//!   each_line    child, and whatever it started --> pipe --> thread --> channel --> f(line)
//!                child has ended, pipe still open: GRACE, then we let go of the pipe
//!   tied         setpriv --pdeathsig KILL PROGRAM     we are killed: so is it
//!   limited_to   timeout --foreground ... PROGRAM     it hangs: it is ended
//! ```

use crate::stop::{Result, Stop};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

/// How long output may go on after the end of the program that we started: what it started itself
/// may hold the pipe open for ever.
const GRACE: Duration = Duration::from_secs(1);

/// How often we ask whether a silent program has ended.
const POLL: Duration = Duration::from_millis(20);

/// Words that have the kernel kill a program when the thread that started it ends, and thus when
/// we do, by whatever signal.
const TIE: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

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

/// A command that does not outlive the thread that starts it, where util-linux can see to that;
/// the process is the program itself, and can be waited for and killed as such.
pub(crate) fn tied(program: &str) -> Command {
    if output(Command::new(TIE[0]).args(&TIE[1..]).arg("true")).is_none() {
        return Command::new(program);
    }
    let mut command = Command::new(TIE[0]);
    command.args(&TIE[1..]).arg(program);
    command
}

/// Runs it with its standard output in our hands: `f` gets each line, without its end.
///
/// Output that comes more than [`GRACE`] after its end, from a program that it started and that
/// still runs, is not waited for.
pub(crate) fn each_line(command: &mut Command, mut f: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|e| cannot_start(command, &e))?;
    let Some(stdout) = child.stdout.take() else {
        return child.wait().map_err(|e| cannot_start(command, &e));
    };
    let enough = Arc::new(AtomicBool::new(false));
    let lines = lines_of(stdout, Arc::clone(&enough));
    let mut ended = None;
    while ended.is_none_or(|at: Instant| at.elapsed() < GRACE) {
        match lines.recv_timeout(POLL) {
            Ok(line) => f(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ended.is_none() && child.try_wait().map_err(|e| cannot_start(command, &e))?.is_some() {
            ended = Some(Instant::now());
        }
    }
    // What the program wrote itself was read long ago, however slow `f` is; it is in the channel.
    enough.store(true, Ordering::Relaxed);
    lines.try_iter().for_each(|line| f(&line));
    child.wait().map_err(|e| cannot_start(command, &e))
}

/// The lines of `source`, read by a thread until the end, or until one more line than `enough`.
fn lines_of(source: impl Read + Send + 'static, enough: Arc<AtomicBool>) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        // Tests may print bytes that are no UTF-8; lines are split as bytes.
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            let sent = sender.send(text.trim_end_matches(['\n', '\r']).to_owned());
            if sent.is_err() || enough.load(Ordering::Relaxed) {
                break;
            }
            line.clear();
        }
    });
    lines
}

/// Words that end the program behind them after so many seconds, where coreutils can see to that.
pub(crate) fn limited_to(seconds: u64) -> Option<String> {
    // In the foreground: what is typed at the terminal goes on reaching the program.
    let words = format!("timeout --foreground --kill-after=5 {seconds}");
    let mut probe = words.split(' ').chain(["true"]);
    output(Command::new(probe.next()?).args(probe)).map(|_| words)
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
    fn a_grandchild_that_holds_the_pipe_is_not_waited_for() {
        let started = Instant::now();
        let mut lines = Vec::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo $!; exit 4"]);
        let status = each_line(&mut shell, |line| lines.push(line.to_owned())).unwrap();
        let grandchild = lines.first().unwrap();
        assert!(started.elapsed() < Duration::from_secs(50), "it was waited for");
        assert!(succeeds(Command::new("kill").arg(grandchild)).unwrap(), "it had ended before us");
        assert_eq!((lines.len(), passed_on(status)), (1, 4));
    }

    #[test]
    fn lines_are_kept_however_slowly_they_are_taken() {
        let mut lines = 0;
        let mut shell = Command::new("sh");
        shell.args(["-c", "for i in 1 2 3 4 5; do echo $i; done"]);
        each_line(&mut shell, |_| {
            thread::sleep(GRACE / 2);
            lines += 1;
        })
        .unwrap();
        assert_eq!(lines, 5);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_tied_ends_with_the_thread_that_started_it() {
        if tied("sleep").get_program() == "sleep" {
            return; // No such setpriv here.
        }
        let starter = thread::spawn(|| {
            let mut shell = tied("sh");
            let words = ["-c", "echo up; exec sleep 60 >/dev/null"];
            let mut child = shell.args(words).stdout(Stdio::piped()).spawn().unwrap();
            let mut up = [0];
            child.stdout.take().unwrap().read_exact(&mut up).unwrap();
            child
        });
        let status = starter.join().unwrap().wait().unwrap();
        assert_eq!(passed_on(status), 128 + 9);
    }

    #[test]
    fn what_is_limited_is_ended() {
        let Some(words) = limited_to(1) else {
            return; // No such timeout here.
        };
        let mut words = words.split(' ');
        let mut sleeper = Command::new(words.next().unwrap());
        assert_eq!(passed_on(status(sleeper.args(words).args(["sleep", "60"])).unwrap()), 124);
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
