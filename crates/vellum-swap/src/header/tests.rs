//! Headers: there and back, hostile ones, and those of the host's own `mkswap`.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn page() -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let header = Header::new(100, [7; 16], *b"scratch\0\0\0\0\0\0\0\0\0", &[3, 99]).unwrap();
    header.write(&mut page);
    page
}

fn set(page: &mut [u8; PAGE], at: usize, word: u32) {
    page[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

#[test]
fn what_is_written_is_read() {
    let mut written = page();
    let read = Header::read(&written, 100).unwrap();
    assert_eq!((read.last_page(), read.bad(), read.label()), (99, &[3, 99][..], &b"scratch"[..]));
    assert_eq!(read.uuid(), [7; 16]);
    written[..1024].fill(0xeb);
    let boot = written;
    read.write(&mut written);
    assert!(written == boot, "the boot block stays, and nothing else has changed");
}

#[test]
fn a_machine_of_the_other_byte_order_made_it() {
    let mut swapped = page();
    let words = (1024..1036).step_by(4).chain((1536..1536 + 8).step_by(4));
    for at in words {
        swapped[at..at + 4].reverse();
    }
    assert_eq!(Header::read(&swapped, 100), Header::read(&page(), 100));
}

#[test]
fn each_thing_that_can_be_wrong_is_named() {
    let wrong = |change: &dyn Fn(&mut [u8; PAGE])| {
        let mut page = page();
        change(&mut page);
        Header::read(&page, 100).unwrap_err()
    };
    assert_eq!(wrong(&|page| page[4095] = b'3'), HeaderError::NoSignature);
    assert_eq!(wrong(&|page| page.fill(0)), HeaderError::NoSignature);
    assert_eq!(wrong(&|page| page[4086..].copy_from_slice(b"SWAP-SPACE")), HeaderError::OldFormat);
    assert_eq!(
        wrong(&|page| page[4086..4095].copy_from_slice(b"S1SUSPEND")),
        HeaderError::Suspended
    );
    assert_eq!(wrong(&|page| set(page, 1024, 2)), HeaderError::Version(2));
    assert_eq!(wrong(&|page| set(page, 1028, 0)), HeaderError::Empty);
    let beyond = HeaderError::BeyondDevice { last_page: 100, pages: 100 };
    assert_eq!(wrong(&|page| set(page, 1028, 100)), beyond);
    assert_eq!(wrong(&|page| set(page, 1032, 638)), HeaderError::TooManyBad(638));
    assert_eq!(wrong(&|page| set(page, 1032, u32::MAX)), HeaderError::TooManyBad(u32::MAX));
    assert_eq!(wrong(&|page| set(page, 1536, 0)), HeaderError::BadPage(0));
    assert_eq!(wrong(&|page| set(page, 1540, 100)), HeaderError::BadPage(100));
    assert_eq!(Header::new(1, [0; 16], [0; 16], &[]), Err(HeaderError::Empty));
    assert_eq!(Header::new(9, [0; 16], [0; 16], &[9]), Err(HeaderError::BadPage(9)));
    let many = HeaderError::TooManyBad(638);
    assert_eq!(Header::new(9, [0; 16], [0; 16], &[1; 638]), Err(many));
    assert!(Header::new(9, [0; 16], [0; 16], &[1; MOST_BAD]).is_ok());
}

/// Where the host has `mkswap`, its areas are ours, and ours are those that it and `swaplabel` know.
#[test]
fn the_host_s_mkswap_and_this_agree() {
    use std::process::Command;
    let name = std::format!("vellum-swap-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, std::vec![0; 40 * PAGE]).unwrap();
    let made = Command::new("mkswap")
        .args(["--label", "of the host", "--uuid", "01020304-0506-0708-090a-0b0c0d0e0f10"])
        .arg(&path)
        .output();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let Ok(made) = made else {
        std::eprintln!("skipped: there is no mkswap here");
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let theirs: [u8; PAGE] = bytes[..PAGE].try_into().unwrap();
    let header = Header::read(&theirs, 40).unwrap();
    assert_eq!((header.last_page(), header.bad()), (39, &[][..]));
    assert_eq!(header.label(), b"of the host");
    let uuid: Vec<u8> = (1..=16).collect();
    assert_eq!(header.uuid().as_slice(), uuid);
    let mut ours = [0; PAGE];
    header.write(&mut ours);
    assert!(ours == theirs, "byte for byte");
}

proptest! {
    #[test]
    fn any_page_is_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), PAGE),
        signed: bool,
        words in prop::array::uniform3(prop_oneof![0..700u32, any::<u32>()]),
        pages: u64,
    ) {
        if signed {
            bytes[4086..].copy_from_slice(&SIGNATURE);
            bytes[1024..1028].copy_from_slice(&1u32.to_le_bytes());
            for (at, word) in [1028, 1032, 1536].into_iter().zip(words) {
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        let page: [u8; PAGE] = bytes.try_into().unwrap();
        if let Ok(header) = Header::read(&page, pages) {
            prop_assert!(u64::from(header.last_page()) < pages);
            prop_assert!(header.bad().iter().all(|&bad| bad > 0 && bad <= header.last_page()));
            let mut again = page;
            header.write(&mut again);
            prop_assert_eq!(Header::read(&again, pages), Ok(header));
        }
    }
}
