//! Address spaces over one design: what depends on large leaves, on what the embedder does when it is
//! called, and on what changes meanwhile.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "on_radix/calls.rs"]
mod calls;
#[path = "on_radix/counts.rs"]
mod counts;
#[path = "on_radix/flags.rs"]
mod flags;
#[path = "on_radix/forks.rs"]
mod forks;
#[path = "on_radix/large.rs"]
mod large;
#[path = "on_radix/processes.rs"]
mod processes;
