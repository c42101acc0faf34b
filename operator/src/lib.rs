//! Sealpod's Kubernetes side: the controller brings custom resources to the api-server, the injector puts the sidecar
//! into pods, and the bootstrap makes an installation's first keys.
#![forbid(unsafe_code)]

mod authority;
pub mod bootstrap;
mod certs;
pub mod cli;
pub mod controller;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod fake;
pub mod injector;
mod secrets;
mod tolerant;
