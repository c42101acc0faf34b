//! The gate that the start of an app waits at: the files of every binding have been there. As a command, and as a path of
//! the health port.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sealpod_core::injection::{GATE_PATH, GATE_TIMEOUT, MountedBinding};
use tokio::sync::{Semaphore, watch};

use crate::handover;

/// How often the files are looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Requests that may wait at a time. The kubelet has one; everybody else who reaches the pod may take the other places and
/// no more. Who finds none is answered at once, and the kubelet, which then asks each second, still learns of an open gate.
const PLACES: usize = 8;
/// How long one may wait: an answer is better than a client that gives up.
const PATIENCE: Duration = GATE_TIMEOUT.saturating_sub(Duration::from_secs(10));
// The kubelet still listens when it is answered, and does not ask all the time.
const _: () = assert!(PATIENCE.as_secs() < GATE_TIMEOUT.as_secs() && PATIENCE.as_secs() > GATE_TIMEOUT.as_secs() / 2);

/// The directories of all bindings.
#[derive(Debug, Clone)]
pub struct Gate(Vec<PathBuf>);

impl Gate {
    pub fn of(bindings: &[MountedBinding]) -> Self {
        let mounts = bindings.iter().map(|binding| PathBuf::from(&binding.mount_path));
        Self(mounts.collect())
    }

    /// Whether the files of every binding are there now.
    pub fn is_open(&self) -> bool {
        self.0.iter().all(|mount| handover::is_open(mount))
    }

    /// Ends when the files of every binding have been there. What becomes of them later, as by the binding's staleness,
    /// is nothing to a gate: one binding may lose them while another has none yet.
    pub async fn opened(&self) {
        for mount in &self.0 {
            while !handover::is_open(mount) {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// The path of the health port: 200 once `opened` is true, and 503 to who has waited for too long, who is one too many, and
/// when nobody is left to open the gate.
pub fn router(opened: watch::Receiver<bool>) -> Router {
    let door = Door {
        opened,
        places: Arc::new(Semaphore::new(PLACES)),
        patience: PATIENCE,
    };
    Router::new().route(GATE_PATH, get(move || door.clone().pass()))
}

/// What a request waits at.
#[derive(Debug, Clone)]
struct Door {
    opened: watch::Receiver<bool>,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Door {
    /// The listener drops it with its client's connection, and so gives the place back.
    async fn pass(mut self) -> Response {
        if !*self.opened.borrow() {
            let Ok(_place) = self.places.try_acquire() else {
                return closed("too many wait for the files already\n");
            };
            let opened = self.opened.wait_for(|opened| *opened);
            match tokio::time::timeout(self.patience, opened).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return closed("the sidecar stops\n"),
                Err(_) => return closed("the files are not there yet\n"),
            }
        }
        "ok\n".into_response()
    }
}

fn closed(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(patience: Duration, places: usize) -> (watch::Sender<bool>, Door) {
        let (tell, opened) = watch::channel(false);
        let places = Arc::new(Semaphore::new(places));
        let door = Door {
            opened,
            places,
            patience,
        };
        (tell, door)
    }

    async fn status(door: &Door) -> u16 {
        door.clone().pass().await.status().as_u16()
    }

    #[tokio::test]
    async fn who_has_waited_for_long_is_answered_and_leaves_the_place_to_the_next() {
        let (tell, door) = door(Duration::from_millis(10), 1);
        assert_eq!(status(&door).await, 503);
        let next = tokio::spawn({
            let door = Door {
                patience: PATIENCE,
                ..door.clone()
            };
            async move { status(&door).await }
        });
        while door.places.available_permits() == 1 {
            tokio::task::yield_now().await;
        }
        tell.send_replace(true);
        assert_eq!(next.await.unwrap(), 200);
    }

    #[tokio::test]
    async fn an_open_gate_is_open_also_to_who_would_find_no_place() {
        let (tell, door) = door(PATIENCE, 0);
        assert_eq!(status(&door).await, 503);
        tell.send_replace(true);
        drop(tell);
        assert_eq!(status(&door).await, 200);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_gate_that_nobody_opens_any_more() {
        let (tell, door) = door(PATIENCE, 1);
        drop(tell);
        assert_eq!(status(&door).await, 503);
    }
}
