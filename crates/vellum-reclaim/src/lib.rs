#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod aging;
mod arc;
mod car;
mod clock;
mod clock_pro;
mod estimate;
mod fifo;
mod generational;
mod ghosts;
mod harvest;
#[cfg(feature = "std")]
pub mod host;
mod lirs;
mod lists;
mod looks;
mod lru;
mod nru;
pub mod policies;
mod replacement;
mod s3_fifo;
mod second_chance;
mod sieve;
mod thrashing;
mod two_q;
mod workingset;
pub mod wsclock;

pub use aging::Aging;
pub use arc::Arc;
pub use car::Car;
pub use clock::Clock;
pub use clock_pro::ClockPro;
pub use estimate::{Ages, MOST_AGE};
pub use fifo::Fifo;
pub use generational::Generational;
pub use harvest::Harvest;
pub use lirs::Lirs;
pub use lists::Node;
pub use lru::Lru;
pub use nru::Nru;
pub use replacement::{
    AccessedBits, Arrival, FrameIx, MOST_FRAMES, NoBits, Policy, Replacement, Seen, Shadow,
    SizeError, Victim,
};
pub use s3_fifo::S3Fifo;
pub use second_chance::SecondChance;
pub use sieve::Sieve;
pub use thrashing::Thrashing;
pub use two_q::TwoQ;
pub use workingset::Refaults;
pub use wsclock::WsClock;
