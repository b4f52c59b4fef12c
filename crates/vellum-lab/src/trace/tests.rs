use super::*;
use proptest::prelude::*;
use vellum_tlb::{Asid, Geometry, Leaf, Lookup, Port, Preset, Tlb, TlbCounts};

fn read(bytes: &[u8]) -> Result<Vec<Event>, TraceError> {
    Reader::from_bytes("t", bytes)?.collect()
}

fn message(bytes: &[u8]) -> String {
    read(bytes).expect_err("the trace is bad").to_string()
}

fn vt(numbers: &[u8]) -> Vec<u8> {
    [vt::MAGIC, numbers].concat()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn event(page: u64, kind: Kind) -> Event {
    Event::new(Vpn::new(page).unwrap(), kind)
}

fn write(events: &[Event]) -> Vec<u8> {
    let mut writer = VtWriter::new(Vec::new()).unwrap();
    for &event in events {
        writer.push(event).unwrap();
    }
    writer.finish().unwrap()
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Fetch), Just(Kind::Read), Just(Kind::Write)]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let pages = prop_oneof![0u64..50, 0u64..1 << 52, (1u64 << 52) - 5..1 << 52];
    proptest::collection::vec((pages, kinds()).prop_map(|(p, k)| event(p, k)), 0..200)
}

proptest! {
    #[test]
    fn what_is_written_is_read_packed_or_not(events in events()) {
        let bytes = write(&events);
        prop_assert_eq!(read(&bytes).unwrap(), events.clone());
        prop_assert_eq!(read(&packed(&bytes)).unwrap(), events);
    }

    #[test]
    fn any_bytes_give_events_or_an_error(numbers in proptest::collection::vec(any::<u8>(), 0..99)) {
        let _ = read(&vt(&numbers));
        let _ = read(&numbers);
        let _ = read(&[b"I  1000,3\n", &numbers[..]].concat());
        let _ = read(&[&0xfd2f_b528u32.to_le_bytes()[..], &numbers[..]].concat());
    }

    #[test]
    fn a_cut_trace_is_an_error_or_a_prefix(events in events(), cut in 0usize..1000) {
        let whole = write(&events);
        let cut = 9 + cut % whole.len();
        match read(&whole[..cut.min(whole.len())]) {
            Ok(read) => prop_assert!(events.starts_with(&read)),
            Err(e) => prop_assert!(matches!(e.fault, TraceFault::Truncated)),
        }
    }
}

#[test]
fn numbers_are_differences_within_their_stream() {
    // Fetch +2, read +1, write +1 (to 2), fetch -1: zigzag 4, 2, 2, 1; times 4; plus the kind.
    let bytes = vt(&[16, 8 | 1, 8 | 2, 4]);
    let expected =
        [event(2, Kind::Fetch), event(1, Kind::Read), event(2, Kind::Write), event(1, Kind::Fetch)];
    assert_eq!(read(&bytes).unwrap(), expected);
    assert_eq!(write(&expected), bytes);
}

#[test]
fn faults_name_file_and_byte() {
    let plain = |numbers: &[u8]| message(&vt(numbers));
    assert_eq!(plain(&[16, 0x80]), "t: byte 9: the trace ends within its magic or a number");
    assert_eq!(plain(&[16, 16, 7]), format!("t: byte 10: {}", TraceFault::Kind));
    assert_eq!(plain(&[4]), format!("t: byte 8: {}", TraceFault::PageRange), "page -1");
    let mut long = [0xff; 10];
    assert_eq!(plain(&long), format!("t: byte 8: {}", TraceFault::Overlong));
    long[9] = 1;
    assert!(plain(&long).ends_with(&TraceFault::Kind.to_string()), "64 bits are a number");
    // Page 2^52: zigzag 2^53, times 4 is 2^55, which takes eight groups of 7 bits.
    let wide = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    assert_eq!(plain(&wide), format!("t: byte 8: {}", TraceFault::PageRange));
    let in_packed = message(&packed(&vt(&[16, 3])));
    assert_eq!(in_packed, format!("t: byte 9 of the decoded stream: {}", TraceFault::Kind));
}

#[test]
fn formats_are_told_by_content() {
    assert_eq!(message(b""), "t: the file is empty");
    assert_eq!(message(b"vtr"), "t: byte 0: the trace ends within its magic or a number");
    assert_eq!(message(b"vtrace2\n\x10"), format!("t: byte 0: {}", TraceFault::Magic));
    assert_eq!(message(b"\x7fELF...."), format!("t: byte 0: {}", TraceFault::UnknownFormat));
    assert!(message(&packed(b"\x7fELF....")).contains("byte 0 of the decoded stream"));
    assert_eq!(message(&packed(b"")), "t: the file is empty");
}

#[test]
fn damaged_zstd_is_an_error_with_a_place() {
    let events: Vec<Event> = (0..100_000).map(|n| event(n * n % 7919, Kind::Read)).collect();
    let good = packed(&write(&events));
    for damage in [&good[..good.len() / 2], &good[..4], &good[..good.len() - 1]] {
        let text = message(damage);
        assert!(text.contains(" of the decoded stream: zstd cannot unpack the data: "), "{text}");
    }
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x55;
    // Without a checksum in the frame damage may decode to other numbers; never to a panic.
    if let Err(e) = read(&flipped) {
        assert!(e.offset.is_some_and(|o| o.decoded), "{e}");
    }
}

#[test]
fn lackey_text_becomes_thinned_references() {
    let text = b"==123== Lackey\n\
        I  04001090,3\n\
        I  04001093,5\n\
        \x20L 1ffefff2d8,8\n\
        \x20M 1ffefff2d0,8\n\
        \x20S 1ffefff2d0,8\n\
        ==123== a line of valgrind's in between\n\
        --123-- WARNING: unhandled amd64-linux syscall: 334\n\
        **123** printed by a client request\n\
        I  04001ffe,4\n\
        \x20L 0421fffc,8\n\
        \x20S 1ffefff2d0,8\n";
    let expected = [
        event(0x4001, Kind::Fetch),
        event(0x01ff_efff, Kind::Read),
        event(0x01ff_efff, Kind::Write), // the modify's store: the first after loads
        event(0x4002, Kind::Fetch),      // the fetch straddles; its first page was the last one
        event(0x421f, Kind::Read),
        event(0x4220, Kind::Read),
        event(0x01ff_efff, Kind::Write),
    ];
    assert_eq!(read(text).unwrap(), expected);
    assert_eq!(read(&packed(text)).unwrap(), expected);
    let crlf: Vec<u8> = String::from_utf8_lossy(text).replace('\n', "\r\n").into_bytes();
    assert_eq!(read(&crlf).unwrap(), expected);
    assert_eq!(read(text.trim_ascii_end()).unwrap(), expected, "the last newline may be missing");
}

#[test]
fn only_a_mark_with_a_number_is_valgrinds() {
    for start in ["--5-- WARNING\n", "**5** text\n", "==00:00:00:00.001 5== text\n"] {
        assert_eq!(read(&[start.as_bytes(), b"I  1000,1\n"].concat()).unwrap().len(), 1, "{start}");
    }
    for start in ["---\nkey: 1\n", "** bold **\n", "=====\n", "-5-\n"] {
        let expected = format!("t: byte 0: {}", TraceFault::UnknownFormat);
        assert_eq!(message(start.as_bytes()), expected);
        let later = format!("t: byte 10: {}", TraceFault::Line);
        assert_eq!(message(&[b"I  1000,1\n", start.as_bytes()].concat()), later);
    }
}

#[test]
fn zstd_frames_to_be_skipped_are_skipped() {
    let events: Vec<Event> = (0..100).map(|n| event(n, Kind::Read)).collect();
    let bytes = write(&events);
    let skip = |n: u8| [&[0x50 + n, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"size"].concat();
    // As pzstd writes: before each part of the trace the size that it has.
    for n in [0, 15] {
        let parts = [skip(n), packed(&bytes[..50]), skip(n), packed(&bytes[50..])];
        assert_eq!(read(&parts.concat()).unwrap(), events);
    }
    assert_eq!(message(&skip(0)), "t: the file is empty");
    assert!(message(&skip(0)[..9]).contains("zstd cannot unpack the data: "));
}

#[test]
fn a_window_of_any_size_is_unpacked() {
    let events: Vec<Event> = (0..100).map(|n| event(n, Kind::Read)).collect();
    let bytes = write(&events);
    for log in [27, 30, 31] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, &bytes).unwrap();
        assert_eq!(read(&encoder.finish().unwrap()).unwrap(), events, "--long={log}");
    }
}

#[test]
fn a_modify_that_straddles_loads_both_pages_and_stores_both() {
    let expected =
        [event(1, Kind::Read), event(2, Kind::Read), event(1, Kind::Write), event(2, Kind::Write)];
    assert_eq!(read(b" M 1ffc,8\n").unwrap(), expected);
}

#[test]
fn a_bad_line_is_named_by_its_first_byte() {
    let expected = format!("t: byte 10: {}", TraceFault::Line);
    let overlong = "I  1,".to_owned() + &"0".repeat(300);
    let bad = [
        "I  zz,3\n",
        "I  10\n",
        "I  10,\n",
        "I  10,0\n",
        "I  10,-1\n",
        "I  +10,1\n",
        "X  10,1\n",
        "I  ffffffffffffffff,2\n",
        "I  10,99999999\n",
        "I  11112222333344445,1\n",
        "I",
        &overlong,
    ];
    for line in bad {
        let text = format!("I  1000,3\n{line}");
        assert_eq!(message(text.as_bytes()), expected, "{line}");
    }
    assert_eq!(read(b"I  ffffffffffffffff,1\n").unwrap(), [event((1 << 52) - 1, Kind::Fetch)]);
}

#[test]
fn a_long_line_of_valgrinds_own_is_skipped() {
    let mut text = b"==1== ".to_vec();
    text.extend(core::iter::repeat_n(b'x', 600_000));
    text.extend(b"\nI  1000,1\n");
    assert_eq!(read(&text).unwrap(), [event(1, Kind::Fetch)]);
}

#[test]
fn a_trace_counts_its_pages_and_keeps_to_its_limit() {
    let events: Vec<Event> = (0..10_000).map(|n| event(n % 5000, Kind::Read)).collect();
    let bytes = write(&events);
    let trace = |limit| Trace::read("x", Reader::from_bytes("t", &bytes).unwrap(), limit);
    let whole = trace(None).unwrap();
    assert_eq!((whole.pages, whole.highest.as_u64()), (5000, 4999));
    assert_eq!(whole.events, events);
    assert_eq!(trace(Some(10)).unwrap().pages, 10);
    assert!(matches!(trace(Some(0)).unwrap_err().fault, TraceFault::NoEvents));
}

#[test]
fn a_limit_ends_decoding_and_none_ends_at_the_most() {
    let endless = || {
        let source = Read::chain(vt::MAGIC, std::io::repeat(9));
        Reader::new("t", Box::new(source)).unwrap()
    };
    assert_eq!(Trace::read("x", endless(), Some(300_000)).unwrap().pages, 300_000);
    let most = whole::collect(&mut endless(), None, 1000).unwrap_err();
    assert_eq!(most.to_string(), "t: more than 1000 events (--events N replays the first N)");
    let exactly = write(&[event(1, Kind::Read); 10]);
    let mut reader = Reader::from_bytes("t", &exactly).unwrap();
    assert_eq!(whole::collect(&mut reader, None, 10).unwrap().len(), 10);
    // What is behind the limit may be anything.
    let damaged = [&exactly[..], &[3]].concat();
    let limited = |limit| Trace::read("x", Reader::from_bytes("t", &damaged).unwrap(), limit);
    assert_eq!(limited(Some(10)).unwrap().events.len(), 10);
    assert!(matches!(limited(None).unwrap_err().fault, TraceFault::Kind));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Reader::open(&dir.path().join("no.vt")).unwrap_err();
    assert!(matches!(missing.fault, TraceFault::Io(_)));
    assert!(missing.to_string().contains("no.vt: "), "{missing}");
    let directory = Reader::open(dir.path()).unwrap_err();
    assert!(directory.to_string().ends_with("is a directory"), "{directory}");
}

/// Misses of a TLB so small that much is pushed out.
fn misses(events: &[Event]) -> TlbCounts {
    let small = Preset {
        l1d: Geometry::full(2),
        l1i: Geometry::full(1),
        l2: Geometry::full(3),
        ..Preset::REFERENCE
    };
    let mut tlb = Tlb::new(&small);
    for event in events {
        let port = if event.kind() == Kind::Fetch { Port::Fetch } else { Port::Data };
        if tlb.lookup(event.va(), Asid::default(), port) == Lookup::Miss {
            tlb.fill(event.va(), Asid::default(), port, Leaf::PAGE_4K);
        }
    }
    tlb.counts()
}

/// The pages that loads and stores go to, one after the other, and whether each was stored to.
fn visits(events: &[Event]) -> Vec<(Vpn, bool)> {
    let mut visits: Vec<(Vpn, bool)> = Vec::new();
    for e in events.iter().filter(|e| e.kind() != Kind::Fetch) {
        match visits.last_mut() {
            Some((page, stored)) if *page == e.page() => *stored |= e.kind() == Kind::Write,
            _ => visits.push((e.page(), e.kind() == Kind::Write)),
        }
    }
    visits
}

proptest! {
    #[test]
    fn thinning_changes_no_count_of_misses_and_hides_no_first_store(
        raw in proptest::collection::vec((0u64..6, kinds()), 0..300),
    ) {
        let thin = |events: &[Event]| {
            let mut filter = Filter::default();
            events.iter().copied().filter(|&e| filter.keep(e)).collect::<Vec<_>>()
        };
        let raw: Vec<Event> = raw.into_iter().map(|(p, k)| event(p, k)).collect();
        let once = thin(&raw);
        prop_assert_eq!(thin(&once), once.clone());
        prop_assert_eq!(misses(&once), misses(&raw));
        prop_assert_eq!(visits(&once), visits(&raw));
    }
}
