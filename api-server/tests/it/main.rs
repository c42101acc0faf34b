//! The REST planes over real HTTP, on real SQLite files. The files mirror `src/routes`; numbers in comments are those
//! of the behaviour cases that other servers of this kind satisfy.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets what it does not expect has failed"
)]

mod archives;
mod backup_commands;
mod backup_faults;
mod backup_retention;
mod backups;
mod bad_input;
mod bucket;
mod canary;
mod cli;
mod client;
mod consumer;
mod contract;
mod crash;
mod crash_upgrade;
mod credentials;
mod cross_plane;
mod delivery_model;
mod docs;
mod errors;
mod fail_closed;
mod foreign_log;
mod fsyncs;
mod full_disk;
mod held;
mod io_errors;
mod isolation;
mod limits;
mod login;
mod looks;
mod mail;
mod mail_server;
mod management;
mod metrics;
mod moved;
mod operations;
mod orgs;
mod overload;
mod process;
mod query_plans;
mod quotas;
mod remembered;
mod restore;
mod restore_compare;
mod restore_faults;
mod retention;
mod roles;
mod rotation;
mod rotation_load;
mod secrecy;
mod seeds_org;
mod service;
mod shim;
mod statements;
mod stops;
mod store_accounts;
mod store_audit;
mod store_bundle;
mod store_clock;
mod store_disk;
mod store_files;
mod store_resources;
mod store_sealing;
mod store_support;
mod store_trash;
mod store_values;
mod store_watch;
mod support;
mod volume;
mod wall_clock;
