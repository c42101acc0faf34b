//! When to ask next: what an answer, or its absence, means for the time until the next question.

use std::time::{Duration, Instant};

use sealpod_client::Error;
use sealpod_client::backoff::Backoff;
use sealpod_core::Time;

/// The waits of an agent. The defaults are the product's; tests take shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often the files of the key Secret are looked at.
    pub credentials: Duration,
    /// Ceiling of the first delay after a failure, and of all.
    pub backoff: Duration,
    pub backoff_cap: Duration,
    /// Rest after a change, so that a burst of them is not a burst of swaps.
    pub settle: Duration,
    /// How long files that were replaced stay for readers that have just looked them up.
    pub grace: Duration,
    /// Shortest wait for `next_change_at`, whatever the server says.
    pub soonest_change: Duration,
    /// Longest delay after a failure while a pod waits for its first files.
    pub first_cap: Duration,
    /// Longest delay while nobody listens, which costs nobody anything: at first, when the server may just be restarting,
    /// and once it has been away for longer than `restart`. The latter also after a no, while a pod waits for its first files.
    pub restart: Duration,
    pub restart_cap: Duration,
    pub away_cap: Duration,
    /// Longest rest of an agent that does not long-poll, while a pod waits for its files.
    pub hurry: Duration,
    pub notify: crate::notify::Timing,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            credentials: sealpod_runtime::files::POLL_INTERVAL,
            backoff: Duration::from_millis(500),
            backoff_cap: Duration::from_mins(1),
            settle: Duration::from_millis(250),
            grace: Duration::from_secs(5),
            soonest_change: Duration::from_secs(1),
            first_cap: Duration::from_secs(2),
            restart: Duration::from_mins(1),
            restart_cap: Duration::from_secs(2),
            away_cap: Duration::from_secs(15),
            hurry: Duration::from_secs(10),
            notify: crate::notify::Timing::default(),
        }
    }
}

/// Shortest interval between two questions that nothing but the clock asks for.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The pace of one agent.
#[derive(Debug)]
pub struct Pace {
    timing: Timing,
    /// Of answers that are no bundle. Failures to reach the server do not count: when it returns, nobody has asked it for
    /// too much yet.
    backoff: Backoff,
    /// When the first of the failures in a row was.
    failing_since: Option<Instant>,
    /// Whether the last answer was a new state that changed no file.
    fruitless: bool,
}

impl Pace {
    pub fn new(timing: Timing, seed: &str) -> Self {
        Self {
            backoff: Backoff::seeded(timing.backoff, timing.backoff_cap, seed),
            timing,
            failing_since: None,
            fruitless: false,
        }
    }

    /// There is something new to ask with, so former failures count no more.
    pub fn restart(&mut self) {
        self.backoff.reset();
        self.failing_since = None;
        self.fruitless = false;
    }

    /// No answer, or one that is no bundle; gives how long to rest. `waiting`: a pod waits for its first files.
    ///
    /// Everybody draws from zero up, so a fleet that lost its server together comes back spread over the ceiling. The
    /// ceiling grows only where the server hears of it: a connection that is refused costs it nothing.
    pub fn failed(&mut self, error: &Error, waiting: bool, now: Instant) -> Duration {
        let since = *self.failing_since.get_or_insert(now);
        if matches!(error, Error::Unreachable { .. }) {
            self.backoff.reset();
            let restarting = now.saturating_duration_since(since) < self.timing.restart;
            let cap = match (waiting, restarting) {
                (true, _) => self.timing.first_cap,
                (false, true) => self.timing.restart_cap,
                (false, false) => self.timing.away_cap,
            };
            return self.backoff.jittered(cap, 0.0);
        }
        let mut delay = self.backoff.next_delay();
        if waiting {
            // A no is one for a while: until somebody grants a right, or mints a key.
            let cap = if error.is_transient() {
                self.timing.first_cap
            } else {
                self.timing.away_cap
            };
            delay = delay.min(self.backoff.jittered(cap, 0.0));
        }
        // On top of what was asked for, so that a fleet does not come back in one moment.
        error.retry_after().unwrap_or_default() + delay
    }

    /// "Nothing changed", sooner than asked; gives how long to rest.
    pub fn early(&mut self) -> Duration {
        self.failing_since = None;
        self.backoff.next_delay()
    }

    /// "Nothing changed", in its time.
    pub fn confirmed(&mut self) {
        self.restart();
    }

    /// A new state; gives how long to rest. One that changes no file is nothing bad; one after the other is, as of a
    /// server that makes up a new state at each question.
    pub fn updated(&mut self, changed: bool) -> Duration {
        let again = self.fruitless && !changed;
        if !again {
            self.restart();
        }
        self.fruitless = !changed;
        if changed {
            self.timing.settle
        } else {
            self.backoff.next_delay().max(self.timing.settle)
        }
    }

    /// A new state that could not be written; gives how long to rest.
    pub fn unwritable(&mut self) -> Duration {
        self.failing_since = None;
        self.backoff.next_delay()
    }

    /// How long until the next question is due whatever happens: the interval, or the next change that time brings. In
    /// a `hurry` no long interval is waited for.
    pub fn refresh(&mut self, interval: Duration, next_change_at: Option<Time>, hurry: bool) -> Duration {
        let interval = if hurry {
            interval.min(self.timing.hurry)
        } else {
            interval
        };
        let refresh = self.backoff.jittered(interval.max(MIN_INTERVAL), 0.8);
        // One that has passed by our clock is left to the refresh: the clocks may differ.
        let next = next_change_at.and_then(|next| {
            let ahead = Duration::try_from(next.timestamp().duration_since(jiff::Timestamp::now())).ok()?;
            Some(ahead.max(self.timing.soonest_change))
        });
        next.map_or(refresh, |next| refresh.min(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Timing::default(), "pod")
    }

    fn unreachable() -> Error {
        Error::Unreachable {
            reason: "refused".to_owned(),
        }
    }

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    fn longest(pace: &mut Pace, error: &Error, waiting: bool, now: Instant) -> Duration {
        (0..50).map(|_| pace.failed(error, waiting, now)).max().unwrap()
    }

    #[test]
    fn a_server_that_nobody_reaches_is_found_soon_however_long_it_was_away() {
        let (mut pace, start) = (pace(), Instant::now());
        assert!(longest(&mut pace, &unreachable(), false, start) <= SECONDS(2));
        assert!(longest(&mut pace, &unreachable(), false, start + SECONDS(59)) <= SECONDS(2));
        let later = start + Duration::from_hours(5);
        let running = longest(&mut pace, &unreachable(), false, later);
        assert!((SECONDS(5)..=SECONDS(15)).contains(&running), "{running:?}");
        assert!(
            longest(&mut pace, &unreachable(), true, later) <= SECONDS(2),
            "a pod waits"
        );
        // The next outage is another one.
        pace.confirmed();
        assert!(longest(&mut pace, &unreachable(), false, later) <= SECONDS(2));
    }

    #[test]
    fn an_outage_does_not_count_against_the_server_that_returns() {
        let (mut pace, now) = (pace(), Instant::now());
        longest(&mut pace, &unreachable(), true, now);
        let stopping = Error::Unavailable {
            status: 503,
            code: None,
            retry_after: Some(SECONDS(1)),
        };
        let first = pace.failed(&stopping, true, now);
        assert!(
            (SECONDS(1)..=Duration::from_millis(1_500)).contains(&first),
            "{first:?}"
        );
        let running = longest(&mut pace, &stopping, false, now);
        assert!(
            running > SECONDS(30),
            "who is asked to wait again and again asks ever less"
        );
        let waits = longest(&mut pace, &stopping, true, now);
        assert!(
            (SECONDS(2)..=SECONDS(3)).contains(&waits),
            "but for a pod that waits it is what the server asks for, and a little: {waits:?}"
        );
    }

    #[test]
    fn a_server_that_listens_and_cannot_answer_is_asked_ever_less() {
        let (mut pace, now) = (pace(), Instant::now());
        let error = Error::Timeout { deadline: SECONDS(1) };
        assert!(longest(&mut pace, &error, false, now) > SECONDS(30));
        assert!(longest(&mut pace, &error, true, now) <= SECONDS(2), "but a pod waits");
        let no = Error::TooLarge { limit: 1 };
        let longest = longest(&mut pace, &no, true, now);
        assert!(
            (SECONDS(5)..=SECONDS(15)).contains(&longest),
            "a pod that may not: {longest:?}"
        );
    }

    #[test]
    fn new_states_that_change_nothing_are_asked_for_ever_less() {
        let mut pace = pace();
        let settle = Timing::default().settle;
        assert_eq!(pace.updated(true), settle);
        assert!(pace.updated(false) <= Duration::from_millis(500), "one is nothing bad");
        let longest = (0..20).map(|_| pace.updated(false)).max().unwrap();
        assert!(longest > Duration::from_secs(10), "{longest:?}");
        assert_eq!(pace.updated(true), settle);
    }

    #[test]
    fn a_refresh_is_jittered_and_never_sooner_than_its_least() {
        let mut pace = pace();
        let hour = Duration::from_hours(1);
        let range = |least: Duration| least.mul_f64(0.8)..=least;
        for _ in 0..50 {
            assert!(range(hour).contains(&pace.refresh(hour, None, false)));
            assert!(
                range(Duration::from_secs(10)).contains(&pace.refresh(hour, None, true)),
                "a pod waits"
            );
            assert!(range(Duration::from_secs(1)).contains(&pace.refresh(Duration::ZERO, None, true)));
        }
        let at = |seconds| Some(Time::now().plus_seconds(seconds));
        assert!(
            range(hour).contains(&pace.refresh(hour, at(-5), false)),
            "passed already"
        );
        assert!(pace.refresh(hour, at(5), false) <= Duration::from_secs(5));
        assert!(pace.refresh(hour, at(400_000_000), false) <= hour);
        pace.refresh(Duration::from_secs(u64::MAX), None, false);
    }
}
