//! From values to the text of a file: `env`, `json`, `yaml`, `properties` and templates. Pure: nothing here opens a file
//! or a socket, and nothing that a template says can make it.
//!
//! Errors name keys, lines and filters, never values: they go to logs, statuses and events. What this crate itself writes
//! is wiped when dropped; the template engine's own copies of values are not.
#![forbid(unsafe_code)]

mod buffer;
mod error;
mod filters;
mod formats;
mod refused;
mod template;
mod variables;

use std::collections::BTreeMap;

use sealpod_core::SecretValue;

pub use error::Error;
pub use formats::{format, format_text};
pub use template::{MAX_OUTPUT_BYTES, MAX_SOURCE_BYTES, check_template, template};
pub use variables::variables;

/// What a template sees, as the maps `secrets` and `configurations`.
#[derive(Debug, Clone, Default)]
pub struct Values<'a> {
    pub secrets: BTreeMap<&'a str, &'a SecretValue>,
    pub configurations: BTreeMap<&'a str, &'a str>,
}
