#![forbid(unsafe_code)]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod agent;
mod binary;
mod fake;
mod pod;
