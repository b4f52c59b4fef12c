#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod asids;
pub mod key;
pub mod keys;
pub mod lock;
pub mod lowest;
pub mod node;
pub mod notes;
mod pass;
pub mod pool;
pub mod sequence;
pub mod size;
pub mod space;
pub mod store;
pub mod stripes;
pub mod word;

pub use asids::{AsidError, Asids};
pub use key::Key;
pub use keys::Keys;
pub use lowest::Lowest;
pub use node::Node;
pub use notes::{Note, Notes};
pub use pool::{Nodes, Pool};
pub use sequence::Sequence;
pub use size::Size;
pub use space::Space;
pub use store::{BLOCK, Refused, Store};
pub use stripes::{Stripe, Stripes};
pub use vellum_core::Asid;
