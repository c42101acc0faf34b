//! Sealpod on a real cluster: one installed release for all tests, a namespace for each. Run by `cargo xtask test`.
#![forbid(unsafe_code)]

mod admission;
mod applications;
mod authority;
mod bindings;
mod canary;
mod certmanager;
mod chart;
mod convergence;
mod deletion;
mod delivery;
mod injector;
mod jobs;
mod lost;
mod mesh;
mod native;
mod node;
mod outage;
mod page;
mod quickstart;
mod reasons;
mod restart;
mod restored;
mod rotated;
mod sidecar;
mod upgrade;
mod waiting;
