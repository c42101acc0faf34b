//! `AdmissionReview` in and out: raw JSON to a decision and back.

use json_patch::Patch;
use sealpod_core::kubernetes::INJECT_LABEL;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::cache::Known;
use super::denial::Denial;
use super::pod::Pod;
use super::warnings::MOST_BYTES;
use super::{Settings, patch, plan, weight};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// The API server drops warnings beyond about 4 KiB in all.
const WARNINGS: usize = 16;

/// What of a request matters. Everything else of the review is ignored, and takes no memory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: Asked<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    uid: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

/// A request to decide.
#[derive(Debug)]
pub struct Request {
    uid: String,
    resource: Resource,
    sub_resource: Option<String>,
    operation: String,
    /// The namespace that the API server has authorised; the object's own text is never looked at.
    pub namespace: String,
    /// Whether nothing is to be made, as of `kubectl apply --dry-run=server`.
    pub dry_run: bool,
    /// The pod stays raw, so that fields which are newer than we are survive.
    object: Value,
}

/// A request whose pod is still text.
#[derive(Debug)]
pub struct Unread<'a> {
    request: Request,
    pod: Option<&'a RawValue>,
}

/// A pod, of which everything else is ignored.
#[derive(Debug, Default, Deserialize)]
struct Named {
    #[serde(default)]
    metadata: Called,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Called {
    name: Option<String>,
    generate_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    resource: String,
}

impl Request {
    pub fn pod(&self) -> Pod<'_> {
        Pod(&self.object)
    }
}

/// Why a body is no request that can be answered. Fixed texts: the body is never quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the body is not an AdmissionReview with a request")]
    NotAReview,
    #[error("only AdmissionReview of admission.k8s.io/v1 is understood; set admissionReviewVersions: [v1]")]
    Version,
}

/// What was decided, also as the label of the metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The pod gets something.
    Injected {
        patch: Patch,
        warnings: Vec<String>,
    },
    /// It does not ask, or has it all.
    Unchanged {
        warnings: Vec<String>,
    },
    Denied(Denial),
}

/// Reads a request, all but its pod.
pub fn open(body: &[u8]) -> Result<Unread<'_>, Malformed> {
    let Review {
        api_version,
        kind,
        request,
    } = serde_json::from_slice(body).map_err(|_| Malformed::NotAReview)?;
    if kind != KIND || api_version != API_VERSION {
        return Err(Malformed::Version);
    }
    let Asked {
        uid,
        resource,
        sub_resource,
        operation,
        namespace,
        dry_run,
        object: pod,
    } = request;
    Ok(Unread {
        request: Request {
            uid,
            resource,
            sub_resource,
            operation,
            namespace,
            dry_run: dry_run.unwrap_or(false),
            object: Value::Null,
        },
        pod,
    })
}

impl Unread<'_> {
    /// Bytes that it takes to read the pod and to decide: its values, and those of our containers in it once more.
    pub fn weight(&self) -> usize {
        self.pod.map_or(0, |pod| 2 * weight::of(pod.get()))
    }

    pub fn read(self) -> Result<Request, Malformed> {
        let object = match self.pod {
            Some(pod) => serde_json::from_str(pod.get()).map_err(|_| Malformed::NotAReview)?,
            None => Value::Null,
        };
        Ok(Request { object, ..self.request })
    }

    /// For an answer that needs no more of the pod than what it is called, which is all that is read.
    pub fn without_pod(self) -> Request {
        let named = self.pod.and_then(|pod| serde_json::from_str::<Named>(pod.get()).ok());
        let Called { name, generate_name } = named.unwrap_or_default().metadata;
        let object = json!({"metadata": {"name": name, "generateName": generate_name}});
        Request { object, ..self.request }
    }
}

/// Decides a request. `known` is what is known of the request's namespace.
pub fn decide(request: &Request, known: &Known, settings: &Settings) -> Decision {
    let resource = (request.resource.group.as_str(), request.resource.resource.as_str());
    if resource != ("", "pods") || request.sub_resource.as_deref().is_some_and(|sub| !sub.is_empty()) {
        return Decision::Denied(Denial::NotAPod);
    }
    let pod = request.pod();
    if request.operation != "CREATE" || pod.label(INJECT_LABEL) != Some("true") {
        return Decision::Unchanged { warnings: vec![] };
    }
    match plan::plan(pod, &request.namespace, known, settings) {
        Err(denial) => Decision::Denied(denial),
        Ok(plan) => {
            let operations = patch::operations(pod, &plan);
            let warnings = plan.warnings;
            if operations.is_empty() {
                Decision::Unchanged { warnings }
            } else {
                Decision::Injected {
                    patch: Patch(operations),
                    warnings,
                }
            }
        }
    }
}

/// The answer to a request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64 of the JSON of the operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Writes the answer.
pub fn answer(request: &Request, decision: Decision) -> Value {
    let mut response = Response {
        uid: &request.uid,
        allowed: true,
        status: None,
        patch_type: None,
        patch: None,
        warnings: vec![],
    };
    match decision {
        Decision::Injected { patch, warnings } => {
            let json = serde_json::to_vec(&patch).expect("operations are plain data");
            response.patch_type = Some("JSONPatch");
            response.patch = Some(data_encoding::BASE64.encode(&json));
            response.warnings = warnings;
        }
        Decision::Unchanged { warnings } => response.warnings = warnings,
        Decision::Denied(denial) => {
            response.allowed = false;
            response.status = Some(json!({"code": 403, "reason": "Forbidden", "message": denial.to_string()}));
        }
    }
    response.warnings.truncate(WARNINGS);
    response.warnings.iter_mut().for_each(cut);
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
}

fn cut(warning: &mut String) {
    const MORE: &str = "…";
    if warning.len() > MOST_BYTES {
        let end = warning.floor_char_boundary(MOST_BYTES - MORE.len());
        warning.truncate(end);
        warning.push_str(MORE);
    }
}

#[cfg(test)]
mod tests;
