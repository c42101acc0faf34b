//! The values that a command gets: of delivered files, or of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealpod_client::{Client, Credential, Fetched};
use sealpod_core::wire::bundle::{BundleRequest, MAX_WAIT};
use sealpod_core::{Pattern, SecretText, SecretValue};
use zeroize::Zeroizing;

use super::{ExecError, From, Variables};
use crate::pace::{Pace, Timing};

/// How often delivered files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Generations that may pass by while one is read.
const READS: u32 = 10;
/// Failures of the server that a first load gets over.
const TRIES: u32 = 4;

/// Where values come from, and what was last seen there.
#[derive(Debug)]
pub(super) struct Source {
    place: Place,
    only: Vec<Pattern>,
}

#[derive(Debug)]
enum Place {
    /// Each mount with the generation that was last read.
    Files(Vec<(PathBuf, Option<PathBuf>)>),
    Server(Box<Server>),
}

#[derive(Debug)]
struct Server {
    client: Client,
    organization: String,
    project: String,
    environment: String,
    request: BundleRequest,
    etag: Option<String>,
    pace: Pace,
}

/// Text by key.
type Texts = BTreeMap<String, Zeroizing<String>>;

impl Source {
    pub(super) fn open(from: &From, only: &[Pattern]) -> Result<Self, ExecError> {
        let place = match from {
            From::Files(mounts) => Place::Files(mounts.iter().map(|mount| (mount.clone(), None)).collect()),
            From::Server {
                url,
                key_file,
                ca_file,
                organization,
                project,
                environment,
            } => Place::Server(Box::new(Server {
                client: client(url, key_file, ca_file.as_deref())?,
                organization: organization.clone(),
                project: project.clone(),
                environment: environment.clone(),
                request: request(only),
                etag: None,
                pace: Pace::new(Timing::default(), &format!("{}", std::process::id())),
            })),
        };
        Ok(Self {
            place,
            only: only.to_vec(),
        })
    }

    /// What there is now.
    pub(super) async fn load(&mut self) -> Result<Variables, ExecError> {
        let mut failures = 0;
        let texts = loop {
            let error = match &mut self.place {
                Place::Files(mounts) => break read_all(mounts, &self.only)?,
                Place::Server(server) => match server.ask(0).await {
                    Ok(Some(texts)) => break texts,
                    Ok(None) => continue,
                    Err(error) => error,
                },
            };
            failures += 1;
            let Place::Server(server) = &mut self.place else {
                return Err(error);
            };
            match &error {
                ExecError::Server(cause) if cause.is_transient() && failures < TRIES => {
                    tokio::time::sleep(server.pace.failed(cause, true, Instant::now())).await;
                }
                _ => return Err(error),
            }
        };
        self.variables(&texts)
    }

    /// Waits until there is something else. Failures are waited out: the command runs on with what it has.
    pub(super) async fn changed(&mut self) -> Variables {
        loop {
            let texts = match &mut self.place {
                Place::Files(mounts) => {
                    tokio::time::sleep(LOOK).await;
                    if mounts.iter().all(|(mount, seen)| generation(mount).ok() == *seen) {
                        continue;
                    }
                    read_all(mounts, &self.only)
                }
                Place::Server(server) => match server.ask(MAX_WAIT / 2).await {
                    Ok(Some(texts)) => Ok(texts),
                    Ok(None) => continue,
                    Err(ExecError::Server(cause)) => {
                        tokio::time::sleep(server.pace.failed(&cause, false, Instant::now())).await;
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match texts.and_then(|texts| self.variables(&texts)) {
                Ok(variables) => return variables,
                Err(error) => {
                    super::supervise::say(&format!("the change is not passed on: {error}"));
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn variables(&self, texts: &Texts) -> Result<Variables, ExecError> {
        let literal: Vec<String> = self.only.iter().filter_map(Pattern::literal).collect();
        if let Some(absent) = literal.iter().find(|key| !texts.contains_key(*key)) {
            return Err(ExecError::Absent(absent.clone()));
        }
        let literal: BTreeSet<&str> = literal.iter().map(String::as_str).collect();
        let texts = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        let variables = sealpod_render::variables(&texts, &literal)?;
        Ok(variables
            .into_iter()
            .map(|(name, text)| (name, Zeroizing::new(text.to_owned())))
            .collect())
    }
}

impl Server {
    /// What there is, or none where nothing has changed since the last answer.
    async fn ask(&mut self, wait: u64) -> Result<Option<Texts>, ExecError> {
        let asked = Instant::now();
        self.request.wait = if self.etag.is_some() { wait } else { 0 };
        let org = self.client.org(&self.organization);
        let fetched = org
            .bundle(&self.project, &self.environment, &self.request, self.etag.as_deref())
            .await?;
        let Fetched::Bundle(bundle) = fetched else {
            if asked.elapsed() < Duration::from_secs(self.request.wait).mul_f64(0.9) {
                tokio::time::sleep(self.pace.early()).await;
            } else {
                self.pace.confirmed();
            }
            return Ok(None);
        };
        self.pace.confirmed();
        let mut texts = Texts::new();
        for (key, secret) in &bundle.secrets {
            let Some(value) = &secret.value else { continue };
            let bytes = SecretValue::from_wire(value, secret.encoding.unwrap_or_default())
                .map_err(|_| ExecError::NotText { key: key.clone() })?;
            texts.insert(key.clone(), text(key, bytes.expose())?);
        }
        self.etag = Some(bundle.etag);
        Ok(Some(texts))
    }
}

fn request(only: &[Pattern]) -> BundleRequest {
    let mut request = BundleRequest::default();
    for pattern in only {
        match pattern.literal() {
            Some(key) => request.key.push(key),
            None => request.pattern.push(pattern.clone()),
        }
    }
    request
}

fn client(url: &str, key_file: &Path, ca_file: Option<&Path>) -> Result<Client, ExecError> {
    let read = |path: &Path| {
        fs::read(path).map(Zeroizing::new).map_err(|cause| ExecError::KeyFile {
            path: path.display().to_string(),
            cause,
        })
    };
    let key = read(key_file)?;
    let key = SecretText::new(std::str::from_utf8(&key).map_err(|_| ExecError::Key)?);
    let mut builder = Client::builder(url)
        .credential(Credential::ServiceAccount(key))
        .user_agent(concat!("sealpod-exec/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        builder = builder.ca(read(path)?.as_slice());
    }
    Ok(builder.build()?)
}

fn text(key: &str, bytes: &[u8]) -> Result<Zeroizing<String>, ExecError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(ExecError::NotText { key: key.to_owned() }),
    }
}

/// The directory that the mount shows now: a generation, or the mount itself where somebody made it by hand.
fn generation(mount: &Path) -> io::Result<PathBuf> {
    match fs::read_link(mount.join("..data")) {
        Ok(target) => Ok(mount.join(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::metadata(mount).map(|_| mount.to_owned()),
        Err(error) => Err(error),
    }
}

/// Every file of every mount, each mount in one state. Two mounts with one path are a collision of variables.
fn read_all(mounts: &mut [(PathBuf, Option<PathBuf>)], only: &[Pattern]) -> Result<Texts, ExecError> {
    let mut texts = Texts::new();
    for (mount, seen) in mounts {
        let (generation, read) = read_one(mount, only)?;
        *seen = Some(generation);
        for (path, text) in read {
            if let Some(twice) = texts.insert(path.clone(), text) {
                drop(twice);
                return Err(sealpod_render::Error::Collision {
                    variable: sealpod_core::names::variable_name(&path),
                    first: path.clone(),
                    second: format!("{}/{path}", mount.display()),
                }
                .into());
            }
        }
    }
    Ok(texts)
}

fn read_one(mount: &Path, only: &[Pattern]) -> Result<(PathBuf, Texts), ExecError> {
    let unreadable = |cause| ExecError::Unreadable {
        path: mount.display().to_string(),
        cause,
    };
    for _ in 0..READS {
        let directory = generation(mount).map_err(unreadable)?;
        let mut found = Vec::new();
        let read = collect(&directory, "", only, &mut found);
        match read {
            // A generation stays for a while behind its successor; one that went in between was an old one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
            Ok(()) => {
                let texts = found
                    .into_iter()
                    .map(|(path, bytes)| Ok((path.clone(), text(&path, &bytes)?)))
                    .collect::<Result<_, ExecError>>()?;
                return Ok((directory, texts));
            }
        }
    }
    Err(ExecError::Restless {
        path: mount.display().to_string(),
    })
}

fn collect(
    directory: &Path,
    prefix: &str,
    only: &[Pattern],
    found: &mut Vec<(String, Zeroizing<Vec<u8>>)>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with("..") {
            continue;
        }
        let path = format!("{prefix}{name}");
        if fs::metadata(entry.path())?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), only, found)?;
        } else if only.is_empty() || only.iter().any(|pattern| pattern.matches(&path)) {
            found.push((path, Zeroizing::new(fs::read(entry.path())?)));
        }
    }
    Ok(())
}
