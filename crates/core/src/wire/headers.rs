//! Names of the headers that are ours, and the prefixes that tell credentials apart.

/// Application keys (`grm_…`) and service-account keys (`cr_sa_…`).
pub const API_KEY: &str = "x-api-key";
/// `<kind>/<namespace>/<name>` of the object for which the operator calls; believed only with the admin key.
pub const ON_BEHALF: &str = "x-sealpod-on-behalf";
/// On a POST: sent again under the same key within a day, it is done once and answered with the first answer.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// `true` on an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
pub const REQUEST_ID: &str = "x-request-id";

pub const APPLICATION_KEY_PREFIX: &str = "grm_";
pub const SERVICE_ACCOUNT_KEY_PREFIX: &str = "cr_sa_";
