//! An installation's first keys and certificates, each in a Secret of its own. What is there is kept: a master key that
//! was replaced would make every stored secret unreadable. So a run may be repeated, and what an earlier one did not get
//! to is added.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use zeroize::Zeroizing;

use crate::authority::{self, Authority, SERVER_AUTHORITY, Unusable};
use crate::certs::{self, CertError, Lives, Pair};
use crate::cli::BootstrapArgs;
use crate::secrets::{self, AUTHORITIES, CERTIFICATE, KEY, OPAQUE_TYPE, TLS_TYPE};

const MASTER_KEY: &str = "master.key";
const ADMIN_KEY: &str = "admin.key";
/// Bytes of a key, written as twice as many hexadecimal digits.
const KEY_BYTES: usize = 32;

/// What cannot be made, on which Secret, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("cannot reach the Kubernetes API: {0}")]
    Client(#[source] Box<kube::Error>),
    #[error("cannot read or create Secret {name}: {source}")]
    Api { name: String, source: Box<kube::Error> },
    #[error("give at least one --server-dns-name: the certificate in Secret {0} needs a name")]
    NoNames(String),
    #[error("cannot make the certificate for Secret {name}: {source}")]
    Make { name: String, source: CertError },
    #[error(
        "Secret {name} exists and cannot sign certificates: {reason}. It was left as it is. Repair it, or delete it \
         together with the server's TLS Secret and run the bootstrap again; pods then have to learn the new CA"
    )]
    Authority { name: String, reason: CertError },
    #[error("Secret {0} exists, but has no {CERTIFICATE} and {KEY}. It was left as it is: complete it or delete it")]
    Incomplete(String),
    #[error(
        "Secret {tls} exists, but its certificate is signed neither by the CA in Secret {ca} nor by one in its own ca.crt: \
         {reason}. Both were left as they are. Delete Secret {tls} and run the bootstrap again to get a certificate of that CA"
    )]
    Foreign { tls: String, ca: String, reason: CertError },
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Makes what is missing.
pub async fn run(args: BootstrapArgs) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .map_err(|error| BootstrapError::Client(Box::new(error)))?;
    make_all(&Api::namespaced(client, &args.namespace), args, Timestamp::now()).await?;
    Ok(())
}

/// 1. The keys. 2. The CA that really exists. 3. A certificate of that CA.
pub async fn make_all(secrets: &Api<Secret>, args: BootstrapArgs, now: Timestamp) -> Result<(), BootstrapError> {
    let BootstrapArgs {
        namespace: _,
        master_key_secret,
        admin_key_secret,
        ca_secret,
        tls_secret,
        server_dns_names,
    } = args;
    if let Some(name) = master_key_secret {
        make(
            secrets,
            "master key",
            &secrets::new(&name, OPAQUE_TYPE, [(MASTER_KEY, new_key()?)]),
        )
        .await?;
    }
    if let Some(name) = admin_key_secret {
        make(
            secrets,
            "admin key",
            &secrets::new(&name, OPAQUE_TYPE, [(ADMIN_KEY, new_key()?)]),
        )
        .await?;
    }
    if let (Some(ca), Some(tls)) = (ca_secret, tls_secret) {
        let authority = make_authority(secrets, &ca, now).await?;
        make_certificate(secrets, &tls, &ca, &authority, &server_dns_names, now).await?;
    }
    Ok(())
}

async fn make_authority(secrets: &Api<Secret>, name: &str, now: Timestamp) -> Result<Authority, BootstrapError> {
    let new = certs::new_authority(SERVER_AUTHORITY, now).map_err(|source| BootstrapError::Make {
        name: name.to_owned(),
        source,
    })?;
    let new = tls(name, &new, None);
    // Where another run, or a person, was first, what they made is the CA.
    let secret = if make(secrets, "server CA", &new).await? {
        new
    } else {
        get(secrets, name).await?
    };
    authority::read(&secret).map_err(|unusable| match unusable {
        Unusable::Incomplete => BootstrapError::Incomplete(name.to_owned()),
        Unusable::NoAuthority(reason) => BootstrapError::Authority {
            name: name.to_owned(),
            reason,
        },
    })
}

async fn make_certificate(
    secrets: &Api<Secret>,
    name: &str,
    ca: &str,
    authority: &Authority,
    dns_names: &[String],
    now: Timestamp,
) -> Result<(), BootstrapError> {
    let first_name = dns_names
        .first()
        .ok_or_else(|| BootstrapError::NoNames(name.to_owned()))?;
    let there = secrets.get_opt(name).await.map_err(|source| BootstrapError::Api {
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    // What is there is kept, also where the CA could not sign another.
    if there.is_none() {
        let pair = certs::issue(&authority.pair, dns_names, now, Lives::default().leaf);
        let pair = pair.map_err(|error| match error {
            reason @ CertError::SignsInVain { .. } => BootstrapError::Authority {
                name: ca.to_owned(),
                reason,
            },
            source => BootstrapError::Make {
                name: name.to_owned(),
                source,
            },
        })?;
        let new = tls(name, &pair, Some(&authority.bundle));
        if make(secrets, "server certificate", &new).await? {
            return Ok(());
        }
    }
    let secret = get(secrets, name).await?;
    let existing = secrets::pair(&secret).ok_or_else(|| BootstrapError::Incomplete(name.to_owned()))?;
    // One of another CA that is trusted gives way to one of this CA in time, which is the controller's business.
    let trusted = secrets::text(&secret, AUTHORITIES).unwrap_or_default();
    let bundle = certs::bundle(&authority.bundle, &trusted);
    check_kept(&existing, &bundle, dns_names, first_name).map_err(|reason| BootstrapError::Foreign {
        tls: name.to_owned(),
        ca: ca.to_owned(),
        reason,
    })
}

/// That the certificate which is there works with the CAs which are there. A name that it lacks is only told: a person may
/// have chosen the names.
fn check_kept(existing: &Pair, bundle: &str, dns_names: &[String], first_name: &str) -> Result<(), CertError> {
    // At a moment when it is surely valid: an expired certificate is the controller's business.
    let at = certs::check_pair(existing)?.until - jiff::SignedDuration::from_secs(1);
    let check = |name: &str| certs::check_server(&existing.certificate, bundle, name, at);
    let missing: Vec<&String> = dns_names.iter().filter(|name| check(name).is_err()).collect();
    if missing.len() < dns_names.len() {
        if !missing.is_empty() {
            tracing::warn!(names = ?missing, "the server certificate that is there is not for these names; delete its Secret to get one that is");
        }
        return Ok(());
    }
    check(first_name)
}

fn tls(name: &str, pair: &Pair, authorities: Option<&str>) -> Secret {
    let data = [
        (CERTIFICATE, Zeroizing::new(pair.certificate.clone())),
        (KEY, pair.key.clone()),
    ];
    let authorities = authorities.map(|pem| (AUTHORITIES, Zeroizing::new(pem.to_owned())));
    secrets::new(name, TLS_TYPE, data.into_iter().chain(authorities))
}

/// Creates a Secret, or keeps the one that is there; true where it was created.
async fn make(secrets: &Api<Secret>, what: &str, secret: &Secret) -> Result<bool, BootstrapError> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let created = secrets::create(secrets, secret)
        .await
        .map_err(|source| BootstrapError::Api {
            name: name.clone(),
            source: Box::new(source),
        })?;
    let outcome = if created { "created" } else { "kept" };
    tracing::info!(secret = name, outcome, "{what}");
    Ok(created)
}

async fn get(secrets: &Api<Secret>, name: &str) -> Result<Secret, BootstrapError> {
    secrets.get(name).await.map_err(|source| BootstrapError::Api {
        name: name.to_owned(),
        source: Box::new(source),
    })
}

/// A key of 64 hexadecimal digits and a newline.
fn new_key() -> Result<Zeroizing<String>, BootstrapError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(BootstrapError::Random)?;
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
    data_encoding::HEXLOWER.encode_append(bytes.as_ref(), &mut text);
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
