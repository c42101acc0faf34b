//! Sealpod's Kubernetes side: the controller brings custom resources to the api-server, the injector puts the sidecar
//! into pods, and the bootstrap makes an installation's first keys.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod cli;
pub mod controller;
pub mod injector;
