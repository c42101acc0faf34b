//! Backups in a bucket: the calls of S3 that they need, against a server of these calls alone.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::process::{command, text};
use crate::rotation::Running;
use crate::support::{M, O};

const BUCKET: &str = "/vault";
const SECRET: &str = "secret-access-key-canary";

#[derive(Default)]
struct Vault {
    objects: Mutex<BTreeMap<String, Bytes>>,
    parts: Mutex<BTreeMap<u32, Bytes>>,
    is_gone: AtomicBool,
    /// It changes what it is given.
    spoils: AtomicBool,
}

fn xml(status: StatusCode, body: impl Into<String>) -> Response {
    let tag = [(header::CONTENT_TYPE, "application/xml"), (header::ETAG, "\"tag\"")];
    (status, tag, body.into()).into_response()
}

fn refused(status: StatusCode, code: &str) -> Response {
    xml(
        status,
        format!("<Error><Code>{code}</Code><Message>no</Message></Error>"),
    )
}

async fn answer(
    State(vault): State<Arc<Vault>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !authorization.is_some_and(|text| text.contains("Credential=good/")) {
        return refused(StatusCode::FORBIDDEN, "InvalidAccessKeyId");
    }
    if vault.is_gone.load(Ordering::Relaxed) {
        return refused(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let query: BTreeMap<String, String> = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    let key = uri
        .path()
        .strip_prefix(BUCKET)
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    let mut objects = vault.objects.lock().unwrap();
    match (method.as_str(), query.get("partNumber"), query.contains_key("uploadId")) {
        ("POST", _, false) => xml(
            StatusCode::OK,
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
        ),
        ("PUT", Some(number), _) => {
            vault.parts.lock().unwrap().insert(number.parse().unwrap(), body);
            xml(StatusCode::OK, "")
        }
        ("POST", _, true) => {
            let parts = vault.parts.lock().unwrap();
            let mut whole: Vec<u8> = parts.values().flat_map(|part| part.iter().copied()).collect();
            if vault.spoils.load(Ordering::Relaxed) {
                let middle = whole.len() / 2;
                whole[middle] ^= 1;
            }
            objects.insert(key, whole.into());
            xml(
                StatusCode::OK,
                "<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>",
            )
        }
        ("PUT", None, _) => {
            objects.insert(key, body);
            xml(StatusCode::OK, "")
        }
        ("GET", ..) if key.is_empty() => {
            let object = |(name, content): (&String, &Bytes)| {
                format!(
                    "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"tag\"</ETag><Size>{}</Size></Contents>",
                    content.len()
                )
            };
            let list: String = objects.iter().map(object).collect();
            xml(
                StatusCode::OK,
                format!("<ListBucketResult><IsTruncated>false</IsTruncated>{list}</ListBucketResult>"),
            )
        }
        ("GET", ..) => match objects.get(&key) {
            Some(content) => {
                let tag = [
                    (header::ETAG, "\"tag\""),
                    (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT"),
                ];
                (tag, content.clone()).into_response()
            }
            None => refused(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_to_a_bucket_in_parts_and_comes_back() {
    let vault = Arc::new(Vault::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .fallback(answer)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&vault));
    tokio::spawn(async { axum::serve(listener, router).await });

    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    assert_eq!(server.call("POST", M, Some(json!({"name": "shop"}))).await.0, 201);
    for n in 0..9 {
        // What is sealed does not compress, so this takes two parts.
        let path = format!("{O}/projects/shop/envs/local/secrets/key-{n}");
        let value = json!({"value": "v".repeat(1024 * 1024)});
        assert!(server.call("PUT", &path, Some(value)).await.0 < 300);
    }
    server.process.stop();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let ask = |key_id: &str, arguments: &[&str]| -> Output {
        let mut command = command(arguments);
        command
            .env("SEALPOD_BACKUP_URL", "s3://vault/some/prefix")
            .env("SEALPOD_MASTER_KEY_FILE", path("master.key"))
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", key_id)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    let database = format!("sqlite:{}", path("sealpod.db"));
    let made = ask("good", &["backup", "create", "--database-url", &database]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    assert_eq!(vault.parts.lock().unwrap().len(), 2);
    let names: Vec<_> = vault.objects.lock().unwrap().keys().cloned().collect();
    assert!(
        names.len() == 2 && names.iter().all(|name| name.starts_with("some/prefix/sealpod-")),
        "{names:?}"
    );
    let listed = text(&ask("good", &["backup", "list"]).stdout);
    assert!(listed.starts_with(&id) && listed.lines().count() == 1, "{listed}");
    let restored = ask("good", &["backup", "restore", &id, "--to", &path("restored.db")]);
    assert!(
        text(&restored.stdout).contains("versions: 9"),
        "{}",
        text(&restored.stderr)
    );

    // A storage that does not keep what it was given: that is no backup.
    vault.spoils.store(true, Ordering::Relaxed);
    let spoilt = ask("good", &["backup", "create", "--database-url", &database]);
    let said = text(&spoilt.stderr);
    assert!(!spoilt.status.success() && said.contains("was changed"), "{said}");
    assert_eq!(text(&ask("good", &["backup", "list"]).stdout), listed);

    // What is wrong is said, without the credential.
    vault.is_gone.store(true, Ordering::Relaxed);
    for (key_id, why) in [("wrong", "403"), ("good", "NoSuchBucket")] {
        for arguments in [
            &["backup", "list"][..],
            &["backup", "create", "--database-url", &database],
        ] {
            let output = ask(key_id, arguments);
            let said = text(&output.stderr);
            assert!(
                !output.status.success() && said.contains(why) && said.contains("s3://vault"),
                "{said}"
            );
            assert!(!said.contains(SECRET), "{said}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().contains(".sealpod-scratch-")),
        "{left:?}"
    );
}
