//! Whether what came back is what went out.
//!
//! ```text
//!   out    tag = XXH3-64(key, 4096 bytes)   kept in memory, beside the slot's count
//!   in     the same of what came back       equal, or nobody sees it
//! ```
//!
//! Since the tag is not on the device, it also finds a write that was acknowledged and lost, or went to
//! another page: what lies there then has another tag. Chance lets one in 2^64 wrong pages pass. Who can
//! choose the bytes on the device, and knows the key, can do better; that is what encryption is for.
//!
//! Without the feature `tags` every page has the tag 0: the device is believed.
//!
//! Source: XXH3, as the crate `xxhash-rust` has it.

use vellum_core::FrameBytes;
#[cfg(feature = "tags")]
use xxhash_rust::xxh3::Xxh3Builder;

/// Bytes that are hashed at a time: on the stack.
#[cfg(feature = "tags")]
const CHUNK: usize = 512;

/// The tag of a page.
#[cfg(not(feature = "tags"))]
#[must_use]
pub(crate) const fn tag(_: u64, _: FrameBytes<'_>) -> u64 {
    0
}

/// The tag of a page.
#[cfg(feature = "tags")]
#[must_use]
pub(crate) fn tag(key: u64, bytes: FrameBytes<'_>) -> u64 {
    let mut hash = Xxh3Builder::new().with_seed(key).build();
    let mut chunk = [0; CHUNK];
    for offset in (0..crate::header::PAGE).step_by(CHUNK) {
        bytes.read(offset, &mut chunk);
        hash.update(&chunk);
    }
    hash.digest()
}

#[cfg(all(test, feature = "tags"))]
mod tests {
    use super::*;
    use crate::host::Buffer;
    use std::collections::BTreeSet;

    #[test]
    fn another_key_or_any_bit_changed_makes_another_tag() {
        let page = Buffer::new();
        page.bytes().write(0, b"contents");
        let mut tags: BTreeSet<u64> = (0..3).map(|key| tag(key, page.bytes())).collect();
        assert_eq!(tags.len(), 3);
        for byte in [0, 7, 8, 511, 512, 4095] {
            let mut old = [0];
            page.bytes().read(byte, &mut old);
            for bit in 0..8 {
                page.bytes().write(byte, &[old[0] ^ 1 << bit]);
                assert!(tags.insert(tag(0, page.bytes())), "bit {bit} of byte {byte}");
            }
            page.bytes().write(byte, &old);
        }
        assert!(tags.contains(&tag(0, page.bytes())), "the same contents have the same tag");
    }

    #[test]
    fn a_tag_is_the_hash_of_the_whole_page() {
        // Taken in pieces, it is what the crate makes of one slice.
        let zeros = Buffer::new();
        assert_eq!(tag(0, zeros.bytes()), xxhash_rust::xxh3::xxh3_64(&[0; 4096]));
        assert_eq!(tag(9, zeros.bytes()), xxhash_rust::xxh3::xxh3_64_with_seed(&[0; 4096], 9));
    }
}
