//! The sidecar: reads a bundle, shows it as files in a tmpfs, and waits for the next change. It writes nothing else,
//! talks to nobody but the api-server and the app that wants to hear of changes, and never ends because one is away.
//!
//! ```text
//! config ─┐
//! credentials (key, CA, binding.json) ─> agent: ask ─> selection (pure) ─> publish (atomic swap) ─> hand-over ─> ask …
//!                                          ├─> notify: the app hears of a change
//!                                          └─> health: /healthz /readyz /metrics, and the gate: /wait
//! exec: a command with the values in its environment, of the files or of the server
//! ```
#![forbid(unsafe_code)]

pub mod agent;
pub mod check;
mod clock;
pub mod commands;
pub mod config;
pub mod credentials;
pub mod exec;
pub mod gate;
pub mod handover;
pub mod health;
pub mod install;
pub mod journal;
pub mod notify;
pub mod pace;
pub mod probe;
pub mod publish;
pub mod selection;
