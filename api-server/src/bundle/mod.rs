//! The bundle: one consistent snapshot of what a caller may read of an environment, and waiting for it to change.

mod poll;
mod request;
mod state;

pub use poll::{Answer, answer};
pub use request::{Known, Request};
