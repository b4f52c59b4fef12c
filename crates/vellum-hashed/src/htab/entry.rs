//! One entry of a PowerPC page table: two doublewords.
//!
//! ```text
//!   v   63 62 61                              12 11         7 6  5  4  3  2  1  0
//!      +-----+----------------------------------+------------+--+--+--+--+--+--+--+
//!      | B 0 | VSID                             | page 15:11 |s2|s1|bo|s0|L |H |V |
//!      +-----+----------------------------------+------------+--+--+--+--+--+--+--+
//!        AVPN: 61:7      software's: 6:3         B, L = 0: segments of 256 MiB, pages of 4 KiB
//!
//!   r   63 62 61  60 59                 12 11   9 8 7 6 5 4 3 2 1  0
//!      +---+-+------+---------------------+------+-+-+-+-+-+-+-+----+
//!      |pp0|0| key  | real page number    | key  |R|C|W|I|M|G|N| pp |     V = 1
//!      |   | | 0:1  |                     | 2:4  | | | | | | | |1:2 |
//!      +---+-+------+---------------------+------+-+-+-+-+-+-+-+----+
//!      | the raw entry, whole                                       |     V = 0, s0 = 1
//!      +------------------------------------------------------------+
//!
//!    pp 0:2, with Ks = 0 and Kp = 1 in the SLB        WIMG
//!      000  system RW                                  0010  write-back
//!      010  system RW, user RW                         1010  write-through
//!      011  system RO, user RO                         0101  uncached, but may be overridden
//!      110  system RO                                  0111  uncached
//!                                                      0110  write-combining
//!                                                      1011  write-protect: nearest there is
//! ```
//!
//! Everything of a leaf has an architected place or one of the four software bits: s2 to s0 are the
//! attributes that are software's own, `bo` is the mark of a *bolted* entry, which is never pushed
//! out of its group. That is what global ones are, the kernel's: a refill that misses one of those
//! cannot run. (Linux has bolted in the same bit, and its lock in that of s0; here the lock is the
//! group's stripe.) Of six memory types two pairs mean the same to this hardware and are told apart
//! by M, which has no effect on what is not cached, and by G, which only forbids speculation.
//!
//! What the hardware must not use has V = 0, and all else is software's then: a mapping without any
//! right (no pp denies the system reading) and soft entries are kept raw, with s0 to say that the
//! slot is taken. An entry with V = 0 and s0 = 0 is free, and all 0.
//!
//! # Invariants
//!
//! - `decode(encode(raw)) == raw` for every raw entry that `vellum_core::pte` makes at 4 KiB.
//!
//! Source: Power ISA 2.07B, Book III-S, chapter "Storage Control": "Page Table" (the entry), "Basic
//! Storage Protection" (Ks, Kp, pp), "Storage Control Bits" (WIMG). From 3.0 on, B is in the second
//! doubleword and AVPN and the real page number are shorter; with B = 0 that changes no bit here.

use vellum_core::{Attr, Entry, MemoryType, PAGE_SHIFT, PhysAddr, pte};

/// The bits of a raw leaf (vellum_core::pte) that are made from those of v and r, but for the frame.
mod leaf {
    pub(super) const PRESENT: u64 = 1;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const NO_EXECUTE: u64 = 1 << 63;
    pub(super) const GLOBAL: u16 = 1 << 8;
    pub(super) const SOFT: [u16; 3] = [1 << 9, 1 << 10, 1 << 11];
    const PWT: u64 = 1 << 3;
    const PCD: u64 = 1 << 4;
    const PAT: u64 = 1 << 7;
    /// Of each type, in the order of `MEMORY`.
    pub(super) const MEMORY: [u64; 6] = [0, PWT, PCD, PCD | PWT, PAT, PAT | PWT];
}

/// V: hardware may use the entry.
const VALID: u64 = 1;
/// H: the entry is in its secondary group.
pub(super) const SECONDARY: u64 = 1 << 1;
/// s0, or with V = 0: the slot is taken.
const SOFTWARE: u64 = 1 << 3;
/// The entry stays in its group.
pub(super) const BOLTED: u64 = 1 << 4;
/// Where [`Attr::SOFT`] is.
const SOFT: [u64; 3] = [SOFTWARE, 1 << 5, 1 << 6];
/// Where s0 is, and the bolted mark, s1 and s2 above it.
const SOFTWARE_SHIFT: u32 = 3;
/// B and AVPN, by which an entry is found.
pub(super) const V_AVPN: u64 = !0x7f;

const PP0: u64 = 1 << 63;
const READ_ONLY: u64 = 0b11;
const USER_WRITES: u64 = 0b10;
const NO_EXECUTE: u64 = 1 << 2;
const G: u64 = 1 << 3;
const M: u64 = 1 << 4;
const I: u64 = 1 << 5;
const W: u64 = 1 << 6;
const WIMG: u64 = W | I | M | G;
const WIMG_SHIFT: u32 = 3;
const CHANGED: u64 = 1 << 7;
const REFERENCED: u64 = 1 << 8;
/// Three low bits of the key, and the upper two.
const KEY_LOW_SHIFT: u32 = 9;
const KEY_HIGH_SHIFT: u32 = 60;

/// The six types by their WIMG.
const MEMORY: [(MemoryType, u64); 6] = [
    (MemoryType::WriteBack, M),
    (MemoryType::WriteThrough, W | M),
    (MemoryType::UncachedMinus, I | G),
    (MemoryType::Uncached, I | M | G),
    (MemoryType::WriteCombining, I | M),
    (MemoryType::WriteProtect, W | M | G),
];

/// Pairs of an attribute and the bit of r that says the same.
const SAME: [(Attr, u64); 2] = [(Attr::ACCESSED, REFERENCED), (Attr::DIRTY, CHANGED)];

/// Whether the slot with this first doubleword is taken.
pub(super) const fn is_taken(v: u64) -> bool {
    v & (VALID | SOFTWARE) != 0
}

/// Whether hardware may use the entry.
pub(super) const fn is_valid(v: u64) -> bool {
    v & VALID != 0
}

/// The low bits of v but for H, and r, of a raw entry that is not 0.
pub(super) fn encode(raw: u64) -> (u64, u64) {
    match pte::decode(raw, PAGE_SHIFT) {
        Entry::Leaf(pa, attr) if attr.contains(Attr::READ) => encode_leaf(pa, attr),
        _ => (SOFTWARE, raw),
    }
}

fn encode_leaf(pa: PhysAddr, attr: Attr) -> (u64, u64) {
    let mut v = VALID;
    for (soft, bit) in Attr::SOFT.into_iter().zip(SOFT) {
        v |= if attr.contains(soft) { bit } else { 0 };
    }
    v |= if attr.contains(Attr::GLOBAL) { BOLTED } else { 0 };
    let pp = match (attr.contains(Attr::WRITE), attr.contains(Attr::USER)) {
        (true, false) => 0,
        (true, true) => USER_WRITES,
        (false, true) => READ_ONLY,
        (false, false) => PP0 | USER_WRITES,
    };
    let mut r = pa.as_u64() | pp | wimg(attr);
    r |= if attr.contains(Attr::EXEC) { 0 } else { NO_EXECUTE };
    for (status, bit) in SAME {
        r |= if attr.contains(status) { bit } else { 0 };
    }
    let key = u64::from(attr.key());
    (v, r | (key & 0b111) << KEY_LOW_SHIFT | key >> 3 << KEY_HIGH_SHIFT)
}

fn wimg(attr: Attr) -> u64 {
    let memory = attr.memory().unwrap_or_default();
    MEMORY.into_iter().find(|&(of, _)| of == memory).map_or(M, |(_, wimg)| wimg)
}

/// The raw entry of two doublewords; of a free slot, 0.
#[inline]
pub(super) fn decode(v: u64, r: u64) -> u64 {
    if !is_valid(v) {
        return if is_taken(v) { r } else { 0 };
    }
    // By tables, without a detour by `Attr`: this is a part of each look-up. What comes too late, and
    // will not count, may have any bits.
    let rights = RIGHTS[(r >> 60 & 0b1000 | r & 0b111) as usize];
    let status = STATUS[(r >> WIMG_SHIFT & 0x3f) as usize];
    let software = SOFTWARES[(v >> SOFTWARE_SHIFT & 0xf) as usize];
    let key = (r & 0b111 << KEY_LOW_SHIFT) << 50 | (r & 1 << KEY_HIGH_SHIFT) << 2;
    r & pte::FRAME | rights | u64::from(status) | u64::from(software) | key
}

/// The raw bits of pp 1:2 and N, with pp 0 above them: rights.
const RIGHTS: [u64; 16] = {
    let mut rights = [0; 16];
    let mut bits = 0;
    while bits < 16 {
        let pp = match (bits & 0b1000 != 0, bits & READ_ONLY) {
            (false, 0) => leaf::WRITE,
            (false, USER_WRITES) => leaf::WRITE | leaf::USER,
            (false, READ_ONLY) => leaf::USER,
            _ => 0,
        };
        let execute = if bits & NO_EXECUTE == 0 { 0 } else { leaf::NO_EXECUTE };
        rights[bits as usize] = leaf::PRESENT | pp | execute;
        bits += 1;
    }
    rights
};

/// The raw bits of WIMG, C and R: the memory type, of a WIMG that is no type's write-back; dirty and
/// accessed.
const STATUS: [u16; 64] = {
    let mut status = [0; 64];
    let mut bits = 0;
    while bits < 64 {
        let r = bits << WIMG_SHIFT;
        let mut raw = if r & CHANGED == 0 { 0 } else { pte::DIRTY };
        raw |= if r & REFERENCED == 0 { 0 } else { pte::ACCESSED };
        let mut n = 0;
        while n < MEMORY.len() {
            raw |= if MEMORY[n].1 == r & WIMG { leaf::MEMORY[n] } else { 0 };
            n += 1;
        }
        status[bits as usize] = raw as u16;
        bits += 1;
    }
    status
};

/// The raw bits of s0, the bolted mark, s1 and s2: global, and what is software's own.
const SOFTWARES: [u16; 16] = {
    let mut softwares = [0; 16];
    let mut bits = 0;
    while bits < 16 {
        let v = (bits as u64) << SOFTWARE_SHIFT;
        let mut raw = if v & BOLTED == 0 { 0 } else { leaf::GLOBAL };
        let mut n = 0;
        while n < SOFT.len() {
            raw |= if v & SOFT[n] == 0 { 0 } else { leaf::SOFT[n] };
            n += 1;
        }
        softwares[bits] = raw;
        bits += 1;
    }
    softwares
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vellum_core::Soft;

    fn raw(pa: u64, attr: Attr) -> u64 {
        pte::encode(Entry::Leaf(PhysAddr::new(pa), attr), PAGE_SHIFT).unwrap()
    }

    /// By hand from the drawing of the architecture.
    #[test]
    fn entries_have_the_architected_bits() {
        let data = Attr::RW | Attr::USER | Attr::STATUS;
        // pp 10, N, M, C, R, key 00101.
        assert_eq!(encode(raw(0x1234_5000, data.with_key(5))), (1, 0x1234_5b96));
        // Key 01011: 01 at 61:60, 011 at 11:9. pp 011; no N.
        let text = Attr::RX | Attr::USER;
        assert_eq!(encode(raw(0x7000, text.with_key(11))), (1, 0x1000_0000_0000_7613));
        // System, read only: pp 110. Uncached: I, M, G.
        let device = Attr::READ.with_memory(MemoryType::Uncached);
        assert_eq!(encode(raw(0x000f_ffff_ffff_f000, device)), (1, 0x800f_ffff_ffff_f03e));
        // System, global: bolted. Write-through: W, M.
        let kernel = (Attr::RW | Attr::GLOBAL).with_memory(MemoryType::WriteThrough);
        assert_eq!(encode(raw(0, kernel)), (0x11, 0x54));
        let [s0, s1, s2] = Attr::SOFT;
        assert_eq!(encode(raw(0, Attr::READ | s0)).0, 0x09);
        assert_eq!(encode(raw(0, Attr::READ | s1)).0, 0x21);
        assert_eq!(encode(raw(0, Attr::READ | s2)).0, 0x41);
    }

    #[test]
    fn what_hardware_must_not_use_is_not_valid() {
        let none = raw(0x5000, Attr::NONE | Attr::USER);
        assert_eq!(encode(none), (8, none));
        let soft = pte::encode(Entry::Soft(Soft::new(3).unwrap()), PAGE_SHIFT).unwrap();
        assert_eq!(encode(soft), (8, soft));
        assert_eq!((decode(8, soft), decode(0, 0)), (soft, 0));
        assert!(is_taken(8) && !is_valid(8) && !is_taken(0));
    }

    #[test]
    fn no_type_is_cached_by_write_through_and_inhibited_at_once() {
        let all: std::collections::BTreeSet<_> = MEMORY.iter().map(|&(_, wimg)| wimg).collect();
        assert_eq!(all.len(), 6);
        assert!(all.iter().all(|wimg| wimg & (W | I) != W | I));
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(2048))]

        #[test]
        fn every_entry_comes_back(attr: u32, frame in 0..1u64 << 40, soft in 1..1u64 << 62) {
            let soft = pte::encode(Entry::Soft(Soft::new(soft).unwrap()), PAGE_SHIFT).unwrap();
            let (v, r) = encode(soft);
            prop_assert_eq!(decode(v, r), soft);
            let entry = Entry::Leaf(PhysAddr::new(frame << 12), Attr::from_bits(attr));
            if let Ok(raw) = pte::encode(entry, PAGE_SHIFT) {
                let (v, r) = encode(raw);
                prop_assert_eq!(decode(v, r), raw);
                prop_assert_eq!(v & (V_AVPN | SECONDARY | 1 << 2), 0, "fields of others");
                prop_assert!(is_taken(v));
            }
        }
    }
}
