//! What is in the way of a renewal.

use crate::certs::CertError;
use crate::controller::error::describe;

/// For the log.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("Secret {name}: {}", describe(source))]
    Secret { name: String, source: Box<kube::Error> },
    #[error(
        "Secret {0} is not there; the bootstrap Job makes it: delete that Job and upgrade the release to run it again"
    )]
    Missing(String),
    #[error(
        "Secret {0} was not made by Sealpod and is left as it is; set tls.mode to existingSecret to use a certificate of yours"
    )]
    NotOurs(String),
    #[error(
        "Secret {name}: the CA in it is of no use and is left as it is: {reason}; correct tls.crt and tls.key, or empty both \
         to get a CA of Sealpod's"
    )]
    Unusable { name: String, reason: String },
    #[error(
        "Secret {name}: its CA cannot sign the api-server's certificate, so the one before stays: {source}; put another CA \
         into tls.crt and tls.key, or empty both to get one of Sealpod's"
    )]
    Signing { name: String, source: CertError },
    #[error("cannot make a CA: {0}")]
    Make(#[source] CertError),
    #[error("no DNS name is given for the server's certificate; set --server-dns-name")]
    NoNames,
    #[error(
        "the clock here is {minutes} min {direction} that of the Kubernetes API: nothing is made until they agree; set the \
         clocks of the nodes"
    )]
    Clock { minutes: u64, direction: &'static str },
    #[error("the Kubernetes API does not tell its time: {0}")]
    NoClock(String),
    #[error(
        "{count} key Secrets, or all of a namespace, have not got the new CA, so it signs nothing until they have, or for \
         seven days; the first is {first}: {reason}"
    )]
    Undelivered {
        count: usize,
        first: String,
        reason: String,
    },
    #[error("the new CA has not reached the controller's own file yet; it comes with the kubelet")]
    NotHere,
    #[error("the Secrets kept changing")]
    Contended,
}
