//! A CA of ours and what it signed, each in its Secret.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use crate::certs::{self, CertError, Pair, Validity};
use crate::secrets::{self, AUTHORITIES, CERTIFICATE, KEY};

/// The name of the api-server's, in its certificate.
pub const SERVER_AUTHORITY: &str = "Sealpod server CA";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub pair: Pair,
    pub validity: Validity,
    /// All that is to be trusted, this one first.
    pub bundle: String,
}

/// What a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub pair: Pair,
    pub validity: Validity,
}

/// Why what a Secret holds is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it has no {CERTIFICATE} and {KEY}")]
    Incomplete,
    #[error("{0}")]
    NoAuthority(CertError),
}

/// What a Secret holds.
pub fn read(secret: &Secret) -> Result<Authority, Unusable> {
    let pair = secrets::pair(secret).ok_or(Unusable::Incomplete)?;
    let validity = certs::check_authority(&pair).map_err(Unusable::NoAuthority)?;
    let others = secrets::text(secret, AUTHORITIES).unwrap_or_default();
    let bundle = certs::bundle(&pair.certificate, &others);
    Ok(Authority { pair, validity, bundle })
}

/// What a Secret holds of a server, whoever signed it.
pub fn read_leaf(secret: &Secret) -> Result<Leaf, CertError> {
    let pair = secrets::pair(secret).ok_or(CertError::NoKey)?;
    let validity = certs::check_pair(&pair)?;
    Ok(Leaf { pair, validity })
}

/// When the certificate in a Secret ends, whatever else is in there.
pub fn ends(secret: &Secret) -> Option<Timestamp> {
    let certificate = secrets::text(secret, CERTIFICATE)?;
    certs::validity(&certificate).ok().map(|validity| validity.until)
}

/// Whether nothing of anybody's is lost when another CA takes the place of what is in the Secret and of no use: it holds
/// nothing, or a certificate that has `name` as ours have, and no key of PEM, which may be the first half of what
/// somebody brings.
pub fn is_replaceable(secret: &Secret, name: &str) -> bool {
    const PEM: &str = "-----BEGIN";
    let is_empty = |entry| secrets::bytes(secret, entry).is_none_or(|bytes| bytes.trim_ascii().is_empty());
    let is_ours = || secrets::text(secret, CERTIFICATE).is_some_and(|certificate| certs::is_named(&certificate, name));
    let has_key = || secrets::text(secret, KEY).is_some_and(|key| key.contains(PEM));
    (is_empty(CERTIFICATE) && is_empty(KEY)) || (is_ours() && !has_key())
}

/// What goes into the Secret.
pub fn data(pair: &Pair, bundle: &str) -> [(&'static str, Zeroizing<String>); 3] {
    [
        (CERTIFICATE, Zeroizing::new(pair.certificate.clone())),
        (KEY, pair.key.clone()),
        (AUTHORITIES, Zeroizing::new(bundle.to_owned())),
    ]
}
