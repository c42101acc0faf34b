//! The Secret with its values, and the writing of it. What is read and written here is wiped afterwards, as far as the
//! client of Kubernetes leaves it to us; the API server is asked to answer writes without the values.

use std::collections::BTreeMap;

use axum::http::header::ACCEPT;
use axum::http::{HeaderValue, Request as HttpRequest};
use data_encoding::BASE64;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, GetParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Client, Resource, ResourceExt};
use sealpod_core::SecretText;
use sealpod_core::kubernetes::{
    COPY_BINDING, COPY_DELETION_POLICY, COPY_OF_LABEL, COPY_STATE, FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL,
};
use sealpod_crds::SecretBinding;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::contents::Data;
use super::held::{Held, State, written};
use super::target::Target;

/// How the API server answers a write: with the metadata only.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// A Secret as it is, so that what others have put into its metadata goes back as it came.
#[derive(Deserialize)]
pub struct Stored {
    #[serde(default)]
    metadata: Value,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "data")]
    pub data: Data,
    #[serde(default)]
    pub immutable: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: &'a Value,
    r#type: &'a str,
    data: BTreeMap<&'a str, Text>,
}

/// Base64 on its way out.
struct Text(SecretText);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SecretText::serialize_exposed(&self.0, serializer)
    }
}

fn data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
    let texts = Option::<BTreeMap<String, Option<SecretText>>>::deserialize(deserializer)?;
    let decode = |(key, text): (String, Option<SecretText>)| {
        let text = text.unwrap_or_default();
        let bytes = BASE64.decode(text.expose().as_bytes());
        let bytes = bytes.map_err(|_| serde::de::Error::custom("an entry is not base64"))?;
        Ok((key, Zeroizing::new(bytes)))
    };
    texts.unwrap_or_default().into_iter().map(decode).collect()
}

impl Stored {
    /// Its metadata without the values.
    pub fn held(&self) -> Held {
        let metadata = json!({"metadata": self.metadata});
        serde_json::from_value(metadata).unwrap_or_default()
    }
}

/// The Secret, read now.
pub async fn read(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<Stored>> {
    let request = secrets(namespace).get(name, &GetParams::default());
    let request = request.map_err(kube::Error::BuildRequest)?;
    // Not `request`, which logs what it cannot read.
    let text = match client.request_text(request).await {
        Ok(text) => Zeroizing::new(text),
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text).map(Some).map_err(kube::Error::SerdeError)
}

/// Whether a request changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Real,
    Dry,
}

/// A new one; it is an error if there is one of that name. Its metadata as the API server made it.
pub async fn create(
    client: &Client,
    binding: &SecretBinding,
    target: &Target<'_>,
    state: &State,
    data: &Data,
    run: Run,
) -> kube::Result<Held> {
    let namespace = binding.namespace().unwrap_or_default();
    let mut metadata = json!({"name": target.name, "namespace": namespace});
    label(&mut metadata, binding, target, state, &State::default());
    let parameters = PostParams {
        dry_run: run == Run::Dry,
        ..parameters()
    };
    let request = secrets(&namespace).create(&parameters, document(&metadata, target, data)?);
    write(client, request).await
}

/// Replaces it, if it is still what was read: `data` is all that it holds then, while labels and annotations of others
/// stay.
pub async fn replace(
    client: &Client,
    binding: &SecretBinding,
    target: &Target<'_>,
    state: &State,
    data: &Data,
    stored: &Stored,
) -> kube::Result<Held> {
    let mut metadata = stored.metadata.clone();
    label(&mut metadata, binding, target, state, &stored.held().state());
    let namespace = binding.namespace().unwrap_or_default();
    let request = secrets(&namespace).replace(target.name, &parameters(), document(&metadata, target, data)?);
    write(client, request).await
}

/// Deletes it, if it is still what was read. One that is gone is as good.
pub async fn delete(client: &Client, namespace: &str, held: &Held) -> kube::Result<()> {
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: held.metadata.uid.clone(),
            resource_version: held.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    let name = held.metadata.name.as_deref().unwrap_or_default();
    let request = secrets(namespace).delete(name, &parameters);
    // The answer may hold the Secret: it is not read.
    match client
        .request_text(metadata_only(request.map_err(kube::Error::BuildRequest)?))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn secrets(namespace: &str) -> Request {
    Request::new(Secret::url_path(&(), Some(namespace)))
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn document(metadata: &Value, target: &Target<'_>, data: &Data) -> kube::Result<Vec<u8>> {
    let document = Document {
        api_version: "v1",
        kind: "Secret",
        metadata,
        r#type: target.kind.as_str(),
        data: data
            .iter()
            .map(|(key, bytes)| (key.as_str(), Text(SecretText::new(BASE64.encode(bytes)))))
            .collect(),
    };
    serde_json::to_vec(&document).map_err(kube::Error::SerdeError)
}

async fn write(
    client: &Client,
    request: Result<HttpRequest<Vec<u8>>, kube::core::request::Error>,
) -> kube::Result<Held> {
    let request = metadata_only(request.map_err(kube::Error::BuildRequest)?);
    let text = Zeroizing::new(client.request_text(request).await?);
    serde_json::from_str(&text).map_err(kube::Error::SerdeError)
}

fn metadata_only(mut request: HttpRequest<Vec<u8>>) -> HttpRequest<Vec<u8>> {
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static(METADATA_ONLY));
    request
}

/// Sets our labels and annotations and those of the spec, and takes away those that an earlier spec had.
fn label(metadata: &mut Value, binding: &SecretBinding, target: &Target<'_>, state: &State, before: &State) {
    let uid = binding.uid().unwrap_or_default();
    let state = serde_json::to_string(state).expect("the state is plain data");
    let own_labels = [(COPY_OF_LABEL, uid), (MANAGED_BY_LABEL, MANAGED_BY.to_owned())];
    let own_annotations = [
        (COPY_BINDING, binding.name_any()),
        (COPY_STATE, state),
        (COPY_DELETION_POLICY, written(target.policy).to_owned()),
    ];
    let mut set = |field: &str,
                   before: &std::collections::BTreeSet<String>,
                   of_spec: &BTreeMap<String, String>,
                   own: Vec<(&str, String)>| {
        if !metadata[field].is_object() {
            metadata[field] = Value::Object(Map::new());
        }
        let Some(all) = metadata[field].as_object_mut() else {
            return;
        };
        all.retain(|key, _| !before.contains(key));
        all.extend(of_spec.iter().map(|(key, value)| (key.clone(), json!(value))));
        all.extend(own.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    };
    set("labels", &before.labels, target.labels, own_labels.into());
    set(
        "annotations",
        &before.annotations,
        target.annotations,
        own_annotations.into(),
    );
}
