//! What the parts of Sealpod agree on: names, patterns, redacted values, the JSON of the REST planes, and the contract
//! between injector and sidecar. Pure: nothing here opens a file or a socket.
#![forbid(unsafe_code)]

pub mod email;
pub mod injection;
pub mod kubernetes;
pub mod names;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod paths;
pub mod pattern;
pub mod redacted;
pub mod time;
pub mod wire;

pub use email::Email;
pub use names::{Slug, slug};
pub use pattern::Pattern;
pub use redacted::{Encoding, SecretText, SecretValue};
pub use time::Time;
