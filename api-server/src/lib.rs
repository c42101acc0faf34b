//! The api-server: one data model behind the management, consumer and organization planes.
//!
//! `main` → [`cli`] → [`config`] → [`app::run`]. A request passes the layers of `app::layers`, its plane's credential
//! check in [`auth`], and a handler in [`routes`]; handlers seal values with [`crypto`] and call use cases of
//! [`store`], which writes the [`audit`] entry in the same transaction.
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod body;
pub mod bundle;
pub mod changes;
pub mod cli;
pub mod config;
pub mod configurations;
pub mod crypto;
mod docs;
pub mod error;
pub mod health;
pub mod idempotency;
pub mod ids;
pub mod limits;
pub mod login;
pub mod mail;
pub mod maintenance;
pub mod preconditions;
pub mod reports;
pub mod retention;
pub mod rotation;
pub mod routes;
pub mod store;
pub mod values;
