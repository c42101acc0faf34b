//! Answers a bundle request, at once or after waiting for a change.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use sealpod_core::Time;
use sealpod_runtime::serve::later::later;
use tokio::time::Instant;

use super::look::{Looked, Question, Rest, Who, look};
use super::polls::{LookId, Need, Sees};
use super::state::Etag;
use super::{Known, Request};
use crate::app::{App, OpenPoll, POLL_SLACK};
use crate::auth::{Kept, Member, admin_key};
use crate::error::ApiError;
use crate::limits::PollPermit;
use crate::store::{EnvironmentRef, ProjectRef, Watcher};

/// What a bundle request gets.
pub enum Answer {
    Changed {
        etag: Etag,
        body: Bytes,
    },
    /// The state that the caller has still is the state.
    Same(Etag),
    /// Nothing yet.
    Wait(Box<Waiting>),
}

/// Shortest sleep, so that a clock that stands still cannot make a poll spin.
const MIN_SLEEP: Duration = Duration::from_millis(20);

/// 1. Look once. Without a known state, or with another one than now: the answer, at once.
/// 2. Else wait, if the caller is ready to: see [`Waiting`].
pub async fn answer(
    app: &App,
    member: Member,
    environment: EnvironmentRef,
    request: Request,
    known: Known,
) -> Result<Answer, ApiError> {
    let deadline = Instant::now() + request.wait;
    let request = Arc::new(request);
    let question = Question {
        environment: &environment,
        request: &request,
        known: &known,
    };
    let credential = member.caller().credential(app.limits());
    let look = async {
        let looked = look(app, Who::Member(&member), question).await?;
        if let Looked::Changed(seen) = &looked {
            seen.record(app, seen.member.by()).await?;
        }
        Ok::<_, ApiError>(looked)
    };
    // However long the caller is ready to wait for a change, one look does not take that long.
    match tokio::time::timeout(POLL_SLACK, look)
        .await
        .map_err(|_| ApiError::Timeout)??
    {
        Looked::Changed(seen) => Ok(Answer::Changed {
            etag: seen.etag,
            body: seen.body,
        }),
        Looked::Same(rest) if request.wait.is_zero() => Ok(Answer::Same(rest.etag)),
        Looked::Same(rest) => {
            let asked = Asked::new(&member, &environment, &request, known)?;
            let permit = app.limits().poll(credential, asked.weight())?;
            let open = (app.metrics().poll(), permit);
            Ok(Answer::Wait(Box::new(Waiting::new(app, asked, &rest, deadline, open))))
        }
    }
}

/// What was asked, in as few bytes as it can be asked again with.
struct Asked {
    /// Organization, project and environment.
    names: [Box<str>; 3],
    question: Box<[u8]>,
    known: Known,
    kept: Kept,
}

impl Asked {
    /// By names, which is what the caller said: should they lead elsewhere by then, that is what is answered.
    fn new(member: &Member, environment: &EnvironmentRef, request: &Request, known: Known) -> Result<Self, ApiError> {
        let ProjectRef::Slug { project, .. } = &environment.project else {
            return Err(ApiError::internal("a bundle is asked for by names"));
        };
        let names = [&member.organization.name, project, &environment.environment];
        Ok(Self {
            names: names.map(|name| name.as_str().into()),
            question: request.canonical().into(),
            known,
            kept: Kept::of(member.caller()),
        })
    }

    fn environment(&self) -> EnvironmentRef {
        let [organization, project, environment] = &self.names;
        ProjectRef::slug(&**organization, &**project).environment(&**environment)
    }

    /// How many bytes are the caller's own words.
    fn weight(&self) -> usize {
        self.question.len() + self.known.weight()
    }

    fn id(&self, app: &App) -> LookId {
        let [organization, project, environment] = &self.names;
        let known = self.known.bytes();
        LookId(app.store().pepper().mac(
            "bundle-look/1",
            &[
                self.kept.text().as_bytes(),
                organization.as_bytes(),
                project.as_bytes(),
                environment.as_bytes(),
                &self.question,
                &known,
            ],
        ))
    }
}

/// A call that waits. It sleeps until something that it asked for changes, until the clock passes the start or end of a
/// version or the end of the caller's key, until its time is over, or until the server stops; then it looks again, at
/// everything: whose the credential is, what its owner may, and what there is, in one snapshot.
///
/// Thousands of these are all that a server holds most of the time, so it keeps no more than the question.
pub struct Waiting {
    app: App,
    asked: Asked,
    etag: Etag,
    watcher: Watcher,
    edge: Option<Time>,
    deadline: Instant,
    /// Only of callers with the admin key.
    admin_keys: Option<Box<admin_key::Changes>>,
    _open: (OpenPoll, PollPermit),
}

impl Waiting {
    fn new(app: &App, asked: Asked, rest: &Rest, deadline: Instant, open: (OpenPoll, PollPermit)) -> Self {
        let admin_keys = asked
            .kept
            .is_admin_key()
            .then(|| Box::new(app.admin_keys().subscribe()));
        Self {
            etag: rest.etag,
            watcher: watch(app, rest),
            edge: rest.edge,
            deadline,
            admin_keys,
            _open: open,
            asked,
            app: app.clone(),
        }
    }

    async fn answer(&mut self) -> Result<Answer, ApiError> {
        loop {
            let Some(need) = self.woken().await? else {
                // Nobody left word of a change, so there is none.
                return Ok(Answer::Same(self.etag));
            };
            // Not so long from now: thousands may be in line before it.
            let limit = self.deadline + POLL_SLACK;
            // In memory of its own, which is held only meanwhile.
            let looking = Box::pin(self.look(need));
            let looked = tokio::time::timeout_at(limit, looking).await;
            if let Some(answer) = looked.map_err(|_| ApiError::Timeout)?? {
                return Ok(answer);
            }
        }
    }

    /// Returns when it is time to look again, with what is to be seen then; `None` once the time is over.
    async fn woken(&mut self) -> Result<Option<Need>, ApiError> {
        let until = self.edge.map_or(self.deadline, instant).min(self.deadline);
        tokio::select! {
            biased;
            () = self.app.shutdown().cancelled() => Err(ApiError::Stopping),
            () = self.watcher.changed() => Ok(Some(Need { change: self.watcher.last(), instant: None })),
            () = changed(&mut self.admin_keys) => Ok(Some(Need { change: self.watcher.last(), instant: Some(Time::now()) })),
            () = tokio::time::sleep_until(until) => {
                let need = Need { change: self.watcher.last(), instant: self.edge };
                Ok((until < self.deadline).then_some(need))
            }
        }
    }

    /// `None` where there is nothing to tell, and the wait goes on.
    async fn look(&mut self, need: Need) -> Result<Option<Answer>, ApiError> {
        let _place = self.app.limits().woken().await;
        let now = Sees {
            change: self.app.store().sequence(),
            instant: Time::now(),
        };
        let joined = self.app.polls().join(self.asked.id(&self.app), need, now);
        match joined.looked(|| self.asked.look(&self.app)).await? {
            Looked::Changed(seen) => {
                seen.record(&self.app, self.asked.kept.by(&seen.member)).await?;
                Ok(Some(Answer::Changed {
                    etag: seen.etag,
                    body: seen.body.clone(),
                }))
            }
            Looked::Same(rest) => {
                self.watcher = watch(&self.app, rest);
                (self.etag, self.edge) = (rest.etag, rest.edge);
                Ok(None)
            }
        }
    }
}

impl Asked {
    async fn look(&self, app: &App) -> Result<Looked, ApiError> {
        let request = Arc::new(Request::of(&self.question));
        let question = Question {
            environment: &self.environment(),
            request: &request,
            known: &self.known,
        };
        look(app, Who::Kept(&self.kept), question).await
    }
}

fn watch(app: &App, rest: &Rest) -> Watcher {
    app.store().watch_for(&rest.topics, &rest.interest, rest.since)
}

/// Never, for those who do not go by these keys.
async fn changed(admin_keys: &mut Option<Box<admin_key::Changes>>) {
    match admin_keys {
        Some(changes) => changes.changed().await,
        None => std::future::pending().await,
    }
}

/// When the clock will have passed `time`.
fn instant(time: Time) -> Instant {
    let left = time.microseconds().saturating_sub(Time::now().microseconds());
    // Both ends of a window belong to it, so the change is behind the microsecond, not at it.
    let left = Duration::from_micros(u64::try_from(left).unwrap_or(0)) + Duration::from_millis(1);
    Instant::now() + left.clamp(MIN_SLEEP, Duration::from_hours(1))
}

impl Waiting {
    /// Waits, and answers: for the listener, outside all layers.
    async fn answered(mut self: Box<Self>) -> Response {
        let answer = AssertUnwindSafe(self.answer()).catch_unwind().await;
        match answer {
            Ok(Ok(answer)) => answer.into_response(),
            Ok(Err(error)) => error.into_response(),
            Err(_) => ApiError::internal("a wait panicked; the panic's message stands above").into_response(),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Changed { etag, body } => {
                let json = HeaderValue::from_static("application/json");
                (
                    [(header::ETAG, tag(etag)), (header::CONTENT_TYPE, json)],
                    Body::from(body),
                )
                    .into_response()
            }
            Self::Same(etag) => (StatusCode::NOT_MODIFIED, [(header::ETAG, tag(etag))]).into_response(),
            Self::Wait(waiting) => later(waiting.answered()),
        }
    }
}

fn tag(etag: Etag) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).expect("letters, digits, `-` and `_` can stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How large the future of an async function is.
    fn future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// To this come what the store keeps of a waiting call (some 300 bytes), the question itself, and what the layers want
    /// done to the answer.
    #[test]
    fn a_waiting_call_is_small() {
        let sizes = (size_of::<Waiting>(), future(Waiting::answered));
        assert!(sizes.0 + sizes.1 <= 900, "{sizes:?}");
    }
}
