//! Examples of every body, made from the schemas and from one word for each field: so they are complete, alike in all
//! places, and never a key that somebody could try.

use sealpod_core::wire::audit::JSON_LINES;
use serde_json::{Map, Value, json};

/// An id, in answers and in requests.
const ID: &str = "0198c0de-5ea1-7000-8000-000000000001";

/// What stands in a field of one body, where the field's name alone says too little.
fn word_of(schema: &str, field: &str) -> Option<Value> {
    Some(match (schema, field) {
        ("Organization", "name") => "acme".into(),
        ("Application" | "CreatedApplication", "name") => "Payments API".into(),
        ("Environment" | "RequiredEnvironment", "name") | ("ProjectEnvironment", "display_name") => "Production".into(),
        ("Environment" | "RequiredEnvironment", "slug")
        | ("ProjectEnvironment" | "CreateProjectEnvironment", "name") => "prod".into(),
        ("Secret" | "SecretSummary" | "ConsumerSecret", "name") | ("AuditEntry", "resource_name") => {
            "db-password".into()
        }
        ("Configuration" | "ConsumerConfiguration", "key") => "Logging:Level".into(),
        ("Configuration" | "ConsumerConfiguration", "value") => "Information".into(),
        ("ServiceAccount" | "CreatedServiceAccount", "name") => "ci-deploy".into(),
        ("CreateServiceAccount", "project") => "payments-api".into(),
        ("AclRule" | "CreateAclRule", "project_pattern") => "payments-*".into(),
        ("AclRule" | "CreateAclRule", "env_pattern") => "{dev,staging}".into(),
        ("Keys", "current") | ("MasterKey", "id") | ("Backup", "key_id") => "5f1d0c9a4be37d26".into(),
        ("MasterKey", "configurations") => 12.into(),
        ("Backup", "filename") => format!("sealpod-20260131T120000Z-{ID}.backup").into(),
        ("Backup", "size_bytes") => 1_310_720.into(),
        ("Backup", "sha256") => "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
        ("RestoredBackup", "restored_path") => format!("/var/lib/sealpod/sealpod.db.restore.{ID}").into(),
        ("Rotation", "problem") => "the disk that holds the database is full".into(),
        ("Quota", "limit") => 10_000.into(),
        ("Quota", "used") | ("MasterKey", "versions") => 128.into(),
        ("SetQuotas", "value_bytes") => 1_073_741_824.into(),
        ("SetQuotas", "projects" | "secrets") => 20_000.into(),
        ("CodeRequested", "message") => {
            "if this address may sign in here, a code is on its way to it; it is valid for 10 minutes".into()
        }
        ("Consumer", "id") => format!("shop/web-7d9f8c6b5-x2x8z/{ID}").into(),
        ("Consumer", "actor_type") => "service_account".into(),
        ("Consumer", "actor_name") => "web".into(),
        ("Consumer", "stale") => json!(["db-password"]),
        ("Restored", "note") => "its application key did not come back; make another with rotate-key".into(),
        // Absent: the backups are counted, and the rule's subject is named by its id.
        ("Keys", "backups_unknown") | ("CreateAclRule", "email") => Value::Null,
        _ => return None,
    })
}

/// What stands in a field of this name, unless its schema has an example of its own.
fn word(field: &str) -> Option<Value> {
    Some(match field {
        "expires_at" | "expiresAt" | "expiresOn" | "next_change_at" | "old_key_expires_at" | "purge_at" => {
            "2035-01-31T12:00:00Z".into()
        }
        "updatedOn" | "environment_note" | "note" => Value::Null,
        "name" | "slug" | "project" | "application" | "resource_name" => "payments-api".into(),
        "display_name" => "Payments API".into(),
        "key" => "db-password".into(),
        "value" => "correct horse battery staple".into(),
        "label" | "environment" | "environmentSlug" => "prod".into(),
        "description" => "Takes the money".into(),
        "key_prefix" => "cr_sa_EXAMPL".into(),
        "email" | "created_by" | "deleted_by" | "actor_name" | "createdBy" => "ada@example.com".into(),
        "etag" => "9f86d081884c7d65".into(),
        "missing" => json!(["not-yet-set"]),
        "denied" => json!(["root-password"]),
        "pattern" => json!(["db-*"]),
        "version" => 3.into(),
        "versions" => json!([1, 3]),
        "next_cursor" | "cursor" => "MTI4".into(),
        "action" => "secret.read".into(),
        "actor_type" => "user".into(),
        "resource_type" => "secret".into(),
        "outcome" => "success".into(),
        "ip" => "203.0.113.7".into(),
        "user_agent" => "curl/8.5.0".into(),
        "request_id" => "0198c0de-5ea1-7000-8000-0000000000ff".into(),
        "metadata" => json!({"versions": [3]}),
        "hash" => "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
        "seq" | "count" => 128.into(),
        "overlapSeconds" | "overlap_seconds" => 300.into(),
        "wait" => 0.into(),
        "status" => "ok".into(),
        "is_superadmin" | "configurations" => false.into(),
        _ => return None,
    })
}

/// Gives every JSON body of the operations an example.
pub fn add(schemas: &Value, paths: &mut Value) {
    let operations = paths
        .as_object_mut()
        .into_iter()
        .flatten()
        .flat_map(|(_, item)| item.as_object_mut().into_iter().flatten());
    for (_, operation) in operations {
        if let Some(body) = operation.get_mut("requestBody") {
            content(schemas, body);
        }
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
        for (_, response) in responses.into_iter().flatten() {
            content(schemas, response);
        }
    }
}

fn content(schemas: &Value, body: &mut Value) {
    let contents = body.get_mut("content").and_then(Value::as_object_mut);
    let json = |media_type: &str| ["application/json", JSON_LINES].contains(&media_type);
    for (_, content) in contents.into_iter().flatten().filter(|(kind, _)| json(kind)) {
        if content.get("example").is_none() && content.get("examples").is_none() {
            content["example"] = example(schemas, &content["schema"], ("", ""));
        }
    }
}

/// A value of a schema, which the field of the second name holds in the body of the first.
fn example(schemas: &Value, schema: &Value, (body, field): (&str, &str)) -> Value {
    if let Some(word) = word_of(body, field) {
        return word;
    }
    if let Some(own) = schema["examples"].get(0).or(schema.get("example")) {
        return own.clone();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let body = if schemas[name]["properties"].is_object() {
            name
        } else {
            body
        };
        return example(schemas, &schemas[name], (body, field));
    }
    for choices in ["oneOf", "anyOf", "allOf"] {
        let mut choices = schema[choices].as_array().into_iter().flatten();
        if let Some(choice) = choices.find(|choice| choice["type"] != "null") {
            return example(schemas, choice, (body, field));
        }
    }
    if let Some(first) = schema["enum"].get(0) {
        return schema.get("default").unwrap_or(first).clone();
    }
    let kind = schema["type"]
        .as_str()
        .or(schema["type"][0].as_str())
        .unwrap_or_default();
    match kind {
        "object" => object(schemas, schema, (body, field)),
        "array" => word(field)
            .filter(Value::is_array)
            .unwrap_or_else(|| json!([example(schemas, &schema["items"], (body, ""))])),
        _ if schema["format"] == "uuid" => ID.into(),
        _ => word(field)
            .or_else(|| schema.get("default").cloned())
            .unwrap_or_else(|| match kind {
                "boolean" => true.into(),
                "integer" => 1.into(),
                _ => Value::Null,
            }),
    }
}

fn object(schemas: &Value, schema: &Value, (body, field): (&str, &str)) -> Value {
    if let Some(properties) = schema["properties"].as_object() {
        let fields = properties
            .iter()
            .filter(|(name, _)| word_of(body, name) != Some(Value::Null))
            .map(|(name, schema)| {
                let example = word(name)
                    .filter(|_| {
                        schema["format"] == "date-time"
                            || schema["$ref"] == "#/components/schemas/Time"
                            || nullable_time(schema)
                    })
                    .unwrap_or_else(|| example(schemas, schema, (body, name)));
                (name.clone(), example)
            });
        return Value::Object(fields.collect());
    }
    let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) else {
        return word(field).unwrap_or_else(|| json!({}));
    };
    let key = if field == "configurations" {
        "Logging:Level"
    } else {
        "db-password"
    };
    let value = if field == "configurations" {
        "Information".into()
    } else {
        example(schemas, values, (body, "value"))
    };
    Value::Object(Map::from_iter([(key.to_owned(), value)]))
}

/// Times carry an example of their own, but the end of a window has to be behind its beginning.
fn nullable_time(schema: &Value) -> bool {
    schema["oneOf"].as_array().is_some_and(|choices| {
        choices
            .iter()
            .any(|choice| choice["$ref"] == "#/components/schemas/Time")
    })
}
