//! Lists: a page where `limit` asks for one, else everything, however long.
//!
//! One page is one state of the database. What spans several pages does not: an object that is there all the time is
//! listed exactly once, for the order is that of names (of numbers, for versions), and one that is made or deleted
//! meanwhile may be listed or not; a project that the organization plane renames meanwhile counts as both.

use std::fmt::Display;
use std::io;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use sealpod_core::names::{self, MAX_SECRET_NAME};
use sealpod_core::wire::Labels;
use serde::Serialize;

use crate::app::App;
use crate::body::{QueryFields, ReadQuery};
use crate::error::ApiError;
use crate::routes::labels::labels;
use crate::routes::links::Segment;

/// Items that are in memory at a time while everything is sent.
pub const CHUNK: u32 = 200;
const MAX_LIMIT: u64 = 1_000;

/// Where a page begins, as callers carry it from `Link` to the next request.
pub trait Place: Display + Sized + Send + 'static {
    /// `None`: no list ever ended there.
    fn read(text: &str) -> Option<Self>;
}

/// Behind this name, which need not be one that still exists.
impl Place for String {
    fn read(text: &str) -> Option<Self> {
        names::check_free_text(text, MAX_SECRET_NAME)
            .ok()
            .map(|()| text.to_owned())
    }
}

/// Below this version.
impl Place for u64 {
    fn read(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number > 0)
    }
}

/// `?limit=&after=`
pub struct Pages<P> {
    limit: Option<u32>,
    after: Option<P>,
}

impl<P: Place> ReadQuery for Pages<P> {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let limit = query.whole("limit", 1, MAX_LIMIT);
        let after = match query.at_most_one("after") {
            None => None,
            Some(None) => Some(None),
            Some(Some(text)) => {
                let place = P::read(&text);
                if place.is_none() {
                    query.fault(
                        "after",
                        "is no place in this list; take it from the `Link` of the page before",
                    );
                }
                place.map(Some)
            }
        };
        Some(Self {
            limit: limit?.and_then(|limit| u32::try_from(limit).ok()),
            after: after?,
        })
    }
}

/// `?label=&limit=&after=`
pub struct Labelled {
    pub labels: Labels,
    pub pages: Pages<String>,
}

impl ReadQuery for Labelled {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let labels = labels(query);
        let pages = Pages::read(query);
        Some(Self {
            labels: labels?,
            pages: pages?,
        })
    }
}

/// A piece of a list, and whether more follows.
pub struct Piece<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl<T> Piece<T> {
    /// The first `limit` of items of which one more was asked for.
    pub fn cut(mut items: Vec<T>, limit: u32) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Self { items, more }
    }
}

/// A list that is read piece by piece.
pub trait List: Send + Sized + 'static {
    type Item: Serialize + Send;
    type Place: Send + 'static;

    /// What stands around the items where everything is sent.
    const AROUND: (&'static str, &'static str) = ("[", "]");

    /// At most `limit` items behind a place.
    fn piece(
        &self,
        app: &App,
        after: Option<Self::Place>,
        limit: u32,
    ) -> impl Future<Output = Result<Piece<Self::Item>, ApiError>> + Send;

    /// The place behind an item.
    fn place(item: &Self::Item) -> Self::Place;
}

/// A list whose pages lead to the next one.
pub trait Linked: List<Place: Place> {
    /// The list's path, and what its query has beside `limit` and `after`.
    fn link(&self) -> (String, String);
}

/// Answers with the page that is asked for, or with everything.
pub async fn answer<L: Linked>(app: App, list: L, pages: Pages<L::Place>) -> Result<Response, ApiError> {
    if let Some(limit) = pages.limit {
        let piece = list.piece(&app, pages.after, limit).await?;
        let next = piece
            .items
            .last()
            .filter(|_| piece.more)
            .map(|last| next(&list, limit, last));
        let mut response = Json(piece.items).into_response();
        if let Some(next) = next {
            let next = HeaderValue::from_str(&next).map_err(ApiError::internal)?;
            response.headers_mut().insert(header::LINK, next);
        }
        return Ok(response);
    }
    everything(app, list, pages.after).await
}

/// Answers with all that is behind a place.
pub async fn everything<L: List>(app: App, list: L, after: Option<L::Place>) -> Result<Response, ApiError> {
    // What is wrong with the request shows while it can still be a problem document.
    let first = list.piece(&app, after, CHUNK).await?;
    let sending = Sending {
        app,
        list,
        ready: Some(first),
        after: None,
        begun: false,
    };
    let (text, rest) = sending.step().await.map_err(ApiError::internal)?;
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if rest.is_none() {
        return Ok((json, text).into_response());
    }
    let chunks = stream::try_unfold((Some(text), rest), |(ready, rest)| async {
        match (ready, rest) {
            (Some(text), rest) => Ok(Some((text, (None, rest)))),
            (None, Some(rest)) => {
                let (text, rest) = rest.step().await?;
                Ok(Some((text, (None, rest))))
            }
            (None, None) => Ok::<_, io::Error>(None),
        }
    });
    Ok((json, Body::from_stream(chunks)).into_response())
}

fn next<L: Linked>(list: &L, limit: u32, item: &L::Item) -> String {
    let (path, query) = list.link();
    let after = L::place(item).to_string();
    format!("<{path}?{query}limit={limit}&after={}>; rel=\"next\"", Segment(&after))
}

/// One JSON array, as far as it is sent.
struct Sending<L: List> {
    app: App,
    list: L,
    ready: Option<Piece<L::Item>>,
    after: Option<L::Place>,
    /// Whether items were sent.
    begun: bool,
}

impl<L: List> Sending<L> {
    /// The next part of the array. An error breaks the connection off, so that nobody takes a part for the whole.
    async fn step(mut self) -> io::Result<(Vec<u8>, Option<Self>)> {
        let piece = match self.ready.take() {
            Some(piece) => piece,
            None => self.read().await.map_err(|error| {
                tracing::warn!(?error, "a list was broken off");
                io::Error::other("the list was broken off")
            })?,
        };
        let mut text = Vec::new();
        if !self.begun {
            text.extend_from_slice(L::AROUND.0.as_bytes());
        }
        for item in &piece.items {
            if self.begun {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, item)?;
            self.begun = true;
        }
        match piece.items.last() {
            Some(last) if piece.more => self.after = Some(L::place(last)),
            _ => {
                text.extend_from_slice(L::AROUND.1.as_bytes());
                return Ok((text, None));
            }
        }
        Ok((text, Some(self)))
    }

    async fn read(&mut self) -> Result<Piece<L::Item>, ApiError> {
        let stop = self.app.shutdown().clone();
        let reading = self.list.piece(&self.app, self.after.take(), CHUNK);
        stop.run_until_cancelled(reading)
            .await
            .unwrap_or(Err(ApiError::Stopping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_names_and_numbers() {
        assert_eq!(String::read("a/b é"), Some("a/b é".to_owned()));
        assert_eq!(u64::read("7"), Some(7));
        for bad in ["", " ", "a\nb", &"a".repeat(201)] {
            assert_eq!(String::read(bad), None, "{bad:?}");
        }
        for bad in ["", "0", "-1", "+1", "1.0", "18446744073709551616"] {
            assert_eq!(u64::read(bad), None, "{bad:?}");
        }
    }
}
