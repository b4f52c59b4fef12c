//! `trace` and `convert`.

use super::{folder, json, lab, stderr};
use std::fs;
use std::process::Command;
use vellum_lab::trace::{Event, Reader};

#[test]
fn a_trace_is_converted_and_means_the_same() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    let text = "==1== Lackey\nI  400000,4\n L 600000,8\n S 601ffc,8\nI  400004,4\n M 600000,4\n";
    fs::write(at("ls.txt"), text).unwrap();
    let convert = |args: &[&str]| lab(dir.path(), &[&["convert"], args].concat());
    let output = convert(&["ls.txt", "ls.vt.zst"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "6 events: ls.vt.zst\n");
    assert!(convert(&["ls.vt.zst", "ls.vt"]).status.success());
    assert!(convert(&["--events", "2", "ls.vt", "two.vt"]).status.success());
    assert_eq!(
        zstd::decode_all(&fs::read(at("ls.vt.zst")).unwrap()[..]).unwrap(),
        fs::read(at("ls.vt")).unwrap()
    );
    let events = |name: &str| -> Vec<Event> {
        let bytes = fs::read(at(name)).unwrap();
        Reader::from_bytes(name, &bytes).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(events("ls.vt"), events("ls.txt"));
    assert_eq!(events("two.vt"), events("ls.txt")[..2]);
    fs::write(at("bad.txt"), "I  1000,4\nI  zzz,4\n").unwrap();
    let before = fs::read(at("two.vt")).unwrap();
    for (args, part) in [
        (["bad.txt", "two.vt"], "bad.txt: byte 10: not a line of lackey's"),
        (["no.txt", "two.vt"], "no.txt: "),
        (["ls.vt", "./ls.vt"], "it is the input ls.vt"),
    ] {
        let output = convert(&args);
        assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(2), 1));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert_eq!(fs::read(at("two.vt")).unwrap(), before, "what failed has written nothing");
}

/// A stand-in for valgrind: it writes lackey's text to the log that it is told of, for ever after
/// "endless", and leaves with the status that it is asked for.
#[cfg(target_os = "linux")]
const VALGRIND: &str = r#"#!/bin/sh
for word; do
    case "$word" in
    --log-file=*) log="${word#--log-file=}" ;;
    --*) ;;
    *) break ;;
    esac
    shift
done
echo "ran $*"
exec 9>"$log"
printf '==1== Lackey\nI  400000,4\n L 600000,8\n' >&9
page=100
while [ "$1" = endless ]; do printf ' L %x000,8\n' $page >&9; page=$((page + 1)); done
exit "${2:-0}"
"#;

#[cfg(target_os = "linux")]
#[test]
fn a_program_is_recorded_as_it_runs() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    let tool = dir.path().join("valgrind");
    fs::write(&tool, VALGRIND).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let record = |path: &str, args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_vellum-lab"))
            .current_dir(dir.path())
            .env("PATH", path)
            .arg("trace")
            .args(args)
            .output()
            .unwrap()
    };
    let done = record(&path, &["--", "prog", "0", "--its-own"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(
        String::from_utf8(done.stdout).unwrap(),
        "ran prog 0 --its-own\n2 events: prog.vt.zst\n"
    );
    let report = json(dir.path(), &["--trace", "prog.vt.zst", "--design", "radix4"]);
    assert_eq!(report["runs"][0]["pages"], 2);

    let failed = record(&path, &["-o", "f.vt", "--", "prog", "3"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("prog failed; it was recorded"), "{}", stderr(&failed));
    assert!(dir.path().join("f.vt").exists());

    // It would run for ever.
    let cut = record(&path, &["--events", "1000", "-o", "e.vt", "--", "endless"]);
    assert_eq!(cut.status.code(), Some(0), "{}", stderr(&cut));
    let bytes = fs::read(dir.path().join("e.vt")).unwrap();
    assert_eq!(Reader::from_bytes("e", &bytes).unwrap().count(), 1000);

    let missing = record("/nowhere", &["--", "prog"]);
    assert_eq!((missing.status.code(), stderr(&missing).lines().count()), (Some(2), 1));
    assert!(stderr(&missing).contains("apt-get install valgrind"), "{}", stderr(&missing));
}
