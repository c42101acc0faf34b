//! Bodies of the organization plane (`/api/orgs`): `snake_case`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Edit, Labels};
use crate::redacted::{Encoding, SecretText};
use crate::{Email, Pattern, Time};

#[cfg(feature = "openapi")]
use crate::openapi as schemas;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// `PUT …/secrets/{key}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutSecret {
    #[serde(serialize_with = "SecretText::serialize_exposed")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::SecretValueText))]
    pub value: SecretText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
    pub description: Option<String>,
    #[serde(default)]
    pub encoding: Encoding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
}

/// Answer to `PUT …/secrets/{key}`: never the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct SecretMetadata {
    pub id: Uuid,
    pub key: String,
    pub version: u64,
    pub created_at: Time,
    pub updated_at: Time,
}

/// `GET …/secrets/{key}`: the active version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct SecretWithValue {
    pub key: String,
    #[serde(serialize_with = "SecretText::serialize_exposed")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub value: SecretText,
    pub version: u64,
    pub encoding: Encoding,
    pub created_at: Time,
    pub updated_at: Time,
}

/// An item of `GET …/secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct SecretListItem {
    pub id: Uuid,
    pub key: String,
    /// The active version; null where no version is active now.
    pub version: Option<u64>,
    pub description: Option<String>,
    pub updated_at: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Read,
    Write,
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SubjectType {
    User,
    ServiceAccount,
}

/// `POST /api/orgs/{org}/acl`: makes a rule, or replaces the one of the same subject and patterns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateAclRule {
    pub subject_type: SubjectType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_id: Option<Uuid>,
    /// Instead of `subject_id`, for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::EmailAddress>))]
    pub email: Option<Email>,
    pub project_pattern: Pattern,
    pub env_pattern: Pattern,
    #[serde(default = "Pattern::any")]
    pub key_pattern: Pattern,
    /// Whether the rule also lets its subject read configurations.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(default = false))]
    pub configurations: bool,
    pub permission: Permission,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct AclRule {
    pub id: Uuid,
    pub subject_type: SubjectType,
    pub subject_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub project_pattern: Pattern,
    pub env_pattern: Pattern,
    pub key_pattern: Pattern,
    pub configurations: bool,
    pub permission: Permission,
    pub created_at: Time,
    pub updated_at: Time,
}

/// `POST /api/orgs/{org}/service-accounts`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateServiceAccount {
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::AccountName))]
    pub name: String,
    /// Slug of the one project that the account may reach; absent: the whole organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Reference>))]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels, required = false))]
    pub labels: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct CreatedServiceAccount {
    pub id: Uuid,
    pub name: String,
    pub project: Option<String>,
    /// `cr_sa_…`; shown this once.
    #[serde(serialize_with = "SecretText::serialize_exposed")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::ServiceAccountKey))]
    pub api_key: SecretText,
    /// The first 12 characters of the key.
    pub key_prefix: String,
    pub expires_at: Option<Time>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels))]
    pub labels: Labels,
    pub created_at: Time,
}

/// An item of `GET /api/orgs/{org}/service-accounts`: never a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct ServiceAccount {
    pub id: Uuid,
    pub name: String,
    pub project: Option<String>,
    pub key_prefix: String,
    pub expires_at: Option<Time>,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels))]
    pub labels: Labels,
    pub created_at: Time,
    pub last_used_at: Option<Time>,
}

/// `POST /api/orgs/{org}/service-accounts/{id}/rotate`; without a body earlier keys die at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RotateServiceAccount {
    /// How long the key in use lives on, in seconds.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 2_592_000, default = 0))]
    pub overlap_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct RotatedServiceAccountKey {
    #[serde(serialize_with = "SecretText::serialize_exposed")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::ServiceAccountKey))]
    pub api_key: SecretText,
    pub key_prefix: String,
    pub old_key_expires_at: Option<Time>,
}

/// `POST /api/orgs/{org}/projects`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// A DNS label that is its own slug.
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::ProjectName))]
    pub name: String,
    /// Free text; the name where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::ApplicationName>))]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
    pub description: Option<String>,
}

/// `PATCH /api/orgs/{org}/projects/{project}`: what is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UpdateProject {
    /// Another slug: the path changes, and rules match the new name from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::ProjectName, required = false))]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::ApplicationName, required = false))]
    pub display_name: Option<String>,
    /// Null takes it away.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
    pub description: Edit<Option<String>>,
}

/// `GET /api/orgs/{org}/projects/{project}`, and an item of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Project {
    pub id: Uuid,
    /// Its slug.
    pub name: String,
    pub display_name: String,
    pub description: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// `POST /api/orgs/{org}/projects/{project}/envs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = CreateProjectEnvironment))]
#[serde(deny_unknown_fields)]
pub struct CreateEnvironment {
    /// A DNS label that is its own slug.
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::ProjectName))]
    pub name: String,
}

/// `GET /api/orgs/{org}/projects/{project}/envs/{env}`, and an item of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = ProjectEnvironment))]
pub struct Environment {
    pub id: Uuid,
    /// Its slug.
    pub name: String,
    pub display_name: String,
    pub created_at: Time,
}

/// An item of `GET …/secrets/{key}/versions`: never a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = EnvironmentSecretVersion))]
pub struct SecretVersion {
    pub version: u64,
    pub is_enabled: bool,
    pub expires_at: Option<Time>,
    pub not_before: Option<Time>,
    pub created_at: Time,
    /// Name of the user, account or key that set it.
    pub created_by: String,
}

/// `PATCH …/secrets/{key}/versions/{n}`: what is left out stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = UpdateEnvironmentSecretVersion))]
#[serde(deny_unknown_fields)]
pub struct UpdateSecretVersion {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = bool, required = false))]
    pub is_enabled: Option<bool>,
    /// Null: for ever.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Time>))]
    pub expires_at: Edit<Option<Time>>,
    /// Null: from the start.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Time>))]
    pub not_before: Edit<Option<Time>>,
}

/// `POST …/secrets/{key}/rollback`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The version whose value becomes the newest one.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub version: u64,
}
