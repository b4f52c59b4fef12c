use super::*;
use proptest::prelude::*;

fn read(text: &[u8]) -> Result<Stream, StreamError> {
    Stream::read("x", text)
}

fn good(lines: &str) -> Vec<Process> {
    read(format!("{HEADER}\n{lines}").as_bytes()).unwrap().processes
}

/// The fault of a third line, after the header and a good one.
fn fault(line: &str) -> String {
    let error = read(format!("{HEADER}\n1,2,3\n{line}\n4,5,6\n").as_bytes()).unwrap_err();
    error.to_string()
}

#[test]
fn lines_are_read_in_any_order_and_with_any_line_end() {
    let unix = good("7,1,5000\n# a remark\n\n0,2,100+4096+1\n7,9,1");
    let windows = good("7,1,5000\r\n# a remark\r\n\r\n0,2,100+4096+1\r\n7,9,1\r\n");
    assert_eq!(unix, windows);
    let arrivals: Vec<_> = unix.iter().map(|p| (p.arrival_ms, p.lifetime_ms)).collect();
    assert_eq!(arrivals, [(0, 2), (7, 1), (7, 9)], "and those of one time stay as they were");
    assert_eq!((unix[0].segments.bytes(), unix[0].segments.count_frames()), (4197, 3));
    assert_eq!((unix[1].segments.bytes(), unix[1].segments.count_frames()), (5000, 2));
}

#[test]
fn a_fault_is_told_with_its_line() {
    for (line, part) in [
        ("1,2", "not three fields"),
        ("1,2,3,4", "not three fields"),
        ("nonsense", "not three fields"),
        ("1,2,x", "not a number"),
        ("1,-2,3", "not a number"),
        ("1,2,-3", "not a number"),
        ("+1,2,3", "not a number"),
        ("1,2,", "not a number"),
        (" 1,2,3", "not a number"),
        ("1,2,3+", "not a number"),
        ("1,2,3\r4", "not a number"),
        ("1,2,\u{b2}", "not a number"),
        ("1,2,0", "a size of 0"),
        ("1,2,5+0", "a size of 0"),
        ("1,0,3", "a lifetime of 0"),
        ("1,2,68719476737", "a process of more than 64 GiB"),
        ("1,2,68719476736+1", "a process of more than 64 GiB"),
        ("1,2,99999999999999999999999", "a process of more than 64 GiB"),
        ("1099511627777,2,3", "a time of more than 1099511627776 ms"),
        ("1,99999999999999999999999,3", "a time of more than"),
        ("1,2,1+1+1+1+1", "more than 4 segments"),
    ] {
        let text = fault(line);
        assert!(text.starts_with("x: line 3: ") && text.contains(part), "{line}: {text}");
        assert_eq!(text.lines().count(), 1);
    }
    let long = format!("{HEADER}\n#{}\n", "x".repeat(2000));
    assert_eq!(
        read(long.as_bytes()).unwrap_err().to_string(),
        "x: line 2: a line of more than 1024 bytes"
    );
    let widest = format!("{HEADER}\r\n#{}\r\n1,2,3", "x".repeat(1023));
    assert_eq!(read(widest.as_bytes()).unwrap().processes.len(), 1);
}

#[test]
fn a_file_without_processes_is_refused() {
    let text = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert_eq!(text(b""), "x: the file is empty");
    assert_eq!(text(b"# remark\n"), "x: the stream has no processes");
    assert_eq!(text(format!("{HEADER}\n").as_bytes()), "x: the stream has no processes");
    let header = format!("x: line 2: not a stream of processes (expected `{HEADER}`)");
    assert_eq!(text(b"# remark\n1,2,3\n"), header);
    assert!(text(b"\x28\xb5\x2f\xfd\0\0").starts_with("x: line 1: not a stream"));
    assert!(text(&[0; 5000]).starts_with("x: line 1: a line of more than"));
}

#[test]
fn the_largest_numbers_are_good() {
    let all = good("1099511627776,1099511627776,68719476736\n");
    assert_eq!(all[0].segments.count_frames(), 1 << 24);
    let stream = Stream { name: String::new(), processes: all };
    assert_eq!(stream.end_ms(), 1 << 41);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        lines in proptest::collection::vec(
            (0..1u64 << 40, 1..1u64 << 40, proptest::collection::vec(1..1u64 << 34, 1..4)), 1..30)
    ) {
        let mut processes: Vec<Process> = lines
            .into_iter()
            .map(|(arrival_ms, lifetime_ms, sizes)| Process {
                arrival_ms,
                lifetime_ms,
                segments: sizes.into_iter().collect(),
            })
            .collect();
        processes.sort_by_key(|process| process.arrival_ms);
        let mut text = Vec::new();
        write(&["two\nlines".to_owned(), "one".to_owned()], &processes, &mut text).unwrap();
        prop_assert_eq!(read(&text).unwrap().processes, processes);
    }

    #[test]
    fn no_text_makes_it_panic(text in proptest::collection::vec(prop_oneof![
        Just(b','), Just(b'\n'), Just(b'+'), Just(b'0'), Just(b'9'), any::<u8>()], 0..200)
    ) {
        let _ = read(&[HEADER.as_bytes(), b"\n", &text].concat());
        let _ = read(&text);
    }
}
