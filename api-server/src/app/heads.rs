//! Tells the log how far the audit chains have come, so that a tail which somebody cuts off is missed: the log is kept
//! elsewhere.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::store::Store;

pub const INTERVAL: Duration = Duration::from_mins(1);

/// One line for each chain that has grown, at every interval and at the end.
pub async fn log(store: Store, every: Duration, stop: CancellationToken) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = stop.run_until_cancelled(ticks.tick()).await.is_none();
        for head in store.moved_audit_heads() {
            let hash = data_encoding::HEXLOWER.encode(&head.hash);
            tracing::info!(chain = %head.chain, seq = head.seq, %hash, "audit chain head");
        }
        if stopping {
            return;
        }
    }
}
