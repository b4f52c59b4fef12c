use super::*;

fn stream(lines: &str) -> Stream {
    let text = format!("arrival_ms,lifetime_ms,bytes\n{lines}");
    Stream::read("test", text.as_bytes()).unwrap()
}

fn compare(stream: &Stream, memory_bytes: Option<u64>) -> Result<FitsReport, FitsError> {
    super::compare(stream, memory_bytes, &ProgressBar::hidden())
}

fn embedded() -> FitsReport {
    compare(&read(None).unwrap(), None).unwrap()
}

fn run<'r>(report: &'r FitsReport, fit: &str, compaction: &str) -> &'r FitRun {
    let mut runs = report.runs.iter();
    runs.find(|run| run.fit == fit && run.compaction == compaction).unwrap()
}

/// What the texts on memory say of these allocators, on the embedded stream.
#[test]
fn processes_are_refused_though_enough_is_free_and_only_without_paging() {
    let report = embedded();
    let mut shown = 0;
    for run in &report.runs {
        assert_eq!(run.refused, run.refused_though_free, "memory is as much as is ever needed");
        if run.compaction != "none" {
            assert_eq!(run.refused, 0, "{}: compaction finds what is free", run.fit);
            assert!(run.moved_bytes > 0 && run.compactions > 0, "{}: at a price", run.fit);
            continue;
        }
        assert_eq!((run.moved_bytes, run.compactions), (0, 0));
        assert!(run.needed_bytes.unwrap() > report.memory_bytes, "{}", run.fit);
        if let Some(first) = run.first_though_free {
            assert!(first.free_bytes >= first.bytes, "{first:?}");
            assert!(first.largest_bytes < first.bytes && first.holes > 1, "{first:?}");
            shown += 1;
        }
    }
    assert!(shown > 0, "at least one fit fails while enough is free");
    let paging = &report.paging;
    assert_eq!((paging.refused, paging.refused_though_free), (0, 0));
    assert!(paging.internal_bytes_mean > 0.0 && paging.internal_bytes_max < 4 * 4096);
}

#[test]
fn searches_differ_as_their_rules_say() {
    let report = embedded();
    let examined = |fit| run(&report, fit, "none").examined_mean;
    let holes = |fit| run(&report, fit, "none").holes_mean;
    assert!(examined("next") < examined("first"));
    assert!(examined("first") < examined("best"));
    assert_eq!(examined("worst"), holes("worst"), "it looks at all");
}

/// 4 + 4 + 4 pages, and the middle one leaves; then the first: 8 are free, in one piece or two.
#[test]
fn a_stream_that_is_known_by_heart() {
    let lines = "0,10,16384\n0,99,16384\n0,10,16384\n0,99,16384\n10,50,32768\n";
    let report = compare(&stream(lines), None).unwrap();
    assert_eq!((report.memory_bytes, report.stream.peak_processes), (65536, 4));
    for run in report.runs.iter().filter(|run| run.compaction == "none") {
        let expected = Refusal {
            request: 5,
            arrival_ms: 10,
            bytes: 32768,
            free_bytes: 32768,
            holes: 2,
            largest_bytes: 16384,
        };
        assert_eq!(run.first_though_free, Some(expected), "{}", run.fit);
        assert_eq!((run.requests, run.refused), (5, 1));
        assert_eq!(run.external_max, 0.5);
    }
    for compaction in ["whole", "least"] {
        let run = run(&report, "first", compaction);
        assert_eq!(
            (run.refused, run.compactions, run.moves),
            (0, 1, if compaction == "whole" { 2 } else { 1 })
        );
        assert_eq!(run.moved_bytes, 16384 * run.moves);
    }
    assert_eq!((report.paging.refused, report.paging.internal_bytes_mean), (0, 0.0));
}

#[test]
fn last_pages_are_what_paging_wastes() {
    let report = compare(&stream("0,1,1+4096+4097\n5,1,4000\n"), None).unwrap();
    assert_eq!(report.paging.internal_bytes_max, 4095 + 4095);
    assert_eq!(report.paging.internal_bytes_mean, f64::from(4095 + 4095 + 96) / 2.0);
    assert_eq!(report.paging.internal_share, f64::from(4095 + 4095 + 96) / (5.0 * 4096.0));
    let run = run(&report, "best", "none");
    assert_eq!(run.internal_bytes_mean, f64::from(8256 - 8194 + 4032 - 4000) / 2.0, "to 64 bytes");
}

/// The largest process cannot fit into half of its size; who is refused for that is told apart.
#[test]
fn too_little_memory_is_no_fragmentation() {
    let stream = read(None).unwrap();
    let all = compare(&stream, None).unwrap();
    let half = compare(&stream, Some(all.stream.bytes_max / 2)).unwrap();
    assert!(half.paging.refused > 0 && half.paging.refused_though_free == 0);
    for run in &half.runs {
        assert!(run.refused > run.refused_though_free, "{} {}", run.fit, run.compaction);
    }
    assert_eq!(half.paging.needed_bytes, all.paging.needed_bytes, "whatever there is");
}

#[test]
fn a_stream_of_giants_is_refused_unless_memory_is_given() {
    let giants = stream("0,9,40000000000\n1,9,40000000000\n");
    let error = compare(&giants, None).unwrap_err();
    assert!(error.to_string().contains("take 74 GiB at one time"), "{error}");
    let report = compare(&giants, Some(1 << 20)).unwrap();
    assert_eq!((report.paging.refused, report.runs[0].refused), (2, 2));
}

#[test]
fn the_table_fits_100_columns_and_says_it_in_figures() {
    let mut report = embedded();
    let text = render(&report);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let first = run(&report, "first", "none");
    let refusal = first.first_though_free.unwrap();
    let line = text.lines().find(|line| line.starts_with(" first: process ")).unwrap();
    for part in [crate::table::size(refusal.bytes), crate::table::size(refusal.free_bytes)] {
        assert!(line.contains(&part), "{part} in {line}");
    }
    // Figures that are as long as they can be.
    let rows = text.lines().count();
    for run in &mut report.runs {
        (run.refused, run.refused_though_free) = (131_072, 131_072);
        (run.holes_mean, run.examined_mean, run.examined_max) = (131_072.0, 131_072.0, 131_072);
        (run.moved_bytes, run.compactions) = (10_239 << 30, 131_072);
        run.needed_bytes = None;
    }
    report.stream.name = "x".repeat(200);
    let text = render(&report);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert_eq!(text.lines().count(), rows, "no row is wrapped:\n{text}");
}

#[test]
fn json_has_a_schema_of_its_own_and_is_read_back() {
    let report = embedded();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["fits_schema"], 1);
    assert!(json.get("schema").is_none(), "it is not the other report");
    assert_eq!(json["runs"].as_array().unwrap().len(), 12);
    assert_eq!(serde_json::from_value::<FitsReport>(json).unwrap(), report);
}
