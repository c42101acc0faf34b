//! An audit log as JSON lines, however long: page after page, so that neither memory nor the database is held while the
//! caller reads.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use sealpod_core::wire::audit::{AuditEntry, JSON_LINES};

use super::Log;
use crate::app::App;
use crate::audit::Chain;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::store::AuditQuery;

/// Entries that are in memory at a time.
const CHUNK: usize = 256;

/// What is still to be sent.
pub struct Export {
    pub app: App,
    pub caller: Caller,
    pub log: Log,
    pub chain: Chain,
    pub query: AuditQuery,
    /// How many entries more, at most.
    pub left: Option<usize>,
}

impl Export {
    /// Answers with the first lines, or with a problem; whatever fails behind them breaks the connection off, so that
    /// nobody takes a part for the whole.
    pub async fn begin(mut self) -> Result<Response, ApiError> {
        let (first, rest) = self.chunk().await?;
        let rest = rest.then_some(self);
        let lines = stream::try_unfold((Some(first), rest), |(ready, export)| async {
            match (ready, export) {
                (Some(lines), export) => Ok(Some((lines, (None, export)))),
                (None, Some(export)) => export.next().await,
                (None, None) => Ok(None),
            }
        });
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(JSON_LINES))];
        Ok((content_type, Body::from_stream(lines)).into_response())
    }

    async fn next(mut self) -> io::Result<Option<(Vec<u8>, (Option<Vec<u8>>, Option<Self>))>> {
        let stop = self.app.shutdown().clone();
        let chunk = stop.run_until_cancelled(self.again()).await;
        match chunk.unwrap_or(Err(ApiError::Stopping)) {
            Ok((lines, rest)) => Ok(Some((lines, (None, rest.then_some(self))))),
            Err(error) => {
                tracing::warn!(?error, "an export of the audit log was broken off");
                Err(io::Error::other("the export was broken off"))
            }
        }
    }

    /// The next lines, if the caller may still read them.
    async fn again(&mut self) -> Result<(Vec<u8>, bool), ApiError> {
        let caller = self.caller.again(&self.app).await?;
        if self.log.chain(&self.app, &caller).await? != self.chain {
            return Err(ApiError::not_found("another organization has this name now"));
        }
        self.chunk().await
    }

    /// Some lines, and whether more follow.
    async fn chunk(&mut self) -> Result<(Vec<u8>, bool), ApiError> {
        let limit = self.left.map_or(CHUNK, |left| left.min(CHUNK));
        let query = AuditQuery {
            limit,
            ..self.query.clone()
        };
        let page = self.app.store().audit_page(self.chain, query).await?;
        self.query.before = page.next;
        self.left = self.left.map(|left| left.saturating_sub(page.entries.len()));
        let mut lines = Vec::new();
        for stored in page.entries {
            serde_json::to_writer(&mut lines, &AuditEntry::from(stored)).map_err(ApiError::internal)?;
            lines.push(b'\n');
        }
        Ok((lines, page.next.is_some() && self.left != Some(0)))
    }
}
