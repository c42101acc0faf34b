//! The management plane: `/api/management`.

mod applications;
mod changes;
mod configurations;
mod environments;
mod secrets;

use crate::path::{path, query};
use crate::{Client, Result};

/// Calls that need the admin key. Slugs and names are given as they are; escaping is done here.
#[derive(Debug, Clone, Copy)]
pub struct Management<'a>(pub(crate) &'a Client);

fn at(segments: &[&str]) -> Result<String> {
    path(["api", "management"].into_iter().chain(segments.iter().copied()))
}

fn labelled(label: Option<(&str, &str)>) -> String {
    let label = label.map(|(key, value)| format!("{key}={value}"));
    query([("label", label.as_deref())])
}
