//! The command line, by running it: what it prints, what it writes, and how it fails.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

#[path = "cli/record.rs"]
mod record;
#[path = "cli/sweeps.rs"]
mod sweeps;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use vellum_core::Vpn;
use vellum_lab::designs::DESIGNS;
use vellum_lab::trace::{Event, Kind, VtWriter};
use vellum_tlb::Preset;

/// A folder with a good trace in it, `good.vt`: a sweep over 2,000 pages, twice.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good.vt"), sweep()).unwrap();
    dir
}

fn sweep() -> Vec<u8> {
    let mut writer = VtWriter::new(Vec::new()).unwrap();
    for n in (0..2000).chain(0..2000) {
        let page = Vpn::new(0x7_fff0_0000 + n).unwrap();
        writer.push(Event::new(page, if n % 2 == 0 { Kind::Read } else { Kind::Write })).unwrap();
    }
    writer.finish().unwrap()
}

fn lab(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vellum-lab")).current_dir(dir).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `compare` with these arguments, which must fail as bad input does, and returns its line.
fn refused(dir: &Path, args: &[&str]) -> String {
    let files = || {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let output = lab(dir, &[&["compare"], args].concat());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(text.starts_with("vellum-lab: ") && text.ends_with('\n'), "{text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert_eq!(files(), before, "{args:?} left a file behind");
    text
}

fn refused_trace(content: &[u8]) -> String {
    let dir = folder();
    fs::write(dir.path().join("bad.vt"), content).unwrap();
    let text = refused(dir.path(), &["--trace", "bad.vt", "--json", "out.json"]);
    assert!(text.contains("bad.vt: "), "{text}");
    text
}

#[test]
fn an_embedded_trace_goes_by_its_name_unless_a_file_has_it() {
    let dir = folder();
    let args = ["compare", "--trace", "sqlite3", "--design", "radix4", "--events", "1000"];
    let traces = |output: &Output| {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
        let text = fs::read_to_string(dir.path().join("target/compare.json")).unwrap();
        serde_json::from_str::<vellum_lab::report::Report>(&text).unwrap().runs[0].pages
    };
    let embedded = traces(&lab(dir.path(), &args));
    fs::copy(dir.path().join("good.vt"), dir.path().join("sqlite3")).unwrap();
    let file = traces(&lab(dir.path(), &args));
    assert_eq!(file, 1000, "the sweep touches a new page with each event");
    assert_ne!(embedded, file);
}

#[test]
fn a_bad_trace_is_named_with_its_byte() {
    let good = sweep();
    let cut = refused_trace(&[&good[..], &[0x80]].concat());
    assert!(cut.contains(&format!("byte {}: the trace ends", good.len())), "{cut}");
    let packed = zstd::encode_all(&good[..], 3).unwrap();
    let cut = refused_trace(&packed[..packed.len() - 7]);
    assert!(cut.contains(" of the decoded stream: zstd cannot unpack the data"), "{cut}");
    let corrupt = refused_trace(&[&good[..], &[3]].concat());
    assert!(corrupt.contains(&format!("byte {}: a reference of kind 3", good.len())), "{corrupt}");
    assert!(refused_trace(b"vtrace9\n\x10").contains("byte 0: unknown version"));
    assert!(refused_trace(b"hello, world").contains("byte 0: no known trace format"));
    assert!(refused_trace(b"").contains("the file is empty"));
    assert!(refused_trace(b"vtrace1\n").contains("the trace has no references"));
    assert!(refused_trace(b"I  1000,4\nI  zzz,4\n").contains("byte 10: not a line of lackey's"));
}

/// Runs `compare` with so many KiB of address space.
#[cfg(target_os = "linux")]
fn confined(dir: &Path, kib: u64, args: &[&str]) -> Output {
    let script = format!("ulimit -v {kib}; exec \"$0\" compare \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_vellum-lab")]).args(args);
    // Each thread takes address space, and another machine may have many.
    shell.current_dir(dir).env("RAYON_NUM_THREADS", "1").output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_small_file_of_many_events_is_refused_and_not_an_abort() {
    let dir = folder();
    let bomb =
        std::io::Read::chain(&b"vtrace1\n"[..], std::io::Read::take(std::io::repeat(9), 1 << 26));
    let packed = zstd::encode_all(bomb, 1).unwrap();
    assert!(packed.len() < 1 << 14, "{}", packed.len());
    fs::write(dir.path().join("bomb.vt"), packed).unwrap();
    let output = confined(dir.path(), 400 << 10, &["--trace", "bomb.vt", "--json", "out.json"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("bomb.vt: no memory for more than ") && text.contains("--events N"));
    assert!(!dir.path().join("out.json").exists());
    let args = ["--trace", "bomb.vt", "--json", "out.json", "--events", "1000"];
    let output = confined(dir.path(), 400 << 10, &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn a_host_with_little_memory_fails_and_changes_no_report() {
    let dir = folder();
    let mut writer = VtWriter::new(Vec::new()).unwrap();
    for n in 0..50_000 {
        writer.push(Event::new(Vpn::new(n * 512).unwrap(), Kind::Read)).unwrap();
    }
    fs::write(dir.path().join("sparse.vt"), writer.finish().unwrap()).unwrap();
    let args = ["--trace", "sparse.vt", "--design", "radix4,hashed-chained"];
    let whole = json(dir.path(), &args);
    assert!(whole["runs"].as_array().unwrap().iter().all(|run| run.get("walk").is_some()));
    fs::remove_file(dir.path().join("out.json")).unwrap();
    let output = confined(dir.path(), 700 << 10, &[&args[..], &["--json", "out.json"]].concat());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    // 64 MiB, and five tables for each page.
    assert!(text.contains(" failed: the host refuses 1044 MiB of memory"), "{text}");
    assert!(!dir.path().join("out.json").exists());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = folder();
    assert!(refused(dir.path(), &["--trace", "no.vt", "--json", "o"]).contains("no.vt: "));
    assert!(refused(dir.path(), &["--trace", ".", "--json", "o"]).contains("is a directory"));
}

#[test]
fn one_bad_trace_among_good_ones_writes_nothing() {
    let dir = folder();
    fs::write(dir.path().join("bad.vt"), b"vtrace1\n\x03").unwrap();
    let args = ["--trace", "good.vt", "--trace", "bad.vt", "--json", "out.json"];
    assert!(refused(dir.path(), &args).contains("bad.vt: byte 8: "));
}

#[test]
fn unknown_names_list_the_choices() {
    let dir = folder();
    let text = refused(dir.path(), &["--trace", "good.vt", "--design", "radix4,radix9"]);
    assert!(text.contains("`radix9`"), "{text}");
    assert!(DESIGNS.iter().all(|design| text.contains(design.name)), "{text}");
    let text = refused(dir.path(), &["--trace", "good.vt", "--tlb", "pentium"]);
    assert!(text.contains("pentium"), "{text}");
    assert!(Preset::ALL.iter().all(|preset| text.contains(preset.name)), "{text}");
}

#[test]
fn bad_options_are_told_in_one_line() {
    let dir = folder();
    for (args, part) in [
        (&["--walk-cache", "21=32"][..], "--walk-cache 21=32"),
        (&["--walk-cache", "12:32"], "--walk-cache 12:32"),
        (&["--walk-cache", "21:32,30:4,21:4"], "span 21 has two sizes"),
        (&["--cache", "3k"], "--cache 3k: choose one of 32k, 256k, 1m"),
        (&["--events", "0"], "--events"),
        (&["--events", "many"], "many"),
        (&["--mix", "0"], "--mix"),
        (&["--asid", "--no-asid"], "--no-asid"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--desing", "radix4"], "a similar argument exists: '--design'"),
        (&["--shard", "3/2"], "3/2"),
        (&["--sweep", "l2=0..0"], "numbers from 1 on"),
        (&["surplus"], "surplus"),
    ] {
        let text = refused(dir.path(), args);
        assert!(text.contains(part), "{text}");
    }
    let none = lab(dir.path(), &[]);
    assert_eq!((none.status.code(), stderr(&none).lines().count()), (Some(2), 1));
}

#[test]
fn an_output_that_cannot_be_written_is_known_before_the_run() {
    let dir = folder();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for target in ["no/out.json", "sub", "good.vt/out.json"] {
        let text = refused(dir.path(), &["--trace", "good.vt", "--json", target]);
        assert!(text.contains(&format!("cannot write {target}: ")), "{text}");
    }
}

#[test]
fn a_trace_is_not_overwritten_by_its_report() {
    let dir = folder();
    for target in ["good.vt", "./good.vt"] {
        let text = refused(dir.path(), &["--trace", "good.vt", "--json", target]);
        assert!(
            text.contains(&format!("cannot write {target}: it is the input good.vt")),
            "{text}"
        );
    }
    assert_eq!(fs::read(dir.path().join("good.vt")).unwrap(), sweep());
}

/// Links stand before the devices, so that nothing but a link could come to harm.
#[cfg(target_os = "linux")]
#[test]
fn devices_and_pipes_are_written_to_and_stay() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    let run = |json: &str| {
        lab(dir.path(), &["compare", "--trace", "good.vt", "--design", "radix4", "--json", json])
    };
    for name in ["null", "full", "stdout"] {
        symlink(Path::new("/dev").join(name), at(name)).unwrap();
    }
    let whole: serde_json::Value = {
        assert!(run("out.json").status.success());
        serde_json::from_slice(&fs::read(at("out.json")).unwrap()).unwrap()
    };
    assert!(run("null").status.success());
    let full = run("full");
    assert_eq!(full.status.code(), Some(2));
    assert!(stderr(&full).contains("cannot write full: No space left on device"));
    let stdout = run("stdout");
    assert!(stdout.status.success());
    let printed: serde_json::Value = serde_json::from_slice(&stdout.stdout).unwrap();
    assert_eq!(printed, whole, "the report and nothing else");
    assert!(stderr(&stdout).contains("good: 4,000 events"), "the table");

    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let fifo = at("fifo");
    let reader = std::thread::spawn(move || fs::read(fifo).unwrap());
    assert!(run("fifo").status.success());
    let read: serde_json::Value = serde_json::from_slice(&reader.join().unwrap()).unwrap();
    assert_eq!(read, whole);
    assert!(fs::symlink_metadata(at("fifo")).unwrap().file_type().is_fifo());
    for name in ["null", "full", "stdout"] {
        assert!(at(name).is_symlink(), "{name}");
        assert!(!fs::symlink_metadata(Path::new("/dev").join(name)).unwrap().is_file(), "{name}");
    }
}

/// A regular file behind stdout is not replaced under its writer.
#[cfg(target_os = "linux")]
#[test]
fn a_report_to_a_redirected_stdout_is_all_of_the_file() {
    let dir = folder();
    let file = fs::File::create(dir.path().join("out.json")).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_vellum-lab"))
        .current_dir(dir.path())
        .args(["compare", "--trace", "good.vt", "--design", "radix4", "--json", "/dev/stdout"])
        .stdout(file)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let text = fs::read(dir.path().join("out.json")).unwrap();
    assert!(serde_json::from_slice::<vellum_lab::report::Report>(&text).is_ok());
}

#[test]
fn help_has_examples_and_the_list_has_every_name() {
    let dir = folder();
    let help = lab(dir.path(), &["compare", "--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && text.contains("Examples:"), "{text}");
    let list = lab(dir.path(), &["compare", "--list"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(list.status.success());
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let names = DESIGNS.iter().map(|d| d.name).chain(Preset::ALL.iter().map(|p| p.name));
    for name in names.chain(["perl-hash", "python-graph", "cc1", "sqlite3", "gups:128M", "bfs:18"])
    {
        assert!(text.contains(&format!("  {name} ")), "{name} in\n{text}");
    }
    assert!(!dir.path().join("target").exists(), "listing writes nothing");
}

fn json(dir: &Path, args: &[&str]) -> serde_json::Value {
    let output = lab(dir, &[&["compare", "--json", "out.json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    assert!(output.stderr.is_empty(), "no progress where nobody sees it");
    serde_json::from_slice(&fs::read(dir.join("out.json")).unwrap()).unwrap()
}

#[test]
fn a_comparison_prints_a_table_and_writes_a_report() {
    let dir = folder();
    let output = lab(dir.path(), &["compare", "--trace", "good.vt"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("good: 4,000 events, 2,000 pages"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let written = fs::read(dir.path().join("target/compare.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let runs = report["runs"].as_array().unwrap();
    let names: Vec<_> = runs.iter().map(|run| run["design"].as_str().unwrap()).collect();
    assert_eq!(names, DESIGNS.iter().map(|d| d.name).collect::<Vec<_>>());
    assert_eq!(report["schema"], 2);
    for run in runs {
        assert!(text.contains(run["design"].as_str().unwrap()));
        if run.get("unsupported").is_some() {
            continue;
        }
        // 2,000 pages swept twice through 1,536 entries: nothing is found again.
        assert_eq!(run["walk"]["count"], 4000, "{run}");
        assert_eq!(run["tlb"]["l2_misses"], 4000);
        assert_eq!(run["faults"], 2000);
    }
}

#[test]
fn the_same_run_gives_the_same_report() {
    let dir = folder();
    let args = ["--trace", "good.vt", "--tlb", "zen4"];
    assert_eq!(json(dir.path(), &args), json(dir.path(), &args));
}

#[test]
fn every_part_is_the_same_to_the_byte_whatever_the_threads() {
    let dir = folder();
    let report = |threads: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_vellum-lab"))
            .current_dir(dir.path())
            .env("RAYON_NUM_THREADS", threads)
            .args(["compare", "--json", "out.json", "--events", "5000"])
            .args(["--design", "radix4,hashed-cuckoo", "--workload", "gups:1M:7,processes:2"])
            .args(["--part", "runs,ops,sparsity,resize,switches,huge,forks,tlb"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read(dir.path().join("out.json")).unwrap()
    };
    let first = report("1");
    assert!(first.len() > 10_000);
    assert_eq!(first, report("3"));
}

#[test]
fn help_says_how_it_was_called() {
    let dir = folder();
    let help = lab(dir.path(), &["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("Usage: vellum-lab <COMMAND>"), "{text}");
    let text = refused(dir.path(), &["--events", "many", "--sweeep"]);
    assert!(!text.contains("Usage"), "{text}");
}

#[test]
fn options_do_what_they_say() {
    let dir = folder();
    let run = |args: &[&str]| {
        let report =
            json(dir.path(), &[&["--trace", "good.vt", "--design", "radix4"], args].concat());
        report["runs"][0].clone()
    };
    assert_eq!(run(&["--events", "100"])["events"], 100);
    assert_eq!(run(&["--tlb", "zen5"])["tlb"]["l2_misses"], 2000, "4,096 entries hold the sweep");
    assert_eq!(run(&["--walk-cache", "none"])["walk"]["refs_mean"], 4.0);
    assert_eq!(run(&["--walk-cache", "39:1,30:1"])["walk"]["refs_p99"], 2);
    let cycles = |args: &[&str]| run(args)["walk"]["cycles_mean"].as_f64().unwrap();
    // All walks but a few hit the cache.
    assert!(cycles(&["--cache", "32k"]) < cycles(&[]) && cycles(&[]) < cycles(&["--cache", "1m"]));
    let x86 = run(&[]);
    assert_eq!(x86["walk_cache"], "21:32,30:4,39:2,48:2");
    assert_eq!(x86["walk"]["refs_max"], 4);
    assert!(x86["walk"]["refs_mean"].as_f64().unwrap() < 1.01);
}

#[test]
fn what_is_asked_for_twice_is_run_once_but_for_a_mix() {
    let dir = folder();
    let runs = |more: &[&str]| {
        let args = ["--design", "radix4,radix4", "--trace", "good.vt", "--trace", "./good.vt"];
        json(dir.path(), &[&args[..], more].concat())["runs"].as_array().unwrap().clone()
    };
    let once = runs(&[]);
    assert_eq!((once.len(), &once[0]["trace"]), (1, &"good".into()));
    let mixed = runs(&["--mix", "100"]);
    assert_eq!((mixed.len(), &mixed[0]["events"]), (1, &8000.into()));
    let embedded = ["--trace", "sqlite3", "--trace", "sqlite3", "--events", "100"];
    assert_eq!(runs(&embedded).len(), 2, "one for the file, one for the recording");
}

#[test]
fn without_a_mix_identifiers_change_nothing() {
    let dir = folder();
    let run = |more: &[&str]| {
        let args = ["--trace", "good.vt", "--design", "radix4"];
        json(dir.path(), &[&args[..], more].concat())["runs"][0].clone()
    };
    let (with, without) = (run(&["--asid"]), run(&["--no-asid"]));
    assert_eq!((&with["walk"], &with["tlb"]), (&without["walk"], &without["tlb"]));
    assert_eq!((&with["asid"], &without["asid"]), (&true.into(), &false.into()));
}

#[test]
fn a_mix_keeps_its_processes_apart() {
    let dir = folder();
    fs::copy(dir.path().join("good.vt"), dir.path().join("twin.vt")).unwrap();
    let run = |more: &[&str]| {
        let args = ["--trace", "good.vt", "--trace", "twin.vt", "--mix", "100", "--events", "500"];
        json(dir.path(), &[&args[..], more].concat())["runs"].as_array().unwrap().clone()
    };
    for run in run(&["--asid"]).iter().filter(|run| run.get("unsupported").is_none()) {
        assert_eq!((&run["trace"], &run["pages"]), (&"good+twin".into(), &1000.into()));
        assert_eq!((&run["faults"], &run["switches"]), (&1000.into(), &9.into()));
        assert_eq!(run["tlb"]["l2_misses"], 1000);
    }
    let radix4 =
        |more: &[&str]| run(more).into_iter().find(|run| run["design"] == "radix4").unwrap();
    // Without identifiers each turn begins with an empty walk cache: one walk of all four entries.
    assert_eq!(radix4(&["--asid"])["walk"]["refs_max"], 4);
    let refs =
        |run: serde_json::Value| (run["walk"]["refs_mean"].as_f64().unwrap() * 1000.0) as u64;
    assert_eq!(refs(radix4(&["--no-asid"])) - 1000, 10 * 3, "ten turns");
    assert_eq!(refs(radix4(&["--asid"])) - 1000, 2 * 3, "two processes");
}

#[test]
fn lackey_text_is_a_trace() {
    let dir = folder();
    let text = "==1== Lackey\nI  400000,4\n L 600000,8\n S 601ffc,8\nI  400004,4\n";
    fs::write(dir.path().join("ls.txt"), text).unwrap();
    let report = json(dir.path(), &["--trace", "ls.txt", "--design", "flat,radix4"]);
    for run in report["runs"].as_array().unwrap() {
        assert_eq!(
            (&run["trace"], &run["events"], &run["pages"]),
            (&"ls.txt".into(), &4.into(), &4.into())
        );
        assert_eq!(run["walk"]["count"], 4, "a flat table holds a small space");
    }
}
