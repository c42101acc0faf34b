//! How callers name what they mean, and where that turned out to be.

use crate::crypto::Aad;
use crate::ids::{ConfigurationId, EnvironmentId, OrganizationId, ProjectId, RevisionId, SecretId, VersionId};

/// A live organization: by its name, or by its id where a caller was found to belong to it, because its name can have
/// gone over to another one since.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OrganizationRef {
    Name(String),
    Id(OrganizationId),
}

impl From<&str> for OrganizationRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<OrganizationId> for OrganizationRef {
    fn from(id: OrganizationId) -> Self {
        Self::Id(id)
    }
}

/// A live project: by its place in an organization, or by the id that an application's key stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProjectRef {
    Slug {
        organization: OrganizationRef,
        project: String,
    },
    Id(ProjectId),
}

impl ProjectRef {
    pub fn slug(organization: impl Into<OrganizationRef>, project: impl Into<String>) -> Self {
        Self::Slug {
            organization: organization.into(),
            project: project.into(),
        }
    }

    /// An environment of this project, by its slug.
    pub fn environment(self, environment: impl Into<String>) -> EnvironmentRef {
        EnvironmentRef {
            project: self,
            environment: environment.into(),
        }
    }
}

/// A live environment of a live project.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvironmentRef {
    pub project: ProjectRef,
    /// Its slug.
    pub environment: String,
}

/// Where an environment was found: what values are bound to, and the names that ACL patterns match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub organization: OrganizationId,
    pub organization_name: String,
    pub project: ProjectId,
    pub project_slug: String,
    pub environment: EnvironmentId,
    pub environment_slug: String,
}

impl Location {
    pub fn version_aad(&self, secret: SecretId, version: VersionId) -> Aad {
        Aad::version(self.organization, self.project, self.environment, secret, version)
    }

    pub fn configuration_aad(&self, configuration: ConfigurationId, revision: RevisionId) -> Aad {
        Aad::configuration(
            self.organization,
            self.project,
            self.environment,
            configuration,
            revision,
        )
    }
}

/// A piece of a list that is ordered by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Begin behind this name.
    pub after: Option<String>,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
}

impl Page {
    pub(super) fn after(&self) -> &str {
        // No name is empty, so the empty name stands before all of them.
        self.after.as_deref().unwrap_or_default()
    }

    /// As SQL has it, where a negative limit is none.
    pub(super) fn limit(&self) -> i64 {
        self.limit.map_or(-1, i64::from)
    }
}
