//! What every operation of the document gets beside what its route says, so that no route can forget it: an id, the
//! descriptions and limits of the names in its path, the headers of its answers, and examples.

use serde_json::{Value, json};

use super::{examples, parameters, problems};

/// The document as it is published.
///
/// JSON rather than utoipa's types, because those have no place for some of what OpenAPI 3.1 can say.
pub fn complete(document: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).expect("a description is always JSON");
    let mut paths = document["paths"].take();
    for (path, item) in paths.as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            self::operation(path, method, operation);
        }
    }
    document["components"]["responses"] = Value::Object(problems::components());
    document["components"]["headers"] = headers();
    examples::add(&document["components"]["schemas"], &mut paths);
    document["paths"] = paths;
    document
}

/// A reference to a component.
pub fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// A reference to one of [`headers`].
pub fn header(name: &str) -> Value {
    reference("headers", name)
}

fn headers() -> Value {
    let text = |description: &str, example: &str| json!({"description": description, "required": true, "schema": {"type": "string"}, "example": example});
    json!({
        "RequestId": text(
            "The id of this request in the log: the caller's own `X-Request-Id`, if it sent one that a log can hold",
            "0198c0de-5ea1-7000-8000-0000000000ff",
        ),
        "Challenge": text("Which credential is missing", "Bearer realm=\"sealpod\""),
        "Location": text("Path of what was made", "/api/orgs/acme/projects/payments-api"),
        "ETag": text("The state of what is answered, for `If-None-Match`", "\"9f86d081884c7d65\""),
        "Link": {
            "description": "The next page, where there is one", "schema": {"type": "string"},
            "example": "</api/management/applications?limit=100&after=payments-api>; rel=\"next\"",
        },
        "RetryAfter": {
            "description": "Seconds to wait before another try", "required": true,
            "schema": {"type": "integer", "minimum": 0}, "example": 1,
        },
        "RetryAfterWhereItHelps": {
            "description": "Seconds to wait before another try, where one can do better",
            "schema": {"type": "integer", "minimum": 0}, "example": 1,
        },
    })
}

fn operation(path: &str, method: &str, operation: &mut Value) {
    // Handlers of different resources have one name, so the tag makes the id unique.
    let tag = operation["tags"][0]
        .as_str()
        .unwrap_or_default()
        .replace([' ', '-'], "_");
    let handler = operation["operationId"].as_str().unwrap_or_default();
    operation["operationId"] = format!("{tag}_{handler}").into();
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        match parameter["in"].as_str() {
            Some("path") => parameters::in_path(path, method, parameter),
            _ => parameters::complete(path, parameter),
        }
    }
    if let Some(body) = operation.get_mut("requestBody") {
        optional_body(body);
    }
    let takes = |name: &str| {
        let mut parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.any(|parameter| parameter["name"] == name)
    };
    let has_tag = takes("If-None-Match") || takes("If-Match");
    let has_pages = path.starts_with("/api/management/") && takes("limit");
    // The consumer plane names the environment in its query.
    let (has_names, has_body) = (
        path.contains('{') || takes("environment"),
        operation["requestBody"].is_object(),
    );
    if let Some(responses) = operation["responses"].as_object_mut() {
        responses.retain(|status, response| {
            response.get("$ref").is_none() || problems::applies(status, method, has_names, has_body)
        });
        for (status, response) in responses {
            self::response(status, response, has_tag, has_pages);
        }
    }
}

/// A body that may be left out is not one that may be null.
fn optional_body(body: &mut Value) {
    let Some(schema) = body.pointer_mut("/content/application~1json/schema") else {
        return;
    };
    if let Some(given) = without_null(schema) {
        *schema = given;
        body["required"] = false.into();
    }
}

/// The schema of what is not null, where null is one of two choices.
pub fn without_null(schema: &Value) -> Option<Value> {
    let choices = schema["oneOf"].as_array()?;
    let given: Vec<_> = choices.iter().filter(|choice| choice["type"] != "null").collect();
    (given.len() == 1 && choices.len() == 2).then(|| given[0].clone())
}

fn response(status: &str, response: &mut Value, has_tag: bool, has_pages: bool) {
    if response.get("$ref").is_some() {
        return;
    }
    if response.get("content").is_none()
        && let Some(problem) = problems::with_description(status, &response["description"])
    {
        *response = problem;
        return;
    }
    if response["description"].as_str().is_none_or(str::is_empty) {
        response["description"] = described(status).into();
    }
    let headers = &mut response["headers"];
    headers["X-Request-Id"] = header("RequestId");
    if status == "201" {
        headers["Location"] = header("Location");
    }
    if has_tag && ["200", "304"].contains(&status) {
        headers["ETag"] = header("ETag");
    }
    if has_pages && status == "200" {
        headers["Link"] = header("Link");
    }
}

/// What a status says where the route has nothing to add.
fn described(status: &str) -> &'static str {
    match status {
        "200" => "Done",
        "201" => "Made; `Location` is its path",
        "204" => "Done; there is nothing to answer",
        "304" => "Nothing changed",
        _ => "",
    }
}
