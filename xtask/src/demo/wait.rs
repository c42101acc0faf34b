//! Waiting for the cluster to come to a state.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::Failure;
use crate::progress::Step;

/// Each look is a process that takes some of the time of the processors that it waits for.
const INTERVAL: Duration = Duration::from_millis(350);

/// What is waited for.
pub struct Wait {
    /// Completes "waited … for".
    pub what: String,
    pub within: Duration,
    /// What to do when it does not come.
    pub advice: String,
}

/// What one look showed.
pub enum Seen<T> {
    Reached(T),
    /// What is still missing, for the user to read.
    NotYet(String),
}

/// Looks until the state is reached, shows meanwhile what is missing, and fails after `within` or at once when `look`
/// says that waiting is in vain.
pub fn until<T>(step: &Step, wait: &Wait, mut look: impl FnMut() -> Result<Seen<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look()? {
            Seen::Reached(value) => return Ok(value),
            Seen::NotYet(missing) if begun.elapsed() > wait.within => {
                let waited = format!("waited {} s for {}: {missing}", wait.within.as_secs(), wait.what);
                return Err(Failure::new(waited).advice(&wait.advice).into());
            }
            Seen::NotYet(missing) => step.follow(&missing),
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    #[test]
    fn it_ends_when_reached_and_otherwise_says_what_was_missing_and_what_to_do() {
        let wait = |seconds: u64| Wait {
            what: "spring".into(),
            within: Duration::from_secs(seconds),
            advice: "dress warmly".into(),
        };
        let mut looks = 0;
        let reached = Progress::plain().step("Waiting", |step| {
            until(step, &wait(5), || {
                looks += 1;
                Ok(if looks == 2 {
                    Seen::Reached(looks)
                } else {
                    Seen::NotYet("winter".into())
                })
            })
        });
        assert_eq!(reached.unwrap(), 2);
        let never: Result<()> = Progress::plain().step("Waiting", |step| {
            until(step, &wait(0), || Ok(Seen::NotYet("still winter".into())))
        });
        let said = never.unwrap_err().to_string();
        assert_eq!(said, "waited 0 s for spring: still winter\n  what to do: dress warmly");
    }
}
