use std::collections::BTreeSet;

use serde_json::Value;

struct Operation {
    /// `get /path`
    name: String,
    body: Value,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, body) in item.as_object().unwrap() {
            operations.push(Operation {
                name: format!("{method} {path}"),
                body: body.clone(),
            });
        }
    }
    operations
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// What a reference within the document leads to.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(path) => document
            .pointer(&path[1..])
            .unwrap_or_else(|| panic!("{path} leads nowhere")),
        None => value,
    }
}

#[test]
fn the_document_lists_every_route_and_reads_back() {
    let document = crate::routes::document();
    let names: Vec<_> = operations(&document)
        .into_iter()
        .map(|operation| operation.name)
        .collect();
    insta::assert_snapshot!(names.join("\n"));
    for name in ["Problem", "Bundle", "SetValue", "AclRule"] {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn nothing_in_the_document_is_null_but_what_an_example_has() {
    fn nulls(value: &Value, path: &str) {
        assert!(!value.is_null(), "{path}");
        let fields = value.as_object().into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| !name.starts_with("example")) {
            nulls(value, &format!("{path}/{name}"));
        }
        for (at, value) in value.as_array().into_iter().flatten().enumerate() {
            nulls(value, &format!("{path}/{at}"));
        }
    }
    nulls(&crate::routes::document(), "");
}

#[test]
fn every_operation_is_described_and_has_an_id_and_tags_of_its_own() {
    let document = crate::routes::document();
    let tags: BTreeSet<_> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|tag| is_text(&tag["description"]))
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for Operation { name, body } in operations(&document) {
        assert!(is_text(&body["summary"]), "{name}: the handler needs a doc comment");
        assert!(
            ids.insert(body["operationId"].as_str().unwrap().to_owned()),
            "{name}: another handler of its tag has its name; rename one, or give it a tag of its own"
        );
        let tag = body["tags"][0].as_str().unwrap();
        assert!(
            tags.contains(tag),
            "{name}: describe the tag {tag} in routes/openapi.rs"
        );
        let is_of_a_plane = crate::auth::Plane::of(name.split_once(' ').unwrap().1).is_some();
        assert_eq!(
            is_of_a_plane,
            body["security"].is_array(),
            "{name}: say which credentials it takes"
        );
    }
}

#[test]
fn every_parameter_is_described_and_bounded() {
    let document = crate::routes::document();
    for Operation { name, body } in operations(&document) {
        for parameter in body["parameters"].as_array().into_iter().flatten() {
            let which = format!("{name}: {}", parameter["name"]);
            assert!(
                is_text(&parameter["description"]),
                "{which}: describe it where the route declares it, or in openapi/complete.rs"
            );
            let schema = resolved(&document, &parameter["schema"]);
            let is_number = schema["type"].to_string().contains("integer");
            let is_name = parameter["in"] == "path";
            assert!(
                !is_number || is_name || schema["maximum"].is_number(),
                "{which}: a number needs the limits that its reader keeps to"
            );
            assert!(
                !is_name || is_number || schema["format"] == "uuid" || schema["maxLength"].is_number(),
                "{which}"
            );
        }
    }
}

/// A number that every path parses, and a reader that every body passes: `contract.rs` holds them against each other.
#[test]
fn every_field_of_a_request_says_what_it_takes() {
    let document = crate::routes::document();
    for Operation { name, body } in operations(&document) {
        let schema = &body["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let choices = schema["oneOf"].as_array();
        let schema = choices.map_or(schema, |choices| {
            choices.iter().find(|one| one["$ref"].is_string()).unwrap()
        });
        let schema = resolved(&document, schema);
        let schema = if schema["type"] == "array" {
            resolved(&document, &schema["items"])
        } else {
            schema
        };
        assert_eq!(
            schema["additionalProperties"], false,
            "{name}: unknown fields are refused"
        );
        for (field, property) in schema["properties"].as_object().unwrap() {
            let property = property["oneOf"].as_array().map_or(property, |choices| {
                choices.iter().find(|choice| choice["type"] != "null").unwrap()
            });
            let property = resolved(&document, property);
            let kind = property["type"].to_string();
            let is_plain_text = kind.contains("string") && property["format"].is_null() && property["enum"].is_null();
            assert!(
                !is_plain_text || is_text(&property["description"]),
                "{name}: {field} is any text: name one of `sealpod_core::openapi` as its `value_type`, or add one"
            );
            assert!(
                !kind.contains("integer") || property["maximum"].is_number() || field == "version",
                "{name}: {field} has no `maximum`"
            );
        }
    }
}

#[test]
fn every_answer_is_described_and_says_which_headers_it_has() {
    let document = crate::routes::document();
    for Operation { name, body } in operations(&document) {
        let responses = body["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        for (status, response) in responses {
            let response = resolved(&document, response);
            assert!(is_text(&response["description"]), "{name}: {status}");
            let has = |header: &str| response["headers"][header].is_object();
            assert!(has("X-Request-Id"), "{name}: {status}");
            assert_eq!(has("Location"), status == "201", "{name}: {status}");
            assert_eq!(has("WWW-Authenticate"), status == "401", "{name}: {status}");
            assert_eq!(
                has("Retry-After"),
                ["429", "503"].contains(&status.as_str()),
                "{name}: {status}"
            );
            let is_problem = response["content"]["application/problem+json"].is_object();
            assert_eq!(is_problem, status.starts_with(['4', '5']), "{name}: {status}");
        }
    }
}

#[test]
fn every_error_that_the_server_can_answer_is_in_the_document() {
    let document = crate::routes::document();
    let documented = document["components"]["responses"].as_object().unwrap();
    let status = |name: &str| {
        let mut all = (400..600).filter_map(|number| axum::http::StatusCode::from_u16(number).ok());
        let named = |status: &axum::http::StatusCode| {
            let reason = status.canonical_reason().unwrap_or_default().to_uppercase();
            reason.replace([' ', '-'], "_") == name
        };
        all.find(named)
            .unwrap_or_else(|| panic!("{name} is no status"))
            .as_u16()
    };
    let mut seen = 0;
    for rest in include_str!("../../error/table.rs").split("S::").skip(1) {
        let Some((name, rest)) = rest.split_once(',') else {
            continue;
        };
        let Some(code) = rest.trim_start().strip_prefix("codes::") else {
            continue;
        };
        // No operation of the document has another method than it has.
        if name == "METHOD_NOT_ALLOWED" {
            continue;
        }
        let (number, code) = (status(name), code.split(',').next().unwrap().to_lowercase());
        let is_there = documented.values().any(|response| {
            let content = &response["content"]["application/problem+json"];
            let codes = response["description"].as_str().unwrap();
            content["example"]["status"] == number && codes.contains(&format!("`{code}`"))
        });
        assert!(
            is_there,
            "{number} {code}: add it to SHARED in routes/openapi/problems.rs"
        );
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn every_json_body_has_an_example_without_a_hole() {
    fn holes(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(fields) => fields.iter().any(|(name, value)| holes(value) && name != "updatedOn"),
            Value::Array(items) => items.iter().any(holes),
            _ => false,
        }
    }
    let document = crate::routes::document();
    for Operation { name, body } in operations(&document) {
        let mut bodies = vec![("request", &body["requestBody"])];
        bodies.extend(
            body["responses"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(status, response)| (&**status, response)),
        );
        for (which, body) in bodies {
            let content = &resolved(&document, body)["content"]["application/json"];
            let is_free = content["schema"].get("type").is_none() && content["schema"].get("$ref").is_none();
            assert!(
                content.is_null() || is_free || !holes(&content["example"]),
                "{name}: {which}: add the field's word to routes/openapi/examples.rs: {}",
                content["example"]
            );
        }
    }
}

/// Whether a value is one that a schema describes, by types, fields and choices.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolved(document, schema);
    for choices in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choices].as_array() {
            return choices.iter().any(|choice| fits(document, choice, value));
        }
    }
    if let Some(choices) = schema["enum"].as_array() {
        return choices.contains(value);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_of_kind = match &schema["type"] {
        Value::String(only) => only == kind,
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        _ => true,
    };
    is_of_kind
        && match value {
            Value::Array(items) => items.iter().all(|item| fits(document, &schema["items"], item)),
            Value::Object(fields) if schema["properties"].is_object() => {
                let required = schema["required"].as_array().into_iter().flatten();
                let mut required = required.filter_map(Value::as_str);
                required.all(|name| fields.contains_key(name))
                    && fields.iter().all(|(name, value)| {
                        let field = schema["properties"].get(name);
                        field.is_some_and(|field| fits(document, field, value))
                    })
            }
            _ => true,
        }
}

#[test]
fn every_example_of_a_body_is_one_that_its_schema_describes() {
    let document = crate::routes::document();
    let mut seen = 0;
    for Operation { name, body } in operations(&document) {
        let answers = body["responses"].as_object().unwrap().values();
        for body in answers.chain([&body["requestBody"]]) {
            let contents = resolved(&document, body)["content"].as_object();
            for (kind, content) in contents.into_iter().flatten().filter(|(kind, _)| kind.contains("json")) {
                // The description of all this describes itself by being there.
                if name.contains("/openapi.json") {
                    continue;
                }
                let (schema, example) = (&content["schema"], &content["example"]);
                assert!(
                    !example.is_null() && fits(&document, schema, example),
                    "{name}: {kind}: {example}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
    let quotas = &document["components"]["schemas"]["SetQuotas"];
    for other in [
        Value::from(1),
        serde_json::json!({"projects": "1"}),
        serde_json::json!({"x": 1}),
    ] {
        assert!(!fits(&document, quotas, &other), "{other}");
    }
}

#[test]
fn no_example_looks_like_a_key_that_somebody_could_try() {
    let text = crate::routes::document().to_string();
    for prefix in ["cr_sa_", "grm_", "cr_session_"] {
        for (at, _) in text.match_indices(prefix) {
            let rest = &text[at + prefix.len()..];
            assert!(
                rest.starts_with("EXAMPL") || rest.starts_with('…'),
                "{prefix}{}",
                &rest[..20]
            );
        }
    }
}
