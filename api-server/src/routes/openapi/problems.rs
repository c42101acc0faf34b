//! The errors that calls answer: each stands once among the document's components, and operations refer to it.

use std::collections::BTreeMap;

use sealpod_core::wire::problem::{CONTENT_TYPE, codes};
use serde_json::{Map, Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::{Ref, RefOr, Response};

use super::complete::{header, reference};

/// An error that calls have in common.
struct Shared {
    status: &'static str,
    /// Among the components.
    name: &'static str,
    description: &'static str,
    codes: &'static [&'static str],
    title: &'static str,
    detail: &'static str,
}

const SHARED: [Shared; 15] = [
    Shared {
        status: "400",
        name: "Invalid",
        description: "The request is not valid; `errors` names the fields",
        codes: &[codes::VALIDATION_FAILED],
        title: "The request is not valid",
        detail: "`errors` names each field and what is wrong with it",
    },
    Shared {
        status: "401",
        name: "Unauthorized",
        description: "No valid credential of this plane",
        codes: &[codes::UNAUTHORIZED],
        title: "No valid credential",
        detail: "send a credential of this plane that is valid: see `WWW-Authenticate` and the API's description",
    },
    Shared {
        status: "403",
        name: "Forbidden",
        description: "A role or rule refuses",
        codes: &[codes::FORBIDDEN],
        title: "Not allowed",
        detail: "no rule of this service account speaks of this project",
    },
    Shared {
        status: "404",
        name: "NotFound",
        description: "Something that the path names does not exist, or not for this caller",
        codes: &[codes::NOT_FOUND],
        title: "Not found",
        detail: "this secret does not exist",
    },
    Shared {
        status: "408",
        name: "SlowBody",
        description: "The body took too long to arrive; the connection ends",
        codes: &[codes::TIMEOUT],
        title: "The body took too long",
        detail: "the body did not arrive within its time limit; send it again, faster or in smaller pieces",
    },
    Shared {
        status: "409",
        name: "Conflict",
        description: "A live object has that name, or the state of things forbids the change",
        codes: &[
            codes::CONFLICT,
            codes::DEFAULT_ORG,
            codes::LAST_OWNER,
            codes::MANAGED,
            codes::QUOTA_EXCEEDED,
            codes::IDEMPOTENCY_MISMATCH,
            codes::IDEMPOTENCY_IN_PROGRESS,
            codes::ALREADY_CREATED,
            codes::BACKUP_DAMAGED,
        ],
        title: "Conflict",
        detail: "an application or project has this slug; choose another name, or send a `slug` of its own",
    },
    Shared {
        status: "410",
        name: "CursorGone",
        description: "What moved since the cursor is not known any more; take a new cursor, then list",
        codes: &[codes::CURSOR_GONE],
        title: "The cursor is gone",
        detail: "what moved since this cursor is not known any more; list what you watch again and begin without `since`",
    },
    Shared {
        status: "412",
        name: "Stale",
        description: "`If-Match` names another state than the current one; nothing was changed",
        codes: &[codes::PRECONDITION_FAILED],
        title: "The precondition failed",
        detail: "this application has changed since; read it again, and decide anew",
    },
    Shared {
        status: "413",
        name: "PayloadTooLarge",
        description: "The body is too large: more than 1 MiB, or 8 MiB where it carries values",
        codes: &[codes::PAYLOAD_TOO_LARGE],
        title: "The body is too large",
        detail: "this call takes a body of at most 1048576 bytes",
    },
    Shared {
        status: "414",
        name: "UriTooLong",
        description: "The path and query are too long: more than 32 KiB",
        codes: &[codes::URI_TOO_LONG],
        title: "The URI is too long",
        detail: "this server takes a path and query of at most 32768 bytes",
    },
    Shared {
        status: "415",
        name: "UnsupportedMediaType",
        description: "The body is not JSON",
        codes: &[codes::UNSUPPORTED_MEDIA_TYPE],
        title: "The body is not JSON",
        detail: "send JSON with `Content-Type: application/json`",
    },
    Shared {
        status: "429",
        name: "TooManyRequests",
        description: "Too many requests of this key or from this address",
        codes: &[codes::RATE_LIMITED],
        title: "Too many requests",
        detail: "too many requests; try again after `Retry-After` seconds",
    },
    Shared {
        status: "500",
        name: "Internal",
        description: "The server failed",
        codes: &[codes::INTERNAL],
        title: "Internal error",
        detail: "the server failed; its log has the cause under this answer's X-Request-Id",
    },
    Shared {
        status: "503",
        name: "Unavailable",
        description: "Not now: it starts, stops, is out of order, took too long, has too much to do, or no room to put a read on record. Without `Retry-After` where waiting does not help: something is switched off",
        codes: &[
            codes::UNAVAILABLE,
            codes::OVERLOADED,
            codes::TIMEOUT,
            codes::DISK_FULL,
            codes::MAIL_DISABLED,
            codes::BACKUPS_DISABLED,
        ],
        title: "The server is stopping",
        detail: "the server is stopping; try again after `Retry-After` seconds",
    },
    Shared {
        status: "507",
        name: "DiskFull",
        description: "The server's disk is full; nothing was written",
        codes: &[codes::DISK_FULL],
        title: "The disk is full",
        detail: "the server's disk is full, nothing was written; free space on its data volume and try again",
    },
];

/// The errors that any call of a plane can answer. [`super::complete`] takes away those that a call cannot.
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        shared(&[
            "400", "401", "403", "404", "408", "409", "413", "414", "415", "429", "500", "503", "507",
        ])
    }
}

/// References to errors that several calls have in common.
pub fn shared(statuses: &[&str]) -> BTreeMap<String, RefOr<Response>> {
    SHARED
        .iter()
        .filter(|problem| statuses.contains(&problem.status))
        .map(|problem| {
            let location = format!("#/components/responses/{}", problem.name);
            (problem.status.to_owned(), RefOr::Ref(Ref::new(location)))
        })
        .collect()
}

/// Whether a call answers this error, if it is one of those that calls have in common.
pub fn applies(status: &str, method: &str, has_names: bool, has_body: bool) -> bool {
    match status {
        "404" => has_names || has_body,
        "409" => method != "get",
        "408" | "413" | "415" => has_body,
        _ => true,
    }
}

/// The error of a status, with what a route says of it.
pub fn with_description(status: &str, description: &Value) -> Option<Value> {
    let mut response = component(SHARED.iter().find(|problem| problem.status == status)?);
    if description.as_str().is_some_and(|text| !text.is_empty()) {
        response["description"] = description.clone();
    }
    Some(response)
}

/// The components that the references of [`Problems`] name.
pub fn components() -> Map<String, Value> {
    SHARED
        .iter()
        .map(|problem| (problem.name.to_owned(), component(problem)))
        .collect()
}

fn component(problem: &Shared) -> Value {
    let Shared {
        status,
        name: _,
        description,
        codes,
        title,
        detail,
    } = problem;
    let codes: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
    let mut example = json!({
        "type": "about:blank", "title": title, "status": status.parse().unwrap_or(0_u16), "detail": detail,
        "code": codes[0].trim_matches('`'),
    });
    if *status == "400" {
        example["errors"] = json!({"name": ["must not be blank"]});
    }
    let mut headers = json!({"X-Request-Id": header("RequestId")});
    match *status {
        "401" => headers["WWW-Authenticate"] = header("Challenge"),
        "429" => headers["Retry-After"] = header("RetryAfter"),
        "503" => headers["Retry-After"] = header("RetryAfterWhereItHelps"),
        _ => {}
    }
    json!({
        "description": format!("{description}. `code`: {}", codes.join(", ")),
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": reference("schemas", "Problem"), "example": example}},
    })
}
