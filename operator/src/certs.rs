//! Certificates: our own authorities and what they sign. Pure but for the random numbers of new keys.
//!
//! Keys are ECDSA P-256, which every TLS client knows and which are made within a millisecond.

mod lives;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

pub use lives::Lives;

const DAY: Duration = Duration::from_hours(24);

/// Authorities live for ten years and are replaced after two thirds of that. Each signs for one Service only, and its
/// key lies in a Secret of our own namespace: whoever reads that has the namespace, which a shorter life would not mend.
pub const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3_652);
/// Certificates begin to be valid this long before they are made, because the clocks of a cluster differ; short-lived
/// ones a twelfth of their life.
pub const BACKDATED: Duration = Duration::from_hours(1);
const BACKDATED_PART: u32 = 12;

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

/// Tells nothing of the key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

impl Validity {
    /// Whether two thirds of the time are over: the moment to renew, with a third left for whatever goes wrong. Due too
    /// is what only begins, made by a clock that was ahead by more than certificates are backdated: nobody takes it yet,
    /// and that may last for years.
    pub fn is_due(&self, now: Timestamp) -> bool {
        if self.is_ahead(now) {
            return true;
        }
        let life = self.until.as_second().saturating_sub(self.from.as_second());
        now.as_second() >= self.from.as_second().saturating_add(life / 3 * 2)
    }

    /// Whether it is not valid yet.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        now.as_second() < self.from.as_second()
    }

    /// From its beginning to its end.
    pub fn life(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.until.as_second().saturating_sub(self.from.as_second())).unwrap_or(0))
    }

    /// How long ago it was made.
    pub fn age(&self, now: Timestamp) -> Duration {
        let backdated = BACKDATED
            .as_secs()
            .min(self.life().as_secs() / u64::from(BACKDATED_PART + 1));
        let made = self.from.as_second().saturating_add_unsigned(backdated);
        Duration::from_secs(u64::try_from(now.as_second().saturating_sub(made)).unwrap_or(0))
    }
}

/// What is wrong with a certificate or key. Quotes neither.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    #[error("its certificate cannot be read")]
    Unreadable,
    #[error("there is no usable PEM private key in it; it must be one without a passphrase")]
    NoKey,
    #[error("its key is not the certificate's")]
    KeyMismatch,
    #[error("its certificate is not that of a CA")]
    NotAnAuthority,
    #[error("none of its CA certificates is valid at this time")]
    NoAuthorityNow,
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String),
    #[error("a certificate cannot be made: {0}")]
    Make(rcgen::Error),
    #[error("the certificate is not accepted: {0}")]
    Refused(rustls::Error),
    #[error(
        "no client accepts what it signs for {name}: {reason}; a CA with one attribute of each kind in its subject, and \
         without name constraints, is accepted"
    )]
    SignsInVain { name: String, reason: Box<CertError> },
}

/// A new authority of the usual life.
pub fn new_authority(name: &str, now: Timestamp) -> Result<Pair, CertError> {
    new_authority_for(name, now, AUTHORITY_LIFE)
}

/// A new authority. The time in its name tells it from its successor.
pub fn new_authority_for(name: &str, now: Timestamp, life: Duration) -> Result<Pair, CertError> {
    let key = KeyPair::generate().map_err(CertError::Make)?;
    let time = now.strftime("%Y-%m-%d %H:%M:%S");
    let mut params = named(&format!("{name} {time}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, after(now, life));
    let certificate = params.self_signed(&key).map_err(CertError::Make)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// A server certificate for `names`, at least one; it never outlives its authority. Clients that trust the authority,
/// while it is valid, accept it for each of the names: not every CA of somebody's own is written into what it signs as
/// it is, and some sign for certain names only.
pub fn issue(authority: &Pair, names: &[String], now: Timestamp, life: Duration) -> Result<Pair, CertError> {
    let validity = check_authority(authority)?;
    let pair = sign(authority, names, now, after(now, life).min(validity.until.as_second()))?;
    if !validity.is_ahead(now) && now < validity.until {
        for name in names {
            check_server_and_roots(&pair.certificate, &authority.certificate, name, now).map_err(|reason| {
                CertError::SignsInVain {
                    name: name.clone(),
                    reason: Box::new(reason),
                }
            })?;
        }
    }
    Ok(pair)
}

/// `until` in Unix seconds.
fn sign(authority: &Pair, names: &[String], now: Timestamp, until: i64) -> Result<Pair, CertError> {
    let signing_key = private_key(&authority.key)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, signing_key).map_err(|_| CertError::Unreadable)?;
    let key = KeyPair::generate().map_err(CertError::Make)?;
    let mut params = named("Sealpod");
    for name in names {
        let alternative = CertificateParams::new([name.clone()].to_vec()).map_err(|_| CertError::Name(name.clone()))?;
        // Refuses what a client would never match, such as a name with a space.
        ServerName::try_from(name.as_str()).map_err(|_| CertError::Name(name.clone()))?;
        params.subject_alt_names.extend(alternative.subject_alt_names);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, until);
    let certificate = params.signed_by(&key, &issuer).map_err(CertError::Make)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// That a pair is an authority's, and its dates.
pub fn check_authority(pair: &Pair) -> Result<Validity, CertError> {
    let der = first(&pair.certificate)?;
    let certificate = parse(&der)?;
    if !certificate.is_ca() {
        return Err(CertError::NotAnAuthority);
    }
    check_key(&certificate, &pair.key)?;
    Ok(validity_of(&certificate))
}

/// That a pair belongs together, and its dates.
pub fn check_pair(pair: &Pair) -> Result<Validity, CertError> {
    let der = first(&pair.certificate)?;
    let certificate = parse(&der)?;
    check_key(&certificate, &pair.key)?;
    Ok(validity_of(&certificate))
}

/// The dates of a certificate.
pub fn validity(certificate: &str) -> Result<Validity, CertError> {
    Ok(validity_of(&parse(&first(certificate)?)?))
}

/// That a client which trusts the certificates in `authorities` accepts this one from a server of that name, at that
/// time: what a TLS client does, done by the code that does it.
pub fn check_server(certificate: &str, authorities: &str, name: &str, at: Timestamp) -> Result<(), CertError> {
    let mut roots = RootCertStore::empty();
    for authority in all(authorities)? {
        roots.add(authority).map_err(CertError::Refused)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| CertError::NoCertificate)?;
    let chain = all(certificate)?;
    let (leaf, intermediates) = chain.split_first().ok_or(CertError::NoCertificate)?;
    let name = ServerName::try_from(name).map_err(|_| CertError::Name(name.to_owned()))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)));
    verifier
        .verify_server_cert(leaf, intermediates, &name, &[], at)
        .map(|_| ())
        .map_err(CertError::Refused)
}

/// As [`check_server`], by the dates of the authorities too: TLS clients in Rust pass over those of a root, clients in Go,
/// such as an API server, do not.
pub fn check_server_and_roots(
    certificate: &str,
    authorities: &str,
    name: &str,
    at: Timestamp,
) -> Result<(), CertError> {
    let valid = those_of(&all(authorities)?, |validity| {
        !validity.is_ahead(at) && at <= validity.until
    });
    if valid.is_empty() {
        return Err(CertError::NoAuthorityNow);
    }
    check_server(certificate, &valid, name, at)
}

/// The certificates of a text whose time is not over.
pub fn not_ended(pem: &str, at: Timestamp) -> String {
    those_of(&all(pem).unwrap_or_default(), |validity| at <= validity.until)
}

fn those_of(certificates: &[CertificateDer<'_>], is_wanted: impl Fn(Validity) -> bool) -> String {
    let is_wanted = |der: &&CertificateDer<'_>| parse(der).is_ok_and(|read| is_wanted(validity_of(&read)));
    certificates.iter().filter(is_wanted).map(to_pem).collect()
}

/// The certificates of both texts, each once, in order. Those of `later` that cannot be read are left out, and the last
/// of them where they are many.
///
/// Replicas whose clocks are years apart replace each other's authority again and again, and must not fill a Secret with
/// that.
pub fn bundle(first: &str, later: &str) -> String {
    const MOST: usize = 8;
    let mut seen = Vec::new();
    let mut out = String::new();
    let (first, later) = (all(first).unwrap_or_default(), all(later).unwrap_or_default());
    let most = MOST.max(first.len());
    for der in first.into_iter().chain(later) {
        if seen.len() < most && parse(&der).is_ok() && !seen.contains(&der) {
            out.push_str(&to_pem(&der));
            seen.push(der);
        }
    }
    out
}

/// Those of `authorities` by which a client accepts the certificate from a server of that name.
pub fn signers(certificate: &str, authorities: &str, name: &str, at: Timestamp) -> String {
    let authorities = all(authorities).unwrap_or_default();
    let each = authorities.iter().map(to_pem);
    each.filter(|authority| check_server(certificate, authority, name, at).is_ok())
        .collect()
}

/// Whether the certificate's common name begins with this, as that of an authority of ours does.
pub fn is_named(certificate: &str, name: &str) -> bool {
    let Ok(der) = first(certificate) else { return false };
    parse(&der).is_ok_and(|certificate| {
        let mut names = certificate.subject().iter_common_name();
        names.any(|common| common.as_str().is_ok_and(|text| text.starts_with(name)))
    })
}

/// Whether all certificates of `part` are among those of `whole`.
pub fn holds(whole: &str, part: &str) -> bool {
    match (all(whole), all(part)) {
        (Ok(whole), Ok(part)) => part.iter().all(|certificate| whole.contains(certificate)),
        _ => false,
    }
}

/// How many certificates a text holds.
pub fn count(pem: &str) -> usize {
    all(pem).map_or(0, |certificates| certificates.len())
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Valid from `now`, backdated, until `until` in Unix seconds.
fn set_validity(params: &mut CertificateParams, now: Timestamp, until: i64) {
    let date = |unix: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    let life = u64::try_from(until.saturating_sub(now.as_second())).unwrap_or(0);
    let backdated = BACKDATED.as_secs().min(life / u64::from(BACKDATED_PART));
    params.not_before = date(now.as_second().saturating_sub_unsigned(backdated));
    params.not_after = date(until);
}

/// Unix seconds.
fn after(now: Timestamp, duration: Duration) -> i64 {
    now.as_second().saturating_add_unsigned(duration.as_secs())
}

fn check_key(certificate: &X509Certificate<'_>, key: &str) -> Result<(), CertError> {
    let key = private_key(key)?;
    if certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
        Ok(())
    } else {
        Err(CertError::KeyMismatch)
    }
}

/// The first one in it: tools write other blocks before it.
fn private_key(pem: &str) -> Result<KeyPair, CertError> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertError::NoKey)?;
    KeyPair::try_from(&key).map_err(|_| CertError::NoKey)
}

fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let time = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MAX);
    Validity {
        from: time(certificate.validity().not_before.timestamp()),
        until: time(certificate.validity().not_after.timestamp()),
    }
}

fn all(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| CertError::NoCertificate)
}

fn first(pem: &str) -> Result<CertificateDer<'static>, CertError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertError::NoCertificate)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| CertError::Unreadable)?;
    Ok(certificate)
}

fn to_pem(der: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let text = data_encoding::BASE64.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
pub mod tests;
