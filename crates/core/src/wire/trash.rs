//! Bodies of the trash (`/api/orgs/{org}/trash`): `snake_case`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// What was deleted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrashKind {
    /// With all that is in it.
    Project,
    /// With its values and configurations.
    Environment,
    /// In every environment, by the management plane.
    Secret,
    /// The versions that a secret had in one environment, by the organization plane.
    SecretVersions,
    Configuration,
}

impl TrashKind {
    pub const ALL: [Self; 5] = [
        Self::Project,
        Self::Environment,
        Self::Secret,
        Self::SecretVersions,
        Self::Configuration,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Environment => "environment",
            Self::Secret => "secret",
            Self::SecretVersions => "secret_versions",
            Self::Configuration => "configuration",
        }
    }
}

/// An item of `GET /api/orgs/{org}/trash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct TrashItem {
    /// Names the deletion, not the object: `POST …/trash/{id}/restore` takes it.
    pub id: Uuid,
    pub kind: TrashKind,
    /// Of the object, when it was deleted.
    pub name: String,
    /// Slug of the project that it is, or is in.
    pub project: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// First and last of the deleted versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<[u64; 2]>,
    pub deleted_at: Time,
    /// Name of the user, account or key that deleted it.
    pub deleted_by: String,
    /// From then on it cannot be restored.
    pub purge_at: Time,
}

/// Answer to `POST /api/orgs/{org}/trash/{id}/restore`: what is there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Restored {
    pub kind: TrashKind,
    /// Of the object; the same as before its deletion.
    pub id: Uuid,
    pub name: String,
    pub project: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<[u64; 2]>,
    /// What did not come back, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_one_word_everywhere() {
        for kind in TrashKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
