//! The bundle: one consistent snapshot of what a caller may read of an environment, and waiting for it to change.
//!
//! A call is answered in one look at the store, and a call that waits holds next to nothing until it has to look again:
//! see [`Waiting`].

mod look;
mod poll;
mod polls;
mod request;
mod state;

pub use poll::{Answer, Waiting, answer};
pub use polls::Polls;
pub use request::{Known, Request, known_tags};

/// Most bytes of an answer: what clients are ready to read.
pub const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Most bytes of what one answer is made of: names, sealed values and configurations. Half of that, because values that
/// are not text, and text that JSON has to escape, grow on their way.
const MAX_WEIGHT: usize = 16 * 1024 * 1024;
/// What is read without waiting for a turn of its own.
const LIGHT: usize = 1024 * 1024;
