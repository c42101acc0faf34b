//! Answers a bundle request, at once or after waiting for a change.

use std::time::Duration;

use sealpod_core::Time;
use sealpod_core::wire::bundle::Bundle;
use tokio::time::Instant;

use super::state::State;
use super::{Known, Request};
use crate::app::App;
use crate::auth::Member;
use crate::error::ApiError;
use crate::limits::resting;
use crate::store::{EnvironmentRef, Topic, Watcher};

/// What a bundle request gets.
pub enum Answer {
    Changed(Bundle),
    /// The state that the caller has still is the state.
    Same {
        etag: String,
    },
}

/// Shortest sleep, so that a clock that stands still cannot make a poll spin.
const MIN_SLEEP: Duration = Duration::from_millis(20);

/// 1. Without a known state, or with another one than now: the answer, at once.
/// 2. Else wait: for a change of the environment or of the caller's rights and keys, for the clock to pass the start
///    or end of a version or of the caller's key, for the end of `wait`, or for the server to stop.
/// 3. Look again who calls, and begin anew.
pub async fn answer(
    app: &App,
    mut member: Member,
    environment: EnvironmentRef,
    request: &Request,
    known: &Known,
) -> Result<Answer, ApiError> {
    if known.is_empty() {
        return give_out(app, &member, &environment, request).await;
    }
    let deadline = Instant::now() + request.wait;
    let mut waiting = None;
    loop {
        let state = State::read(app, &member, &environment, request, false).await?;
        if !known.has(&state.etag) {
            return give_out(app, &member, &environment, request).await;
        }
        if Instant::now() >= deadline {
            return Ok(Answer::Same { etag: state.etag });
        }
        match &mut waiting {
            // What changed before the watch began was not seen by it, so look once more before sleeping.
            None => waiting = Some(Waiting::begin(app, &member, &state)?),
            Some(waiting) => waiting.for_change(app, &member, &state, deadline).await?,
        }
        member = member.again(app).await?;
    }
}

async fn give_out(
    app: &App,
    member: &Member,
    environment: &EnvironmentRef,
    request: &Request,
) -> Result<Answer, ApiError> {
    let state = State::read(app, member, environment, request, request.values).await?;
    state.give_out(app, member, request).await.map(Answer::Changed)
}

struct Waiting {
    watcher: Watcher,
    admin_keys: crate::auth::admin_key::Changes,
    _open: (crate::app::OpenPoll, crate::limits::PollPermit),
}

impl Waiting {
    fn begin(app: &App, member: &Member, state: &State) -> Result<Self, ApiError> {
        let location = &state.snapshot.location;
        let mut topics = vec![
            Topic::Organization(location.organization),
            Topic::Project(location.project),
            Topic::Environment(location.environment),
        ];
        topics.extend(member.subject().map(|subject| Topic::Subject(subject.id())));
        let permit = app.limits().poll(member.caller().credential(app.limits()))?;
        Ok(Self {
            watcher: app.store().watch(&topics),
            admin_keys: app.admin_keys().subscribe(),
            _open: (app.metrics().poll(), permit),
        })
    }

    /// Returns when it is time to look again.
    async fn for_change(
        &mut self,
        app: &App,
        member: &Member,
        state: &State,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let by_clock = [state.snapshot.next_change_at, member.caller().expires_at()];
        let until = by_clock
            .into_iter()
            .flatten()
            .map(instant)
            .min()
            .unwrap_or(deadline)
            .min(deadline);
        let change = async {
            tokio::select! {
                () = self.watcher.changed() => Ok(()),
                () = self.admin_keys.changed() => Ok(()),
                () = tokio::time::sleep_until(until) => Ok(()),
                () = app.shutdown().cancelled() => Err(ApiError::Stopping),
            }
        };
        resting(change).await
    }
}

/// When the clock will have passed `time`.
fn instant(time: Time) -> Instant {
    let left = time.microseconds().saturating_sub(Time::now().microseconds());
    // Both ends of a window belong to it, so the change is behind the microsecond, not at it.
    let left = Duration::from_micros(u64::try_from(left).unwrap_or(0)) + Duration::from_millis(1);
    Instant::now() + left.clamp(MIN_SLEEP, Duration::from_hours(1))
}
