#![forbid(unsafe_code)]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod agent;
mod binary;
mod delivery;
mod exec;
mod fake;
mod full;
mod gate;
mod hostile;
mod notify;
mod pace;
mod pod;
mod report;
mod stale;
mod storm;
mod trouble;
