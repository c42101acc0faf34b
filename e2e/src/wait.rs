//! Waiting for something to become true.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

const INTERVAL: Duration = Duration::from_millis(200);

/// Looks until `look` succeeds; after `within` fails with what it saw last. `what` completes "waited for …".
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(why)) => last = Some(why),
            Err(_) => break,
        }
        if Instant::now() + INTERVAL >= deadline {
            break;
        }
        sleep(INTERVAL).await;
    }
    let last = last.map_or_else(|| "no look was finished".to_owned(), |why| format!("{why:#}"));
    Err(anyhow!("waited {} s for {what}; last: {last}", within.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[tokio::test]
    async fn it_ends_with_what_was_found() {
        let mut looks = 0;
        let found = eventually("the second look", Duration::from_secs(5), async || {
            looks += 1;
            ensure!(looks == 2, "look {looks}");
            Ok(looks)
        });
        assert_eq!(found.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn it_gives_up_with_what_it_saw_last() {
        let never = eventually("spring", Duration::from_millis(300), async || -> Result<()> {
            Err(anyhow!("still winter"))
        });
        let error = never.await.unwrap_err().to_string();
        assert!(
            error.contains("waited 0 s for spring") && error.contains("still winter"),
            "{error}"
        );
        let stuck = eventually("it", Duration::from_millis(50), async || {
            std::future::pending::<Result<()>>().await
        });
        assert!(stuck.await.unwrap_err().to_string().contains("no look was finished"));
    }
}
