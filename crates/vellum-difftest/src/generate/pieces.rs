//! Arguments of operations, by how often they are worth having.

use super::Range;
use crate::abi::{ADVICE, MAP_HUGETLB, MAP_NORESERVE, PAGE};
use crate::op::{Access, Source};
use crate::random::Random;

/// A range that is now and then a little wrong: bytes too many or too few, at either end.
pub(super) fn odd(random: &mut Random, (at, len): Range) -> Range {
    match random.below(40) {
        0 => (at + 1 + random.below(PAGE - 1).cast_signed(), len),
        1 => (at, len - 1 - random.below(PAGE - 1)),
        2 => (at, len + 1),
        3 => (at, 0),
        _ => (at, len),
    }
}

pub(super) fn protection(random: &mut Random) -> u64 {
    random.weighted(&[
        (60, 3),
        (14, 1),
        (8, 0),
        (6, 5),
        (4, 7),
        (3, 2),
        (2, 4),
        (1, 6),
        // A bit of Arm's; one that nobody has; a bit for `mprotect` alone.
        (1, 8 | 3),
        (1, 0x10 | 1),
        (1, 0x0100_0003),
    ])
}

pub(super) fn protection_of_change(random: &mut Random, growth: bool) -> u64 {
    let prot = random.weighted(&[
        (30, 1),
        (30, 3),
        (14, 0),
        (6, 5),
        (4, 7),
        (4, 2),
        (3, 4),
        (1, 8 | 1),
        (1, 0x10 | 1),
    ]);
    let grows = if growth { 25 } else { 2 };
    if random.chance(grows) {
        return prot | random.pick(&[0x0100_0000, 0x0100_0000, 0x0200_0000, 0x0300_0000]);
    }
    prot
}

/// Flags of `mmap`, and what is mapped.
pub(super) fn map_flags(random: &mut Random, growth: bool, files: bool) -> (u64, Source) {
    let anonymous = !random.chance(if files { 75 } else { 25 });
    let kind = if anonymous {
        random.weighted(&[(75, 2), (14, 1), (2, 3), (3, 8), (1, 0), (1, 4), (1, 10)])
    } else {
        random.weighted(&[(50, 2), (40, 1), (8, 3), (1, 0), (1, 8)])
    };
    let place = random.weighted(&[(70, 0x10), (14, 0x10_0000), (8, 0), (3, 0x10_0010)]);
    let mut flags = kind | place;
    let grows = if growth && anonymous { 60 } else { 3 };
    for (percent, flag) in [
        (grows, 0x100),
        (6, 0x4000),
        (7, 0x8000),
        (3, 0x2000),
        (2, 0x1_0000),
        (2, 0x2_0000),
        (1, 0x800),
        (1, 0x1000),
        (1, 0x40),
        (1, 0x8_0000),
        (1, 0x400_0000),
        (1, 0x80),
        (1, MAP_HUGETLB),
    ] {
        if random.chance(percent) {
            flags |= flag;
        }
    }
    if flags & MAP_HUGETLB != 0 {
        // Without a promise such a mapping can be had even where no page is set aside; ours cannot.
        flags &= !MAP_NORESERVE;
        flags |= random.weighted(&[(6, 0), (3, 21 << 26), (1, 30 << 26), (1, 13 << 26)]);
    }
    if anonymous {
        // The descriptor is not looked at.
        let from =
            if random.chance(3) { Source::File(Access::Read, 3 * PAGE) } else { Source::Nothing };
        return (flags | 0x20, from);
    }
    (flags, from(random))
}

fn from(random: &mut Random) -> Source {
    let access =
        random.weighted(&[(80, Access::ReadWrite), (14, Access::Read), (6, Access::Write)]);
    match random.below(60) {
        0 => Source::Bad,
        1 => Source::Nothing,
        2 => Source::File(access, 1 + random.below(PAGE - 1)),
        3 => Source::File(access, 0xffff_ffff_ffff_f000),
        4 => Source::File(access, 40 * PAGE),
        _ => Source::File(access, PAGE * random.below(17)),
    }
}

pub(super) fn remap_flags(random: &mut Random) -> u64 {
    // maymove 1, fixed 2, dontunmap 4
    random.weighted(&[(25, 0), (22, 1), (35, 3), (6, 5), (6, 7), (2, 2), (1, 4), (1, 8), (1, 6)])
}

pub(super) fn advice(random: &mut Random) -> u64 {
    if random.chance(4) {
        // What nobody has, what nobody has yet, and -1.
        return random.pick(&[5, 7, 99, 104, u64::from(u32::MAX)]);
    }
    // Those that change more than a flag come more often.
    let more = [4, 4, 4, 4, 8, 8, 9, 9, 10, 18, 22, 23, 23, 24, 102, 102, 102, 103];
    if random.chance(50) { random.pick(&more) } else { random.pick(ADVICE).1 }
}
