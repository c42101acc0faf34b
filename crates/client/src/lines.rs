//! Answers of JSON lines, read as they arrive.

use std::time::Duration;

use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::answer::{arrived, unexpected};
use crate::{Error, Result};

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 1024 * 1024;

/// The lines that are still to come.
pub(crate) struct Lines {
    response: Response,
    /// How long it may take until something more arrives.
    patience: Duration,
    /// What arrived, how much of it is read, and up to where there is no end of a line.
    ready: Vec<u8>,
    read: usize,
    searched: usize,
}

impl Lines {
    pub(crate) fn of(response: Response, patience: Duration) -> Self {
        Self {
            response,
            patience,
            ready: Vec::new(),
            read: 0,
            searched: 0,
        }
    }

    /// The next line, or `None` behind the last one. An answer that ends anywhere else is an error, so that nobody takes
    /// a part for the whole.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let status = self.response.status();
        loop {
            if let Some(end) = self.ready[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + end;
                let line = serde_json::from_slice(&self.ready[self.read..end]);
                (self.read, self.searched) = (end + 1, end + 1);
                return line.map(Some).map_err(|error| unexpected(status, &error));
            }
            self.ready.drain(..self.read);
            (self.read, self.searched) = (0, self.ready.len());
            if self.ready.len() > MAX_LINE {
                return Err(Error::TooLarge { limit: MAX_LINE });
            }
            match arrived(&mut self.response, self.patience).await? {
                Some(chunk) => self.ready.extend_from_slice(&chunk),
                None if self.ready.is_empty() => return Ok(None),
                None => {
                    return Err(Error::BadAnswer {
                        status: status.as_u16(),
                        reason: "it ends in the middle of a line".to_owned(),
                    });
                }
            }
        }
    }
}
