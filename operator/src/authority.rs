//! A CA of ours in its Secret.

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

/// Why what a Secret holds is of no use.
#[derive(Debug)]
pub enum Unusable {
    /// It has no certificate with its key.
    Incomplete,
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

/// What goes into the Secret.
pub fn data(pair: &Pair, bundle: &str) -> [(&'static str, Zeroizing<String>); 3] {
    [
        (CERTIFICATE, Zeroizing::new(pair.certificate.clone())),
        (KEY, pair.key.clone()),
        (AUTHORITIES, Zeroizing::new(bundle.to_owned())),
    ]
}
