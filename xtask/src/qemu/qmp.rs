//! QEMU's monitor, over its machine protocol: one question, one answer.
//!
//! ```text
//!   us <=== socket pair ===> QEMU's standard input, -chardev socket,fd=0
//!
//!   <-- {"QMP": ...}                                        greeting
//!   --> {"execute": "qmp_capabilities"}
//!   <-- {"return": {}}
//!   --> {"execute": "human-monitor-command", ...}
//!   <-- {"event": ...}                                      passed over
//!   <-- {"return": "text"} | {"error": {"desc": ...}}
//! ```
//!
//! A pair of sockets has no name: nothing to clean up, nobody else can connect, and no path that is
//! too long for one.
//!
//! Source: QEMU `docs/interop/qmp-spec.txt`.

pub(crate) mod mappings;

use crate::stop::{Result, Stop};
use core::time::Duration;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// QEMU's arguments for a monitor at its standard input.
pub(super) const ARGUMENTS: [&str; 4] =
    ["-chardev", "socket,id=qmp,fd=0", "-mon", "chardev=qmp,mode=control"];

/// Our end.
pub(crate) struct Monitor {
    from: Box<dyn BufRead>,
    to: Box<dyn Write>,
    is_greeted: bool,
}

impl Monitor {
    /// Our end, and QEMU's standard input.
    #[cfg(unix)]
    pub(super) fn pair() -> Result<(Self, Stdio)> {
        use std::os::fd::OwnedFd;
        use std::os::unix::net::UnixStream;
        let pair = || {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_read_timeout(Some(PATIENCE))?;
            ours.set_write_timeout(Some(PATIENCE))?;
            Ok((ours.try_clone()?, ours, theirs))
        };
        let (from, to, theirs) =
            pair().map_err(|e: std::io::Error| Stop::unable(format!("a pair of sockets: {e}")))?;
        let ours = Self::over(BufReader::new(from), to);
        Ok((ours, Stdio::from(OwnedFd::from(theirs))))
    }

    /// Our end, and QEMU's standard input.
    #[cfg(not(unix))]
    pub(super) fn pair() -> Result<(Self, Stdio)> {
        Err(Stop::unable("QEMU's monitor is reached by a pair of Unix sockets: no such here"))
    }

    fn over(from: impl BufRead + 'static, to: impl Write + 'static) -> Self {
        Self { from: Box::new(from), to: Box::new(to), is_greeted: false }
    }

    /// What the human's monitor answers to a line, on the first CPU.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        if !self.is_greeted {
            self.receive()?;
            self.execute(&json!({ "execute": "qmp_capabilities" }))?;
            self.is_greeted = true;
        }
        let arguments = json!({ "command-line": line, "cpu-index": 0 });
        let command = json!({ "execute": "human-monitor-command", "arguments": arguments });
        match self.execute(&command)? {
            Value::String(text) => Ok(text.replace('\r', "")),
            other => Err(bad(&format!("{line} was answered by {other}"))),
        }
    }

    fn execute(&mut self, command: &Value) -> Result<Value> {
        let sent = writeln!(self.to, "{command}").and_then(|()| self.to.flush());
        sent.map_err(|e| bad(&format!("sending {command}: {e}")))?;
        loop {
            let mut answer = self.receive()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(bad(&format!("{command} was refused: {error}")));
            }
        }
    }

    /// The next line, whatever it is.
    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(0) => Err(bad("QEMU has closed it")),
            Ok(_) => serde_json::from_str(&line).map_err(|e| bad(&format!("{line:?}: {e}"))),
            Err(e) => Err(bad(&format!("no answer: {e}"))),
        }
    }
}

fn bad(what: &str) -> Stop {
    Stop::unable(format!("QEMU's monitor: {what}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Cursor;

    /// A monitor that greets, and then answers with these lines.
    pub(crate) fn canned<S: AsRef<str>>(answers: impl IntoIterator<Item = S>) -> Monitor {
        let mut lines = String::from("{\"QMP\": {}}\r\n{\"return\": {}}\r\n");
        for answer in answers {
            lines += &json!({ "return": answer.as_ref() }).to_string();
            lines += "\r\n";
        }
        Monitor::over(Cursor::new(lines), std::io::sink())
    }

    #[test]
    fn an_answer_is_found_behind_events() {
        let lines =
            "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"STOP\"}\n{\"return\": \"a\\r\\nb\"}\n";
        let mut monitor = Monitor::over(Cursor::new(lines), std::io::sink());
        assert_eq!(monitor.ask("info tlb").unwrap(), "a\nb");
        assert!(monitor.ask("info tlb").is_err_and(|stop| stop.message.contains("closed")));
    }

    #[test]
    fn a_refusal_is_named() {
        let lines = "{\"QMP\": {}}\n{\"return\": {}}\n{\"error\": {\"desc\": \"no such\"}}\n";
        let mut monitor = Monitor::over(Cursor::new(lines), std::io::sink());
        assert!(monitor.ask("x").is_err_and(|stop| stop.message.contains("no such")));
    }

    #[cfg(unix)]
    #[test]
    fn the_other_end_is_a_programs_standard_input() {
        let (mut ours, theirs) = Monitor::pair().unwrap();
        let script = "echo '{\"QMP\": {}}' >&0; for i in 1 2; do read line; \
                      echo '{\"return\": \"'$i'\"}' >&0; done";
        let mut shell = std::process::Command::new("sh");
        let mut child = shell.args(["-c", script]).stdin(theirs).spawn().unwrap();
        assert_eq!(ours.ask("anything").unwrap(), "2");
        assert!(child.wait().unwrap().success());
    }
}
