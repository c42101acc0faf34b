//! Bodies of the organization plane that are about people: who signed in, organizations and their members.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Email, Time};

#[cfg(feature = "openapi")]
use crate::openapi as schemas;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// What a member may do in an organization; each role may all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees members, projects and environments; reads what ACL rules allow; never writes.
    Member,
    /// Reads and writes what ACL rules allow.
    Developer,
    /// Reads and writes everything; manages members, projects, rules and service accounts.
    Admin,
    /// Manages roles, and the organization itself.
    Owner,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Member, Self::Developer, Self::Admin, Self::Owner];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Developer => "developer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// `GET /api/auth/me`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Profile {
    pub id: Uuid,
    pub email: String,
    pub is_superadmin: bool,
    pub created_at: Time,
}

/// `POST /api/orgs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// 1–63 characters of a–z, 0–9 and hyphens inside.
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::OrganizationName))]
    pub name: String,
}

/// `PATCH /api/orgs/{org}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenameOrganization {
    /// 1–63 characters of a–z, 0–9 and hyphens inside.
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::OrganizationName))]
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Organization {
    pub id: Uuid,
    pub name: String,
    /// The caller's role; null for service accounts, and for superadmins who are no members.
    pub role: Option<Role>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// `POST /api/orgs/{org}/members`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InviteMember {
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::EmailAddress))]
    pub email: Email,
    pub role: Role,
}

/// `PATCH /api/orgs/{org}/members/{user_id}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeRole {
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Member {
    pub user_id: Uuid,
    pub email: String,
    pub role: Role,
    pub created_at: Time,
}
