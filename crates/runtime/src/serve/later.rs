//! Answers that come later.
//!
//! A request that waits for minutes holds all that its layers hold: each keeps what it was called with until it is
//! answered, some KiB together, and thousands of requests wait. So a handler may answer at once with a response that
//! stands for the one to come; the layers see it, let go, and the listener itself waits for the other one. A layer that
//! does something to answers leaves that to be done with [`then`].

use std::mem::take;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Stands beside the response, which holds only what can be cloned and shared.
#[derive(Clone)]
struct Later(Arc<Mutex<Option<Answer>>>);

/// A response that stands for the one that `answer` ends with.
pub fn later(answer: impl Future<Output = Response> + Send + 'static) -> Response {
    let mut response = StatusCode::ACCEPTED.into_response();
    let later = Later(Arc::new(Mutex::new(Some(Box::pin(answer)))));
    response.extensions_mut().insert(later);
    response
}

/// Does to a response what is to be done to it: at once, or when it comes. What was left beside the one that stands for
/// it is beside it then.
pub fn then(mut response: Response, change: impl FnOnce(Response) -> Response + Send + 'static) -> Response {
    let Some(answer) = taken(&mut response) else {
        return change(response);
    };
    let mut left = take(response.extensions_mut());
    later(async move {
        let mut response = answer.await;
        left.extend(take(response.extensions_mut()));
        *response.extensions_mut() = left;
        change(response)
    })
}

fn taken(response: &mut Response) -> Option<Answer> {
    let Later(answer) = response.extensions_mut().remove()?;
    answer.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Answers with what comes later, and meanwhile holds nothing else.
pub(super) enum Answering<F> {
    Now(Pin<Box<F>>),
    Later(Answer),
}

impl<F> Answering<F> {
    pub(super) fn new(answering: F) -> Self {
        Self::Now(Box::pin(answering))
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Answering<F> {
    type Output = Result<Response, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Now(answering) => {
                    let mut response = ready!(answering.as_mut().poll(cx))?;
                    match taken(&mut response) {
                        Some(answer) => *self = Self::Later(answer),
                        None => return Poll::Ready(Ok(response)),
                    }
                }
                Self::Later(answer) => return answer.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Clone)]
    struct Left;

    #[tokio::test]
    async fn what_layers_do_is_done_when_the_answer_comes_and_what_they_hold_is_given_back_before() {
        struct Held(Arc<AtomicBool>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let given_back = Arc::new(AtomicBool::new(false));
        let held = Held(Arc::clone(&given_back));
        let layered = async move {
            let mut response = later(async move {
                told.await.ok();
                StatusCode::NO_CONTENT.into_response()
            });
            response.extensions_mut().insert(Left);
            let response = then(response, |mut response| {
                assert!(response.extensions().get::<Left>().is_some());
                response.headers_mut().insert("x-layer", "one".parse().unwrap());
                response
            });
            drop(held);
            Ok::<_, Infallible>(then(response, |mut response| {
                let first = response.headers()["x-layer"].clone();
                response.headers_mut().insert("x-behind", first);
                response
            }))
        };
        let answering = tokio::spawn(Answering::new(layered));
        while !given_back.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        assert!(!answering.is_finished());
        tell.send(()).unwrap();
        let response = answering.await.unwrap().unwrap();
        assert_eq!(
            (response.status(), &response.headers()["x-behind"]),
            (StatusCode::NO_CONTENT, &"one".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_there_is_changed_at_once() {
        let response = then(StatusCode::OK.into_response(), |mut response| {
            *response.status_mut() = StatusCode::CREATED;
            response
        });
        assert_eq!(response.status(), StatusCode::CREATED);
        let answered = Answering::new(async { Ok::<_, Infallible>(response) }).await.unwrap();
        assert_eq!(answered.status(), StatusCode::CREATED);
    }
}
