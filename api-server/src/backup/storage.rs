//! Where archives are kept: a directory, or a bucket of S3-compatible storage. Everything here blocks, so it runs on threads of
//! its own; what is in memory at a time is one part of an upload or one piece of a download.

mod transfer;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::restore::sync_folder;
use super::scratch::folder_of;
use super::steady::Steady;
pub use transfer::{Download, Upload};
use transfer::{Parts, Ranges, Sink};

/// For one request with all of its body, which is a part or a range at the most, and for connecting.
const PATIENCE: Duration = Duration::from_mins(2);
const CONNECT: Duration = Duration::from_secs(10);
/// So often a request is made anew, or its body taken up where it broke off, if no more than that has passed since its beginning:
/// longer than one may take, so that none is too late for it.
const RETRIES: usize = 3;
const RETRY_TIME: Duration = Duration::from_mins(3);
/// Largest file that is read as a whole.
const SMALL: u64 = 1024 * 1024;
/// How the name of a file ends that is being written.
pub(super) const PARTIAL: &str = ".partial";

/// What went wrong with the storage. Its own messages name buckets and objects and quote no credential.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("`{0}` is no place for backups; use file:///directory or s3://bucket/prefix")]
    NotAUrl(String),
    #[error(
        "the bucket's settings are not usable ({0}); give AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL where it is not Amazon's"
    )]
    Settings(String),
    #[error("{place}: {cause}")]
    Directory { place: String, cause: io::Error },
    #[error("{place}: {cause}; check that the bucket is there, and what the credentials may do")]
    Bucket {
        place: String,
        cause: Box<object_store::Error>,
    },
    #[error("{place} has no {name}")]
    Absent { place: String, name: String },
    #[error("{place}: {name} is larger than such a file can be")]
    TooLarge { place: String, name: String },
}

/// Clones are the same place.
#[derive(Clone)]
pub enum Storage {
    Directory(PathBuf),
    Bucket(Bucket),
}

#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    place: String,
    /// Once the server ends, no request of an upload or a download is waited for any longer.
    end: CancellationToken,
}

impl StorageError {
    fn in_directory(folder: &Path, cause: io::Error) -> Self {
        Self::Directory {
            place: folder.display().to_string(),
            cause,
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// A file of the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub name: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

impl Storage {
    /// From `file:///directory`, or `s3://bucket/prefix` with the variables that every program for S3 reads.
    pub fn from_url(text: &str) -> Result<Self, StorageError> {
        let not_a_url = || StorageError::NotAUrl(text.split("://").next().unwrap_or_default().to_owned() + "://…");
        let url = Url::parse(text).map_err(|_| not_a_url())?;
        match (url.scheme(), url.host_str()) {
            ("file", None | Some("")) => {
                let path = url.to_file_path().map_err(|()| not_a_url())?;
                Ok(Self::Directory(path))
            }
            ("s3", Some(bucket)) if url.password().is_none() && url.query().is_none() => {
                Ok(Self::Bucket(Bucket::new(bucket, url.path())?))
            }
            _ => Err(not_a_url()),
        }
    }

    /// Ends the uploads and downloads that are under way, where they would go on for as long as a request may take.
    pub(super) fn end(&self) {
        if let Self::Bucket(bucket) = self {
            bucket.end.cancel();
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Bucket(bucket) => bucket.place.clone(),
        }
    }

    /// A file to be; it has its name once it is [finished](Upload::finish), and nobody sees it before.
    pub fn create(&self, name: &str) -> Result<Upload, StorageError> {
        match self {
            Self::Directory(folder) => {
                let failed = |cause| self.directory(cause);
                make_folder(folder).map_err(failed)?;
                let (path, partial) = (folder.join(name), folder.join(format!("{name}{PARTIAL}")));
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&partial);
                Ok(Upload::new(Sink::File {
                    file: Steady::new(file.map_err(failed)?),
                    partial,
                    path,
                }))
            }
            Self::Bucket(bucket) => {
                let handle = Handle::current();
                let upload = handle.block_on(bucket.store.put_multipart(&bucket.key(name)));
                let upload = upload.map_err(|cause| bucket.failed(cause))?;
                Ok(Upload::new(Sink::Parts(Parts::new(upload, bucket.clone(), handle))))
            }
        }
    }

    pub fn open(&self, name: &str) -> Result<Download, StorageError> {
        match self {
            Self::Directory(folder) => match File::open(folder.join(name)) {
                Ok(file) => Ok(Download::File(io::BufReader::new(file))),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(self.absent(name)),
                Err(cause) => Err(self.directory(cause)),
            },
            Self::Bucket(bucket) => {
                let handle = Handle::current();
                match handle.block_on(bucket.store.head(&bucket.key(name))) {
                    Ok(found) => Ok(Download::Ranges(Ranges::of(bucket.clone(), found, handle))),
                    Err(object_store::Error::NotFound { .. }) => Err(self.absent(name)),
                    Err(cause) => Err(bucket.failed(cause)),
                }
            }
        }
    }

    /// A small file as a whole.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        let too_large = || StorageError::TooLarge {
            place: self.place(),
            name: name.to_owned(),
        };
        match self {
            Self::Directory(_) => {
                let mut content = Vec::new();
                let read = self.open(name)?.take(SMALL + 1).read_to_end(&mut content);
                read.map_err(|cause| cause.downcast().unwrap_or_else(|cause| self.directory(cause)))?;
                let is_small = content.len() as u64 <= SMALL;
                is_small.then_some(content).ok_or_else(too_large)
            }
            // One request: its size comes before what is in it.
            Self::Bucket(bucket) => Handle::current().block_on(async {
                let found = match bucket.store.get(&bucket.key(name)).await {
                    Err(object_store::Error::NotFound { .. }) => return Err(self.absent(name)),
                    found => found.map_err(|cause| bucket.failed(cause))?,
                };
                if found.meta.size > SMALL {
                    return Err(too_large());
                }
                let content = found.bytes().await.map_err(|cause| bucket.failed(cause))?;
                Ok(content.to_vec())
            }),
        }
    }

    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StorageError> {
        match self {
            Self::Directory(_) => {
                let mut upload = self.create(name)?;
                let written = upload.write_all(content).and_then(|()| upload.finish());
                written.map_err(|cause| cause.downcast().unwrap_or_else(|cause| self.directory(cause)))
            }
            Self::Bucket(bucket) => {
                let key = bucket.key(name);
                let put = bucket.store.put(&key, content.to_vec().into());
                Handle::current()
                    .block_on(put)
                    .map(drop)
                    .map_err(|cause| bucket.failed(cause))
            }
        }
    }

    /// Every finished file, and what uploads that were cut off left behind, in no order.
    pub fn list(&self) -> Result<Vec<Kept>, StorageError> {
        match self {
            Self::Directory(folder) => {
                let entries = match fs::read_dir(folder) {
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    entries => entries.map_err(|cause| self.directory(cause))?,
                };
                let mut files = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(|cause| self.directory(cause))?;
                    // One that is gone by now is none.
                    let Ok(metadata) = entry.metadata() else { continue };
                    let Ok(name) = entry.file_name().into_string() else {
                        continue;
                    };
                    if metadata.is_file() {
                        use std::os::unix::fs::MetadataExt;
                        files.push(Kept {
                            name,
                            bytes: metadata.len(),
                            modified: metadata.mtime(),
                        });
                    }
                }
                Ok(files)
            }
            Self::Bucket(bucket) => {
                let prefix = (!bucket.prefix.as_ref().is_empty()).then_some(&bucket.prefix);
                let mut found = bucket.store.list(prefix);
                Handle::current().block_on(async {
                    let mut files = Vec::new();
                    while let Some(object) = found.next().await {
                        let object = object.map_err(|cause| bucket.failed(cause))?;
                        let name = object.location.filename().unwrap_or_default().to_owned();
                        // What lies deeper is somebody else's.
                        if object.location == bucket.key(&name) {
                            files.push(Kept {
                                name,
                                bytes: object.size,
                                modified: object.last_modified.timestamp(),
                            });
                        }
                    }
                    Ok(files)
                })
            }
        }
    }

    /// Removes a file; one that is not there is as good as removed.
    pub fn remove(&self, name: &str) -> Result<(), StorageError> {
        match self {
            Self::Directory(folder) => match fs::remove_file(folder.join(name)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(self.directory(cause)),
                _ => Ok(()),
            },
            Self::Bucket(bucket) => match Handle::current().block_on(bucket.store.delete(&bucket.key(name))) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(cause) => Err(bucket.failed(cause)),
            },
        }
    }

    fn directory(&self, cause: io::Error) -> StorageError {
        StorageError::Directory {
            place: self.place(),
            cause,
        }
    }

    fn absent(&self, name: &str) -> StorageError {
        StorageError::Absent {
            place: self.place(),
            name: name.to_owned(),
        }
    }
}

impl Bucket {
    fn new(bucket: &str, prefix: &str) -> Result<Self, StorageError> {
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_TIME,
            ..RetryConfig::default()
        };
        let allow_http = std::env::var("AWS_ENDPOINT_URL").is_ok_and(|url| url.starts_with("http://"));
        let client = ClientOptions::new()
            .with_timeout(PATIENCE)
            .with_connect_timeout(CONNECT)
            .with_allow_http(allow_http);
        let settings = |cause: object_store::Error| StorageError::Settings(cause.to_string());
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_client_options(client)
            .with_allow_http(allow_http)
            // One at a time is what is deleted here, and not every storage knows the call for many.
            .with_disable_bulk_delete(true)
            .build()
            .map_err(settings)?;
        Ok(Self {
            store: Arc::new(store),
            prefix: Key::from_url_path(prefix).map_err(|cause| StorageError::Settings(cause.to_string()))?,
            place: format!("s3://{bucket}{prefix}"),
            end: CancellationToken::new(),
        })
    }

    /// Waits for a request that moves a piece of an archive, unless the server ends.
    fn wait<T>(
        &self,
        handle: &Handle,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let ended = || object_store::Error::Generic {
            store: "S3",
            source: "the server ends".into(),
        };
        let done = handle.block_on(self.end.run_until_cancelled(request));
        done.unwrap_or_else(|| Err(ended()))
    }

    fn key(&self, name: &str) -> Key {
        self.prefix.clone().join(name)
    }

    fn failed(&self, cause: object_store::Error) -> StorageError {
        StorageError::Bucket {
            place: self.place.clone(),
            cause: Box::new(cause),
        }
    }
}

/// Makes it, where it is not there, and those that it is in. Their names survive a power cut, as what comes into it
/// does.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make_folder(folder_of(folder))?;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Left there, it would pass for one of before.
        _ => sync_folder(folder).inspect_err(|_| drop(fs::remove_dir(folder))),
    }
}
