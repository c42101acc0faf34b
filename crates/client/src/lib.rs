//! Typed calls of the api-server, for the operator, the sidecar, the demo and the tests.
//!
//! ```ignore
//! let client = Client::builder("https://sealpod-api-server.sealpod.svc:7100")
//!     .credential(Credential::Admin(key))
//!     .ca(pem)
//!     .build()?;
//! let application = client.management().application("shop").await?;
//! ```
//!
//! Reads are tried again while a failure may pass; a change is tried once, unless it is made
//! [idempotent](Client::idempotent). Every call has one deadline over all of that. Redirects are not followed, and
//! proxies of the environment are not used.
//!
//! The process must have installed a rustls provider first. Nothing here shows a credential or a value: not in
//! `Debug`, not in an error.
#![forbid(unsafe_code)]

mod answer;
pub mod backoff;
mod client;
mod code;
mod consumer;
mod error;
mod lines;
mod management;
mod org;
mod pages;
mod path;
mod transport;

pub use answer::{Tag, Tagged};
pub use client::{BuildError, Builder, Client, Credential};
pub use code::Code;
pub use consumer::Consumer;
pub use error::Error;
pub use management::Management;
pub use org::{AuditExport, AuditFilter, Fetched, Org, Page};
pub use pages::Pages;

pub type Result<T> = std::result::Result<T, Error>;
