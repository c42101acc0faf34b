//! What every Sealpod process needs around its own work: logging, the stop signal, the listener for probes and metrics,
//! TLS that follows its files, and a process that leaves no core dump.
#![forbid(unsafe_code)]

pub mod admin;
pub mod files;
pub mod process;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
mod usage;
