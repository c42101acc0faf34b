//! How far a caller has heard, in a form that it carries and does not read.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use sealpod_core::Time;

use crate::app::App;
use crate::ids::OrganizationId;
use crate::store::Position;

const TAG: usize = 16;

/// A position, marked for one organization of one history of the database: behind a restored backup, numbers count
/// anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    seq: u64,
    /// Microseconds.
    at: i64,
    tag: [u8; TAG],
}

/// What a cursor is good for.
pub struct Place<'a> {
    pub app: &'a App,
    pub organization: OrganizationId,
}

impl Place<'_> {
    pub fn cursor(&self, position: Position) -> Cursor {
        let store = self.app.store();
        let (seq, at) = (position.seq, position.at.microseconds());
        let epoch = store.epoch();
        let parts: [&[u8]; 4] = [
            epoch.as_bytes(),
            self.organization.0.as_bytes(),
            &seq.to_be_bytes(),
            &at.to_be_bytes(),
        ];
        let mac = store.pepper().mac("changes-cursor/1", &parts);
        let tag = *mac.first_chunk().expect("a hash is longer than its tag");
        Cursor { seq, at, tag }
    }

    /// The position, if the cursor was made here.
    pub fn position(&self, cursor: Cursor) -> Option<Position> {
        let position = Position {
            seq: cursor.seq,
            at: Time::from_microseconds(cursor.at)?,
        };
        (self.cursor(position) == cursor).then_some(position)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no `cursor` of an earlier answer")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.seq.to_be_bytes()[..], &self.at.to_be_bytes(), &self.tag].concat();
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| CursorError)?;
        let (seq, rest) = bytes.split_first_chunk().ok_or(CursorError)?;
        let (at, tag) = rest.split_first_chunk().ok_or(CursorError)?;
        Ok(Self {
            seq: u64::from_be_bytes(*seq),
            at: i64::from_be_bytes(*at),
            tag: tag.try_into().map_err(|_| CursorError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_and_has_one_spelling(seq: u64, at: i64, tag: [u8; TAG]) {
            let cursor = Cursor { seq, at, tag };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(text in "[A-Za-z0-9_+/=-]{40,44}|\\PC{0,12}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
