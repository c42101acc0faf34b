//! Backups in a bucket: the calls of S3 that they need, against a server of these calls alone.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sealpod_core::Time;
use serde_json::json;
use tokio::sync::Notify;

use crate::process::{Process, command, serve, text};
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
    /// It is gone from the first part of an upload on.
    takes_one_part: AtomicBool,
    /// It never answers to a part of an upload, and says that it got one.
    holds_parts: AtomicBool,
    held: Notify,
    /// Uploads that were given up.
    aborted: AtomicU32,
    /// So many requests are refused, for now.
    busy: AtomicU32,
    /// So many answers break off half way.
    breaks: AtomicU32,
    /// First and last byte of what was read of objects.
    ranges: Mutex<Vec<(usize, usize)>>,
    /// Who asks may not delete what is named so.
    keeps: Mutex<Option<String>>,
}

impl Vault {
    async fn serve(self: &Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(self));
        tokio::spawn(async { axum::serve(listener, router).await });
        endpoint
    }

    fn delete(&self, objects: &mut BTreeMap<String, Bytes>, key: &str) -> Response {
        if self
            .keeps
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|part| key.contains(part))
        {
            return refused(StatusCode::FORBIDDEN, "AccessDenied");
        }
        objects.remove(key);
        StatusCode::NO_CONTENT.into_response()
    }

    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    /// What is large is wanted in ranges.
    fn read(&self, content: &Bytes, headers: &HeaderMap) -> Response {
        let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap());
        let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
            if content.len() > 64 * 1024 {
                return refused(StatusCode::BAD_REQUEST, "NoRange");
            }
            let tag = [
                (header::ETAG, "\"tag\""),
                (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT"),
            ];
            return (tag, content.clone()).into_response();
        };
        let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
        self.ranges.lock().unwrap().push((first, last));
        let piece = content.slice(first..=last);
        let range = format!("bytes {first}-{last}/{}", content.len());
        let headers = [
            (header::ETAG, "\"tag\"".to_owned()),
            (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".to_owned()),
            (header::CONTENT_RANGE, range),
        ];
        if counts_down(&self.breaks) {
            let half = [Ok(piece.slice(..piece.len() / 2)), Err(std::io::Error::other("broken"))];
            let body = Body::from_stream(futures::stream::iter(half));
            return (StatusCode::PARTIAL_CONTENT, headers, body).into_response();
        }
        (StatusCode::PARTIAL_CONTENT, headers, piece).into_response()
    }
}

fn counts_down(left: &AtomicU32) -> bool {
    let one_less = |left: u32| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_ok()
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
    if method == Method::DELETE && uri.query().is_some_and(|query| query.contains("uploadId=1")) {
        vault.aborted.fetch_add(1, Ordering::Relaxed);
        return StatusCode::NO_CONTENT.into_response();
    }
    if uri.query().is_some_and(|query| query.contains("partNumber")) && vault.holds_parts.load(Ordering::Relaxed) {
        vault.held.notify_one();
        std::future::pending::<()>().await;
    }
    if counts_down(&vault.busy) {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
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
        ("DELETE", ..) => vault.delete(&mut objects, &key),
        ("POST", _, false) => {
            vault.parts.lock().unwrap().clear();
            xml(
                StatusCode::OK,
                "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
            )
        }
        ("PUT", Some(number), _) => {
            vault.parts.lock().unwrap().insert(number.parse().unwrap(), body);
            let takes_one = vault.takes_one_part.load(Ordering::Relaxed);
            vault.is_gone.store(takes_one, Ordering::Relaxed);
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
        ("HEAD", ..) => match objects.get(&key) {
            Some(content) => {
                let tag = [
                    (header::ETAG, "\"tag\""),
                    (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT"),
                ];
                (tag, content.clone()).into_response()
            }
            None => refused(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        ("GET", ..) => match objects.get(&key) {
            Some(content) => vault.read(content, &headers),
            None => refused(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

fn with_bucket(command: &mut Command, endpoint: &str, key_id: &str) {
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", key_id)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
}

/// What is sealed does not compress, so a backup of this takes two parts.
async fn fill_two_parts(server: &Running) {
    assert_eq!(server.call("POST", M, Some(json!({"name": "shop"}))).await.0, 201);
    for n in 0..9 {
        let path = format!("{O}/projects/shop/envs/local/secrets/key-{n}");
        let value = json!({"value": "v".repeat(1024 * 1024)});
        assert!(server.call("PUT", &path, Some(value)).await.0 < 300);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_while_it_sends_a_backup_gives_the_upload_up() {
    let (vault, dir) = (Arc::new(Vault::default()), tempfile::tempdir().unwrap());
    let endpoint = vault.serve().await;
    let mut with = serve(dir.path());
    with.env("SEALPOD_BACKUP_URL", "s3://vault/some");
    with_bucket(&mut with, &endpoint, "good");
    let server = Running::of(&mut with);
    fill_two_parts(&server).await;
    vault.holds_parts.store(true, Ordering::Relaxed);
    {
        let asked = server.call("POST", "/api/backups", None);
        tokio::select! {
            () = vault.held.notified() => {}
            answer = asked => panic!("{answer:?}"),
        }
        // Nobody waits for it any more, and it goes on.
    }
    server.process.signal();
    let ended = tokio::task::block_in_place(|| server.process.wait());
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains("panicked"), "{}", ended.log);
    assert_eq!(vault.aborted.load(Ordering::Relaxed), 1, "{}", ended.log);
    assert_eq!(vault.names(), [""; 0]);
    let left = crate::backups::files(dir.path());
    assert!(left.iter().all(|name| !name.contains(".sealpod-scratch-")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_to_a_bucket_in_parts_and_comes_back() {
    let vault = Arc::new(Vault::default());
    let endpoint = vault.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    fill_two_parts(&server).await;
    server.process.stop();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let ask = |key_id: &str, arguments: &[&str]| -> Output {
        let mut command = command(arguments);
        command
            .env("SEALPOD_BACKUP_URL", "s3://vault/some/prefix")
            .env("SEALPOD_MASTER_KEY_FILE", path("master.key"));
        with_bucket(&mut command, &endpoint, key_id);
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    let database = format!("sqlite:{}", path("sealpod.db"));
    let made = ask("good", &["backup", "create", "--database-url", &database]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    assert_eq!(vault.parts.lock().unwrap().len(), 2);
    let names = vault.names();
    assert!(
        names.len() == 2 && names.iter().all(|name| name.starts_with("some/prefix/sealpod-")),
        "{names:?}"
    );
    let listed = text(&ask("good", &["backup", "list"]).stdout);
    assert!(listed.starts_with(&id) && listed.lines().count() == 1, "{listed}");
    // In pieces, one of which breaks off, and behind a storage that is too busy twice.
    vault.ranges.lock().unwrap().clear();
    vault.breaks.store(1, Ordering::Relaxed);
    vault.busy.store(2, Ordering::Relaxed);
    let restored = ask("good", &["backup", "restore", &id, "--to", &path("restored.db")]);
    assert!(
        text(&restored.stdout).contains("versions: 9"),
        "{}",
        text(&restored.stderr)
    );
    assert_eq!((counts_down(&vault.breaks), counts_down(&vault.busy)), (false, false));
    let ranges = vault.ranges.lock().unwrap().clone();
    let most = ranges.iter().map(|(first, last)| last + 1 - first).max();
    assert!(ranges.len() > 2 && most <= Some(2 * 1024 * 1024), "{ranges:?}");

    // A storage that does not keep what it was given: that is no backup.
    vault.spoils.store(true, Ordering::Relaxed);
    let spoilt = ask("good", &["backup", "create", "--database-url", &database]);
    let said = text(&spoilt.stderr);
    assert!(!spoilt.status.success() && said.contains("was changed"), "{said}");
    assert_eq!(text(&ask("good", &["backup", "list"]).stdout), listed);
    assert_eq!(vault.names(), names, "{said}");
    vault.spoils.store(false, Ordering::Relaxed);

    // One that is gone half way: what was sent of it is given up.
    vault.takes_one_part.store(true, Ordering::Relaxed);
    let cut = ask("good", &["backup", "create", "--database-url", &database]);
    let said = text(&cut.stderr);
    assert!(!cut.status.success() && said.contains("NoSuchBucket"), "{said}");
    assert_eq!(vault.aborted.load(Ordering::Relaxed), 1);
    assert_eq!(vault.names(), names);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_may_not_be_deleted_is_told_of_by_itself_and_keeps_no_other_one() {
    let (vault, dir) = (Arc::new(Vault::default()), tempfile::tempdir().unwrap());
    let endpoint = vault.serve().await;
    let put = |days: i64| {
        let id = uuid::Uuid::now_v7();
        let name = format!("sealpod-20250101T000000Z-{id}.backup");
        let known = json!({"id": id, "filename": name, "size_bytes": 1, "sha256": "", "key_id": "", "trigger": "schedule",
            "created_at": Time::now().plus_seconds(-days * 24 * 3_600), "master_keys": []});
        let mut objects = vault.objects.lock().unwrap();
        objects.insert(format!("some/{name}"), Bytes::from_static(b"x"));
        objects.insert(format!("some/{name}.json"), known.to_string().into());
        name
    };
    // The one that comes first.
    let old = [put(400), put(401), put(402)];
    let newest = put(0);
    let is_there = |name: &str| vault.names().contains(&format!("some/{name}"));
    *vault.keeps.lock().unwrap() = Some(old[0].clone());
    let mut scheduled = serve(dir.path());
    scheduled
        .env("SEALPOD_BACKUP_URL", "s3://vault/some")
        .env("SEALPOD_BACKUP_SCHEDULE_HOURS", "24");
    with_bucket(&mut scheduled, &endpoint, "good");
    let server = Process::start(&mut scheduled);
    let said = server.wait_for(|_, body| body.contains("warning: old backups")).await;
    assert!(
        said.contains("AccessDenied") && !said.contains("warning: backups"),
        "{said}"
    );
    assert!(is_there(&old[0]) && is_there(&newest) && !is_there(&old[1]) && !is_there(&old[2]));
    assert_eq!(server.stop().0, Some(0));

    // Whoever may do so again does, also of what was known of one that is gone.
    *vault.keeps.lock().unwrap() = None;
    let server = Process::start(&mut scheduled);
    for attempt in 0.. {
        if !is_there(&old[0]) && !is_there(&format!("{}.json", old[0])) {
            break;
        }
        assert!(attempt < 300, "{:?}", vault.names());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(is_there(&newest));
    assert_eq!(server.stop().0, Some(0));
}
