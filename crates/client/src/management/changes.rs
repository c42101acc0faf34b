//! What moved: one long poll in place of many lists.

use std::time::Duration;

use reqwest::Method;
use sealpod_core::wire::management::Changes;

use super::{Management, at};
use crate::Result;
use crate::path::query;
use crate::transport::POLL_GRACE;

impl Management<'_> {
    /// What moved since a cursor, after waiting for it up to `wait` seconds (0–120). Without `since`: a cursor, and no
    /// changes. A cursor that is too old is [`Code::CursorGone`](crate::Code): take a new one, then list. Never tried
    /// again here: a caller that polls has a backoff of its own.
    pub async fn changes(&self, since: Option<&str>, wait: u64) -> Result<Changes> {
        let text = (wait > 0).then(|| wait.to_string());
        let target = at(&["changes"])? + &query([("since", since), ("wait", text.as_deref())]);
        let call = self.0.call(Method::GET, target).once();
        call.deadline(Duration::from_secs(wait) + POLL_GRACE)
            .send()
            .await?
            .json()
    }
}
