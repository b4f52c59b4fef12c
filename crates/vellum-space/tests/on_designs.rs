//! Address spaces over every page table: one program, so that each design is compiled once.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "on_designs/exhaustion.rs"]
mod exhaustion;
#[path = "on_designs/semantics.rs"]
mod semantics;
#[path = "on_designs/threads.rs"]
mod threads;
