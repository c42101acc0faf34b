//! How fields that JSON carries as text describe themselves in an OpenAPI document: with the limits that their readers
//! keep to, each from the constant that the reader uses.
//!
//! The types here have no values; `#[schema(value_type = …)]` names them where a body's field is plain text to Rust.

use utoipa::openapi::schema::{AdditionalProperties, Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::email::MAX_EMAIL;
use crate::names::{
    MAX_ACCOUNT_NAME, MAX_APPLICATION_NAME, MAX_CONFIGURATION_KEY, MAX_DESCRIPTION, MAX_DNS_NAME, MAX_ENVIRONMENT_NAME,
    MAX_LABEL, MAX_PROGRAM_VERSION, MAX_SECRET_NAME,
};
use crate::redacted::MAX_VALUE_BYTES;
use crate::wire::consumers::MAX_REPORTED_KEYS;
use crate::wire::{MAX_LABEL_KEY, MAX_LABEL_VALUE, MAX_LABELS};

/// Text that names something: not blank and without control characters. See `names::check_free_text`.
const FREE_TEXT: &str =
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// The same without the `=` that ends a label's key in `?label=key=value`.
const LABEL_KEY: &str =
    r"^[^=\u0000-\u001f\u007f-\u009f]*[^=\s\u0000-\u001f\u007f-\u009f][^=\u0000-\u001f\u007f-\u009f]*$";
const SLUG: &str = "^[a-z0-9]+(-[a-z0-9]+)*$";
/// See `names::check_label`.
const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// A label that is its own slug.
const SLUG_LABEL: &str = "^[a-z0-9]+(-[a-z0-9]+)*$";
/// See `names::check_dns_name`.
const DNS_NAME: &str = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$";
/// See `names::check_program_version`.
const PROGRAM_VERSION: &str = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$";
/// See `names::check_secret_key`.
const SECRET_KEY: &str = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$";
/// Most characters of a value in base64.
const MAX_VALUE_TEXT: usize = MAX_VALUE_BYTES.div_ceil(3) * 4;

fn text(description: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .examples([example])
}

/// Text of `min` to `max` characters of a pattern; the empty pattern is none.
pub(crate) fn bounded(description: &str, example: &str, min: usize, max: usize, pattern: &str) -> Object {
    let object = text(description, example)
        .max_length(Some(max))
        .pattern((!pattern.is_empty()).then_some(pattern));
    object.min_length((min > 0).then_some(min)).build()
}

/// Describes a type as what `$object` builds.
macro_rules! schema {
    ($type:ty, $object:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::Schema::Object($object).into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}

/// Describes a type of a value as text with a description, an optional format and an example.
macro_rules! text_schema {
    ($type:ident, $description:expr, $format:expr, $example:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let object = utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .format(Option::map($format, utoipa::openapi::SchemaFormat::KnownFormat))
                    .description(Some($description))
                    .examples([$example]);
                utoipa::openapi::Schema::Object(object.build()).into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}

pub(crate) use {schema, text_schema};

/// Declares types that only stand in descriptions.
macro_rules! described {
    ($($(#[$doc:meta])* $name:ident = $object:expr;)*) => {
        $($(#[$doc])* #[derive(Debug)] pub enum $name {} schema!($name, $object);)*
    };
}

described! {
    ApplicationName = bounded(
        "Free text: not blank, no control characters", "Payments API", 1, MAX_APPLICATION_NAME, FREE_TEXT);
    EnvironmentName = bounded(
        "Free text: not blank, no control characters", "Production", 1, MAX_ENVIRONMENT_NAME, FREE_TEXT);
    SecretName = bounded(
        "Free text, stored as given: not blank, no control characters", "db-password", 1, MAX_SECRET_NAME, FREE_TEXT);
    /// What the organization plane makes; it reads any [`SecretName`].
    SecretKey = bounded(
        "Letters, digits, `.`, `_` and `-`; the first is a letter, a digit or `_`", "db-password", 1, MAX_SECRET_NAME,
        SECRET_KEY);
    ConfigurationKey = bounded(
        "Free text: not blank, no control characters", "Logging:Level", 1, MAX_CONFIGURATION_KEY, FREE_TEXT);
    ConfigurationValue = text("Not empty", "Information").min_length(Some(1)).build();
    Description = bounded("Free text, perhaps none", "Takes the money", 0, MAX_DESCRIPTION, "");
    AccountName = bounded(
        "Free text: not blank, no control characters", "ci-deploy", 1, MAX_ACCOUNT_NAME, FREE_TEXT);
    /// Of an application or project.
    Slug = bounded(
        "Lower-case a–z, 0–9 and single hyphens inside", "payments-api", 1, MAX_APPLICATION_NAME, SLUG);
    EnvironmentSlug = bounded(
        "Lower-case a–z, 0–9 and single hyphens inside", "prod", 1, MAX_ENVIRONMENT_NAME, SLUG);
    OrganizationName = bounded("A DNS label: a–z, 0–9 and hyphens inside", "acme", 1, MAX_LABEL, LABEL);
    ProjectName = bounded(
        "A DNS label without double hyphens, so that it is its own slug", "payments-api", 1, MAX_LABEL, SLUG_LABEL);
    /// A key in a question for a bundle.
    NamedKey = bounded("A key that may exist", "db-password", 1, MAX_SECRET_NAME, "");
    PodName = bounded("A DNS name", "web-7d9f8c6b5-x2x8z", 1, MAX_DNS_NAME, DNS_NAME);
    NamespaceName = bounded("A DNS label", "shop", 1, MAX_LABEL, LABEL);
    NodeName = bounded("A DNS name", "node-1", 1, MAX_DNS_NAME, DNS_NAME);
    AgentVersion = bounded(
        "Letters, digits, `.`, `_`, `+` and `-`; the first is a letter or digit", "0.1.0", 1, MAX_PROGRAM_VERSION,
        PROGRAM_VERSION);
    /// The name of anything that exists, in a reference to it.
    Reference = text("The name of something that exists", "prod").min_length(Some(1)).build();
    SecretValueText = bounded(
        "1 byte to 1 MiB, as text or in base64: `encoding` says which", "correct horse battery staple", 1,
        MAX_VALUE_TEXT, "");
    EmailAddress = text("ASCII; read without regard to case", "ada@example.com")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
        .max_length(Some(MAX_EMAIL))
        .build();
    ApplicationKey = text("Shown this once", "grm_EXAMPLE…").build();
    ServiceAccountKey = text("Shown this once", "cr_sa_EXAMPLE…").build();
    /// Of a login; a text that no code can be is a wrong one, not a wrong request.
    LoginCode = text("Six digits", "000000").build();
    SessionKey = text("Shown this once", "cr_session_EXAMPLE…").build();
}

/// Labels of applications, environments and service accounts.
#[derive(Debug)]
pub enum Labels {}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let key = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_LABEL_KEY))
            .pattern(Some(LABEL_KEY));
        let value = ObjectBuilder::new()
            .schema_type(Type::String)
            .max_length(Some(MAX_LABEL_VALUE));
        let labels = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Text to find objects by: `?label=team=payments`"))
            .property_names(Some(Schema::Object(key.build())))
            .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(value.into()))))
            .max_properties(Some(MAX_LABELS))
            .examples([serde_json::json!({"team": "payments"})]);
        Schema::Object(labels.build()).into()
    }
}

impl ToSchema for Labels {}

/// Numbers of versions by key, in a report.
#[derive(Debug)]
pub enum LoadedVersions {}

impl PartialSchema for LoadedVersions {
    fn schema() -> RefOr<Schema> {
        let key = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_SECRET_NAME))
            .pattern(Some(FREE_TEXT));
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(i64::MAX));
        let versions = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Numbers of versions, by key"))
            .property_names(Some(Schema::Object(key.build())))
            .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(number.into()))))
            .max_properties(Some(MAX_REPORTED_KEYS))
            .examples([serde_json::json!({"db-password": 3})]);
        Schema::Object(versions.build()).into()
    }
}

impl ToSchema for LoadedVersions {}
