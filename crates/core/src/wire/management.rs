//! Bodies of the management plane (`/api/management`) and the consumer plane (`/api/consumer`): camelCase.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Edit, Labels};
use crate::Time;
use crate::redacted::{Encoding, SecretText};

#[cfg(feature = "openapi")]
use crate::openapi as schemas;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// Declares a body that callers send: unknown fields are refused.
macro_rules! request {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(ToSchema))]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    };
}

/// Declares a body that the server sends: unknown fields are for newer readers.
macro_rules! answer {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(ToSchema))]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    };
}

request! {
    /// `POST /api/management/applications`
    CreateApplication {
        /// Free text, 1–200 characters; the slug is made from it unless given.
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ApplicationName))]
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
        description: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Slug>))]
        slug: Option<String>,
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels, required = false))]
        labels: Labels,
    }
}

request! {
    /// `PUT /api/management/applications/{slug}`: the slug never changes; an absent description becomes null, absent
    /// labels stay as they are.
    UpdateApplication {
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ApplicationName))]
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
        description: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Labels>))]
        labels: Option<Labels>,
    }
}

answer! {
    Application {
        id: Uuid,
        name: String,
        slug: String,
        description: Option<String>,
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels))]
        labels: Labels,
        created_at: Time,
        updated_at: Time,
    }
}

answer! {
    CreatedApplication {
        id: Uuid,
        name: String,
        slug: String,
        description: Option<String>,
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels))]
        labels: Labels,
        /// `grm_…`; shown this once.
        #[serde(serialize_with = "SecretText::serialize_exposed")]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ApplicationKey))]
        plain_api_key: SecretText,
        created_at: Time,
    }
}

request! {
    /// `POST /api/management/applications/{slug}/rotate-key`; without a body the old key dies at once.
    RotateApplicationKey {
        /// How long earlier keys live on, in seconds.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(maximum = 2_592_000, default = 0))]
        overlap_seconds: u64,
    }
}

answer! {
    RotatedApplicationKey {
        #[serde(serialize_with = "SecretText::serialize_exposed")]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ApplicationKey))]
        plain_api_key: SecretText,
    }
}

request! {
    /// `POST /api/management/applications/{slug}/environments`
    CreateEnvironment {
        /// Free text, 1–100 characters.
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::EnvironmentName))]
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::EnvironmentSlug>))]
        slug: Option<String>,
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels, required = false))]
        labels: Labels,
    }
}

request! {
    /// `PUT /api/management/applications/{slug}/environments/{environmentSlug}`: the slug never changes; absent labels
    /// stay as they are.
    UpdateEnvironment {
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::EnvironmentName))]
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Labels>))]
        labels: Option<Labels>,
    }
}

answer! {
    Environment {
        id: Uuid,
        slug: String,
        name: String,
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Labels))]
        labels: Labels,
        created_at: Time,
    }
}

request! {
    /// `POST /api/management/applications/{slug}/secrets`
    CreateSecret {
        /// Free text, 1–200 characters, stored as given.
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::SecretName))]
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
        description: Option<String>,
    }
}

answer! {
    /// An item of the list of secrets: never a value.
    SecretSummary {
        id: Uuid,
        name: String,
        description: Option<String>,
        created_at: Time,
        updated_at: Time,
    }
}

answer! {
    Secret {
        id: Uuid,
        name: String,
        description: Option<String>,
        created_at: Time,
        updated_at: Time,
        required_environments: Vec<RequiredEnvironment>,
    }
}

answer! {
    /// An environment of the application and whether the secret has a value there.
    RequiredEnvironment {
        slug: String,
        name: String,
        value_provided: bool,
    }
}

request! {
    /// An item of `POST …/secrets/{name}/values`; each appends a version.
    SetValue {
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Reference))]
        environment_slug: String,
        #[serde(serialize_with = "SecretText::serialize_exposed")]
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::SecretValueText))]
        value: SecretText,
        #[serde(default)]
        encoding: Encoding,
        #[serde(default = "yes")]
        #[cfg_attr(feature = "openapi", schema(default = true))]
        is_enabled: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Time>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Time>,
    }
}

fn yes() -> bool {
    true
}

answer! {
    SecretVersion {
        id: Uuid,
        version: u64,
        is_enabled: bool,
        expires_at: Option<Time>,
        not_before: Option<Time>,
        created_at: Time,
    }
}

request! {
    /// `PATCH …/secrets/{name}/versions/{environmentSlug}/{version}`: what is left out stays as it is.
    UpdateVersion {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = bool, required = false))]
        is_enabled: Option<bool>,
        /// Null: for ever.
        #[serde(default, skip_serializing_if = "Edit::is_keep")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Time>))]
        expires_at: Edit<Option<Time>>,
        /// Null: from the start.
        #[serde(default, skip_serializing_if = "Edit::is_keep")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Time>))]
        not_before: Edit<Option<Time>>,
    }
}

request! {
    /// `POST /api/management/applications/{slug}/configurations`
    CreateConfiguration {
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::Reference))]
        environment_slug: String,
        /// Not empty, at most 500 characters.
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ConfigurationKey))]
        key: String,
        /// Not empty.
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ConfigurationValue))]
        value: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
        description: Option<String>,
    }
}

request! {
    /// `PUT …/configurations/{environmentSlug}/{key}`; an absent description keeps the old one.
    UpdateConfiguration {
        #[cfg_attr(feature = "openapi", schema(value_type = schemas::ConfigurationValue))]
        value: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<schemas::Description>))]
        description: Option<String>,
    }
}

answer! {
    Configuration {
        id: Uuid,
        environment_slug: String,
        key: String,
        value: String,
        description: Option<String>,
        created_at: Time,
        updated_at: Time,
    }
}

answer! {
    /// `GET /api/consumer/secrets/{name}`
    ConsumerSecret {
        name: String,
        #[serde(serialize_with = "SecretText::serialize_exposed")]
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        value: SecretText,
        properties: ConsumerSecretProperties,
    }
}

answer! {
    ConsumerSecretProperties {
        enabled: bool,
        expires_on: Option<Time>,
        not_before: Option<Time>,
        version: u64,
        encoding: Encoding,
        created_on: Time,
        /// Always null: a version never changes its value.
        updated_on: Option<Time>,
    }
}

answer! {
    /// `GET /api/consumer/configurations`
    ConsumerConfigurations {
        items: Vec<ConsumerConfiguration>,
    }
}

answer! {
    ConsumerConfiguration {
        key: String,
        value: String,
        /// The environment's slug.
        label: String,
    }
}

answer! {
    /// `GET /api/management/changes`
    Changes {
        /// The `since` of the next call.
        cursor: String,
        /// What moved since, each object once, in the order in which they last moved. They say what to look at again, not
        /// what to find there.
        changes: Vec<Change>,
    }
}

answer! {
    Change {
        kind: ChangeKind,
        /// Of the application, environment, secret, configuration, rule or service account; for a version, of its
        /// secret.
        id: Uuid,
        /// It was deleted, with all that is in it, or revoked.
        deleted: bool,
        /// Slug of an application or environment, name of a secret or account, key of a configuration.
        name: Option<String>,
        /// Slug of the application that it is in, or is.
        application: Option<String>,
        /// Slug of the environment that it is in, or is.
        environment: Option<String>,
        /// The user or service account that a rule is for.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject_id: Option<Uuid>,
    }
}

/// What kind of object moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    Application,
    Environment,
    /// A secret in all environments.
    Secret,
    /// A secret in one environment: a version was set, changed or deleted there, or its time came or went.
    Version,
    Configuration,
    /// A rule. The rules of a deleted account or member go with it.
    Grant,
    /// A service account.
    Account,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_camel_case_and_refuse_unknown_fields() {
        let item: SetValue = serde_json::from_str(r#"{"environmentSlug":"local","value":"canary"}"#).unwrap();
        assert!(item.is_enabled && item.expires_at.is_none() && item.encoding == Encoding::Utf8);
        assert!(!format!("{item:?}").contains("canary"));
        let error = serde_json::from_str::<SetValue>(r#"{"environmentSlug":"l","value":"v","enabled":true}"#);
        assert!(error.unwrap_err().to_string().contains("`enabled`"));
    }
}
