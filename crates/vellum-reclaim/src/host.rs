//! On a host: streams of references replayed through a policy, and the bound that knows the future.
//!
//! ```text
//!   page numbers --> Stream (dense) --+--> misses::<Lru>(&stream, frames, mode)
//!                                     `--> opt::misses(&stream, frames)
//!
//!   Mode::EveryReference   each hit is a touch; there are no bits          the papers' model
//!   Mode::AccessedBits     each reference sets a bit, the policy is        what an MMU gives
//!                          told of faults alone
//! ```
//!
//! Feature `std`.

extern crate std;

pub mod opt;
pub mod replay;
pub mod stream;

pub use replay::{Mode, Replay, misses};
pub use stream::Stream;
