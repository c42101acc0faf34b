//! The random part of the webhook's path, by which the API server is told from a pod.

use k8s_openapi::api::core::v1::Secret;

use super::KeepError;
use super::evaluate::{Webhook, path};
use crate::secrets;

/// Its key in the Secret where all replicas find it.
pub const SEGMENT: &str = "webhook-path-segment";
const SEGMENT_BYTES: usize = 16;

/// The one in a Secret.
pub fn read_segment(secret: &Secret) -> Option<String> {
    let segment = secrets::text(secret, SEGMENT)?;
    is_segment(&segment).then(|| segment.to_string())
}

/// The one under which the API server calls us.
pub fn registered_segment(webhooks: &[Webhook]) -> Option<String> {
    let mut paths = webhooks.iter().filter_map(|webhook| webhook.path.as_deref());
    let segment = paths.find_map(|registered| registered.strip_prefix(&path("")).filter(|rest| is_segment(rest)))?;
    Some(segment.to_owned())
}

fn is_segment(text: &str) -> bool {
    text.len() == 2 * SEGMENT_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub fn new_segment() -> Result<String, KeepError> {
    let mut bytes = [0; SEGMENT_BYTES];
    getrandom::fill(&mut bytes).map_err(KeepError::Random)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
