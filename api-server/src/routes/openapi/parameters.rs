//! Parameters that mean the same wherever they stand: what each of them is, and what it can be.

use sealpod_core::wire::bundle::MAX_SELECTORS;
use serde_json::{Value, json};

use super::complete::{reference, without_null};
use crate::audit::{Kind, Verb};

/// `ETag`s as `If-Match` takes them.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;
/// A place in an audit log: a number of 63 bits in base64url.
const AUDIT_CURSOR: &str = "^[A-Za-f][A-Za-z0-9_-]{9}[AEIMQUYcgkosw048]$";
/// 32 bytes in base64url.
const CHANGES_CURSOR: &str = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$";
/// A namespace, a pod and the id of a caller.
const POSITION: &str = "^[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}/[0-9a-fA-F-]{36}$";
/// `key=value`; the key is not empty.
const LABEL: &str = r"^[^=]+=[\s\S]*$";

/// Describes a name in a path and what it can be.
pub fn in_path(path: &str, method: &str, parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default();
    let behind = |part: &str| path.contains(&format!("/{part}/{{{name}}}"));
    let (description, schema) = match name {
        "org" => ("Name of the organization", "OrganizationName"),
        "project" => ("Name of the project: its slug", "Slug"),
        "slug" => ("Slug of the application", "Slug"),
        "env" | "environmentSlug" => ("Slug of the environment", "EnvironmentSlug"),
        "key" if !behind("secrets") => ("Key of the configuration", "ConfigurationKey"),
        "key" if method == "put" => ("Name of the secret; one that does not exist is made", "SecretKey"),
        "key" | "name" => ("Name of the secret", "SecretName"),
        "id" if behind("service-accounts") => ("Id of the service account", ""),
        "id" if behind("acl") => ("Id of the rule", ""),
        "id" if behind("trash") => ("Id of the deletion, from the list of the trash", ""),
        "user_id" => ("Id of the user, from the list of members", ""),
        "backup_id" => ("Id of the backup, from the list of backups", ""),
        "n" | "version" => ("Number of the version", ""),
        _ => ("", ""),
    };
    if !schema.is_empty() {
        parameter["schema"] = reference("schemas", schema);
    } else if matches!(name, "n" | "version") {
        parameter["schema"]["minimum"] = 1.into();
    }
    if parameter["description"].as_str().is_none_or(str::is_empty) {
        parameter["description"] = description.into();
    }
}

/// Describes a parameter of the query or a header beside what its route says of it.
pub fn complete(path: &str, parameter: &mut Value) {
    let is_audit = path.ends_with("/audit-logs");
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let name = name.as_str();
    let description = match name {
        "actor_id" => "Id of the user, service account or application that did it",
        "resource_id" => "Id of what it was done to",
        _ => "",
    };
    let schema = &mut parameter["schema"];
    // Nothing in a query or header is null, whatever it is to Rust.
    if let Some(given) = without_null(schema) {
        *schema = given;
    }
    if let Some(kind) = schema["type"]
        .as_array()
        .and_then(|kinds| kinds.iter().find(|kind| *kind != "null"))
    {
        schema["type"] = kind.clone();
    }
    let is_whole = schema["type"].to_string().contains("integer");
    let limits = match name {
        "limit" if is_audit => json!({"minimum": 1, "maximum": 100}),
        "limit" => json!({"minimum": 1, "maximum": 1_000}),
        "wait" => json!({"minimum": 0, "maximum": 120}),
        "after" if is_whole => json!({"minimum": 1, "maximum": u64::MAX}),
        "after" if is_audit => json!({"pattern": AUDIT_CURSOR}),
        "after" if path.ends_with("/consumers") => json!({"pattern": POSITION}),
        "after" if path.starts_with("/api/management/") => reference("schemas", "SecretName"),
        "since" if path.ends_with("/changes") => json!({"pattern": CHANGES_CURSOR}),
        "environment" => json!({"minLength": 1}),
        "If-Match" => json!({"pattern": TAGS}),
        "label" => repeated(&json!({"type": "string", "pattern": LABEL}), None),
        "key" => repeated(&reference("schemas", "NamedKey"), Some(MAX_SELECTORS)),
        "pattern" => repeated(&reference("schemas", "Pattern"), Some(MAX_SELECTORS)),
        "version" => repeated(&reference("schemas", "PinnedVersion"), Some(MAX_SELECTORS)),
        "action" => json!({"pattern": format!("^({})\\.({})$", kinds().join("|"), verbs().join("|"))}),
        "resource_type" => json!({"enum": kinds()}),
        _ => Value::Null,
    };
    if limits.get("$ref").is_some() {
        *schema = limits;
    } else {
        for (key, limit) in limits.as_object().into_iter().flatten() {
            schema[key] = limit.clone();
        }
    }
    if parameter["description"].as_str().is_none_or(str::is_empty) {
        parameter["description"] = description.into();
    }
}

/// A parameter that is given once for each item, so that an empty array is one that is left out.
fn repeated(item: &Value, most: Option<usize>) -> Value {
    let mut schema = json!({"type": "array", "minItems": 1, "items": item});
    if let Some(most) = most {
        schema["maxItems"] = most.into();
    }
    schema
}

fn kinds() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).collect()
}

fn verbs() -> Vec<&'static str> {
    Verb::ALL.iter().map(|verb| verb.as_str()).collect()
}
