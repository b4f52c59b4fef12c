//! Workloads, `--sweep`, `--shard` and `--merge`.

use super::{folder, json, lab, refused, stderr};
use std::fs;
use vellum_core::Vpn;
use vellum_lab::trace::{Event, Kind, VtWriter};

#[test]
fn shards_joined_in_any_order_are_the_bytes_of_the_whole() {
    let dir = folder();
    let mut writer = VtWriter::new(Vec::new()).unwrap();
    for n in 0..3000 {
        writer.push(Event::new(Vpn::new(n * 7 % 500).unwrap(), Kind::Read)).unwrap();
    }
    fs::write(dir.path().join("low.vt"), writer.finish().unwrap()).unwrap();
    let run = |file: &str, more: &[&str]| {
        let args = [
            "compare",
            "--trace",
            "good.vt",
            "--trace",
            "low.vt",
            "--workload",
            "gups:1M",
            "--events",
            "3000",
            "--sweep",
            "l2=512..2048",
            "--part",
            "runs,switches,huge",
            "--design",
            "flat,radix4,hashed-chained",
            "--json",
            file,
        ];
        let output = lab(dir.path(), &[&args[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    };
    run("whole.json", &[]);
    for count in [2, 5] {
        let files: Vec<String> = (0..count).rev().map(|i| format!("{i}.json")).collect();
        for (file, index) in files.iter().zip((0..count).rev()) {
            run(file, &["--shard", &format!("{index}/{count}")]);
        }
        let mut args = vec!["compare", "--json", "joined.json", "--merge"];
        args.extend(files.iter().map(String::as_str));
        let output = lab(dir.path(), &args);
        assert!(output.status.success(), "{}", stderr(&output));
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert!(read("joined.json") == read("whole.json"), "{count} shards");
        assert!(read("0.json").len() * 2 < read("whole.json").len() * 3 / 2);
    }
    let text = refused(dir.path(), &["--json", "x.json", "--merge", "0.json", "1.json"]);
    assert!(text.contains("shard 2/5 is missing"), "{text}");
    let text = refused(dir.path(), &["--json", "x.json", "--merge", "0.json", "good.vt"]);
    assert!(text.contains("good.vt: "), "{text}");
    let text = refused(dir.path(), &["--json", "x.json", "--merge", "0.json", "whole.json"]);
    assert!(text.contains("whole.json: a whole report, made without --shard"), "{text}");
    let text = refused(dir.path(), &["--json", "0.json", "--merge", "0.json", "1.json"]);
    assert!(text.contains("cannot write 0.json: it is the input"), "{text}");
}

/// Theory: uniform accesses to N pages through a TLB of E entries hit E/N of the time; once all
/// pages fit, only the first access to each misses.
#[test]
fn a_sweep_goes_over_the_sizes_that_it_names() {
    let dir = folder();
    let runs = |args: &[&str]| {
        let args = [&["--design", "radix4"], args].concat();
        json(dir.path(), &args)["runs"].as_array().unwrap().clone()
    };
    let pages = runs(&["--sweep", "pages=512..8192", "--workload", "gups:1M:3"]);
    let values: Vec<_> = pages.iter().map(|run| run["sweep"]["value"].as_u64().unwrap()).collect();
    assert_eq!(values, [512, 1024, 2048, 4096, 8192]);
    for (run, pages) in pages.iter().zip(values) {
        assert_eq!((&run["pages"], &run["sweep"]["over"]), (&pages.into(), &"pages".into()));
        assert_eq!(run["trace"], format!("gups:{}M:3", pages / 256));
        let walks = run["walk"]["count"].as_f64().unwrap() - pages as f64;
        let theory = 4e6 * (1.0 - (1536.0 / pages as f64).min(1.0));
        assert!((walks - theory).abs() < 4e6 * 0.003, "{pages} pages: {walks} against {theory}");
    }
    let sizes = runs(&["--sweep", "l2=512..2048+768", "--trace", "good.vt"]);
    let misses: Vec<_> = sizes.iter().map(|run| &run["tlb"]["l2_misses"]).collect();
    // A cyclic sweep of 2,000 pages hits nothing until all of them fit.
    assert_eq!(misses, [4000, 4000, 2000]);
    for (args, part) in [
        (&["--sweep", "pages=512..1024", "--trace", "good.vt"][..], "not --trace"),
        (&["--sweep", "pages=1..4"], "cannot have 1 pages"),
        (&["--sweep", "l2=513..600"], "513 entries"),
        (&["--sweep", "l3=1..4"], "expected l2=FIRST..LAST"),
        (&["--workload", "gups:1"], "from 1 MiB to 16 GiB"),
        (&["--workload", "doom"], "unknown workload `doom`"),
        (&["--part", "runs,jumps"], "no such part"),
        (&["--shard", "3/3"], "expected INDEX/COUNT"),
    ] {
        let text = refused(dir.path(), args);
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn processes_of_a_workload_take_turns() {
    let dir = folder();
    let args = ["--workload", "processes:4,gups:1M", "--events", "20000", "--design", "radix4"];
    let report = json(dir.path(), &args);
    let [processes, gups] = &report["runs"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!(
        (&processes["trace"], &processes["events"]),
        (&"processes:4".into(), &80_000.into())
    );
    assert_eq!((&processes["switches"], &processes["pages"]), (&15.into(), &512.into()));
    assert_eq!((&gups["trace"], gups.get("switches")), (&"gups:1M".into(), None));
}
