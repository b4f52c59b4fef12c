use super::*;
use crate::cache::CachePreset;
use crate::machine::{Machine, MachineConfig};
use crate::replay::Promotions;
use crate::trace::{Event, Kind, Trace};
use core::time::Duration;
use vellum_core::Vpn;
use vellum_tlb::{Preset, WALK_CACHE_X86};

fn config() -> MachineConfig {
    MachineConfig {
        tlb: Preset::REFERENCE,
        walk_caches: WALK_CACHE_X86.to_vec(),
        cache: CachePreset::DEFAULT,
    }
}

fn trace(name: &str, pages: u64) -> Trace {
    let event = |n| Event::new(Vpn::new(n).unwrap(), Kind::Read);
    Trace::from_events(name, (0..pages).map(event).collect()).unwrap()
}

fn report(traces: &[Trace]) -> Report {
    let machine = &config();
    let job = Job { traces, machine, quantum: 1, asids: true, promote: None, progress: &|_| {} };
    let measured = Measured {
        machine: Machine::new(machine),
        faults: 4,
        switches: 3,
        promotions: Promotions::default(),
        elapsed: Duration::ZERO,
    };
    let meter = Meter { now: 8192, peak: 12_288, largest: 4096 };
    let runs = vec![
        Run::measured(&job, "radix4", &measured, meter),
        Run::unsupported(&job, "flat", "too wide", Some(1 << 38)),
    ];
    Report { runs, ..Report::default() }
}

#[test]
fn json_has_the_fields_that_the_schema_promises() {
    let json = serde_json::to_value(report(&[trace("a", 4)])).unwrap();
    assert_eq!(json["schema"], 2);
    let run = &json["runs"][0];
    for field in ["trace", "design", "tlb_preset"] {
        assert!(run[field].is_string(), "{field}");
    }
    assert_eq!((run["events"].as_u64(), run["pages"].as_u64()), (Some(4), Some(4)));
    for field in ["l1d_misses", "l1i_misses", "l2_misses"] {
        assert!(run["tlb"][field].is_u64(), "{field}");
    }
    for field in ["count", "refs_p99", "refs_max"] {
        assert!(run["walk"][field].is_u64(), "{field}");
    }
    for field in ["refs_mean", "lines_mean", "cache_misses_mean", "cycles_mean"] {
        assert!(run["walk"][field].is_f64(), "{field}");
    }
    assert_eq!(run["table"]["bytes"], 8192);
    assert_eq!(run["table"]["bytes_per_page"], 2048.0);
    assert_eq!(run["table"]["peak_bytes"], 12_288);
    assert_eq!(run["table"]["largest_contiguous_bytes"], 4096);
    assert_eq!(run.get("unsupported"), None);
    let flat = &json["runs"][1];
    assert_eq!(flat["unsupported"], "too wide");
    assert_eq!(flat["table"]["bytes"], 1u64 << 38);
    assert_eq!((flat.get("tlb"), flat.get("walk")), (None, None));
}

#[test]
fn a_mix_is_named_after_its_traces() {
    let report = report(&[trace("a", 4), trace("b", 2)]);
    assert_eq!(report.runs[0].trace, "a+b");
    assert_eq!((report.runs[0].pages, report.runs[0].switches), (6, Some(3)));
    assert_eq!(report.runs[0].walk_cache, "21:32,30:4,39:2,48:2");
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    std::fs::write(&path, "old").unwrap();
    check_writable(&path, []).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old", "checking changes nothing");
    let report = report(&[trace("a", 4)]);
    write(&report, &path).unwrap();
    let read: Report = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(read, report);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_place_that_cannot_be_written_is_known_before() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no/out.json");
    assert!(check_writable(&missing, []).is_err());
    assert!(write(&report(&[trace("a", 1)]), &missing).is_err());
    assert!(check_writable(dir.path(), []).is_err(), "a folder is no file");
    assert!(check_writable(&dir.path().join("new/"), []).is_err(), "nor is the name of one");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_input_is_no_output_by_whatever_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("own.vt"), "a trace").unwrap();
    std::fs::write(at("other.vt"), "another").unwrap();
    let mut names = vec![at("own.vt"), at("./own.vt")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("own.vt", at("link")).unwrap();
        std::fs::hard_link(at("own.vt"), at("hard")).unwrap();
        names.extend([at("link"), at("hard")]);
    }
    for name in names {
        let inputs = [&*at("other.vt"), &*at("own.vt")];
        let error = check_writable(&name, inputs).unwrap_err();
        assert!(matches!(error, OutputError::Input(input) if input == at("own.vt")));
        check_writable(&name, [&*at("other.vt")]).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_its_file_is_replaced() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::write(at("sub/there"), "old").unwrap();
    std::fs::set_permissions(at("sub/there"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("sub/there", at("one")).unwrap();
    symlink("one", at("two")).unwrap();
    symlink("sub/new", at("dangling")).unwrap();
    symlink("round", at("round")).unwrap();
    let report = report(&[trace("a", 4)]);
    for (link, file) in [("two", "sub/there"), ("dangling", "sub/new")] {
        check_writable(&at(link), []).unwrap();
        write(&report, &at(link)).unwrap();
        assert!(at(link).is_symlink());
        assert!(!at(file).is_symlink());
        let read: Report = serde_json::from_slice(&std::fs::read(at(file)).unwrap()).unwrap();
        assert_eq!(read, report);
    }
    let mode = std::fs::metadata(at("sub/there")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "as it was");
    assert!(check_writable(&at("round"), []).is_err());
}
