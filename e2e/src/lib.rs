//! What the end-to-end tests (`tests/it`) stand on: one cluster with one installed release for all of them, and a
//! namespace of its own for each.
//!
//! `cargo xtask test` starts the cluster and sets the environment that [`settings::Settings`] reads.
#![forbid(unsafe_code)]

pub mod canary;
pub mod diagnose;
pub mod install;
pub mod pods;
pub mod sandbox;
pub mod server;
pub mod settings;
pub mod tools;
pub mod wait;
pub mod world;

pub use sandbox::{Sandbox, on_cluster, on_cluster_alone};
pub use wait::eventually;
