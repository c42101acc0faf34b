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
//! The process must have installed a rustls provider first. Nothing here shows a credential or a value: not in
//! `Debug`, not in an error.
#![forbid(unsafe_code)]

pub mod backoff;
mod bundle;
mod client;
mod error;
mod management;
mod org;
mod path;
mod transport;

pub use bundle::Fetched;
pub use client::{BuildError, Builder, Client, Credential};
pub use error::Error;
pub use management::Management;
pub use org::Org;

pub type Result<T> = std::result::Result<T, Error>;
