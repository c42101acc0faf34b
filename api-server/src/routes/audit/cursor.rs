//! Where a page of the audit log ends, as callers carry it to the next one.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

/// Only entries with a smaller `seq` follow. In another chain it is a place like any other, for all that a caller can
/// learn by it is its own to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no `next_cursor` of an earlier answer")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0.to_be_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| CursorError)?;
        let seq = u64::from_be_bytes(bytes.try_into().map_err(|_| CursorError)?);
        // As far as numbers go that the store counts to.
        if seq == 0 || i64::try_from(seq).is_err() {
            return Err(CursorError);
        }
        Ok(Self(seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_and_has_one_spelling(seq in 1..=u64::MAX >> 1) {
            let text = Cursor(seq).to_string();
            prop_assert_eq!(text.len(), 11);
            prop_assert_eq!(text.parse(), Ok(Cursor(seq)));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(text in "[A-Za-z0-9_+/=-]{0,12}|\\PC{0,12}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn numbers_that_no_entry_has_are_refused() {
        for bytes in [0u64, u64::MAX, 1 << 63] {
            let text = BASE64URL_NOPAD.encode(&bytes.to_be_bytes());
            assert_eq!(text.parse::<Cursor>(), Err(CursorError));
        }
    }
}
