//! The organization plane: `/api/orgs`, `/api/auth` and what stands beside them.

mod accounts;
mod acl;
mod audit;
mod auth;
mod bundle;
mod consumers;
mod environments;
mod members;
mod organizations;
mod projects;
mod quotas;
mod secrets;
mod trash;

pub use audit::{AuditExport, AuditFilter};
pub use bundle::Fetched;

use crate::path::path;
use crate::{Client, Result};

/// Calls within one organization. Names are given as they are; escaping is done here.
#[derive(Debug, Clone, Copy)]
pub struct Org<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name: &'a str,
}

/// A part of a list by name. Its default is the whole list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// 1–1000
    pub limit: Option<u32>,
    /// Begins behind this name: the last one of the page before.
    pub after: Option<&'a str>,
}

impl Org<'_> {
    fn at(&self, segments: &[&str]) -> Result<String> {
        path(["api", "orgs", self.name].into_iter().chain(segments.iter().copied()))
    }
}
