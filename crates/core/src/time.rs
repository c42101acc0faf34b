//! Points in time as the REST planes carry them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant to the microsecond. Reads RFC 3339 with an offset, any fraction, years 0001-9999; writes UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time with an offset and a year of 0001 to 9999, for example 2026-01-31T12:00:00Z")]
pub struct TimeError;

impl Time {
    pub fn now() -> Self {
        Self::from_timestamp(Timestamp::now())
    }

    pub fn from_timestamp(timestamp: Timestamp) -> Self {
        Self::from_microseconds(timestamp.as_microsecond()).expect("microseconds of a timestamp are in range")
    }

    /// Microseconds since 1970-01-01T00:00:00Z, which is how the store keeps times.
    pub fn microseconds(self) -> i64 {
        self.0.as_microsecond()
    }

    pub fn from_microseconds(microseconds: i64) -> Option<Self> {
        Timestamp::from_microsecond(microseconds).ok().map(Self)
    }

    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// This instant and `seconds`, or the end of time where that is past it.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(
            self.0
                .saturating_add(jiff::SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MAX),
        )
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let shape = text.get(..19).ok_or(TimeError)?;
        let well_formed = shape.bytes().zip(b"dddd-dd-ddTdd:dd:dd").all(|(b, want)| match want {
            b'd' => b.is_ascii_digit(),
            b'T' => matches!(b, b'T' | b't' | b' '),
            _ => b == *want,
        });
        if !well_formed || shape.starts_with("0000") {
            return Err(TimeError);
        }
        let rest = &text[19..];
        let (fraction, offset) = match rest.strip_prefix('.') {
            Some(tail) => tail.split_at(tail.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", rest),
        };
        let offset_ok = match offset.as_bytes() {
            [b'Z' | b'z'] => true,
            [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
            _ => false,
        };
        if !offset_ok || (fraction.is_empty() && rest.starts_with('.')) {
            return Err(TimeError);
        }
        let fraction = &fraction[..fraction.len().min(6)];
        let dot = if fraction.is_empty() { "" } else { "." };
        let time: Timestamp = format!("{shape}{dot}{fraction}{offset}")
            .parse()
            .map_err(|_| TimeError)?;
        // An offset can push the instant out of the years that it was written in.
        let year = time.to_zoned(jiff::tz::TimeZone::UTC).year();
        if (1..=9999).contains(&year) {
            Ok(Self(time))
        } else {
            Err(TimeError)
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
crate::openapi::text_schema!(
    Time,
    "RFC 3339 with an offset; answered in UTC",
    Some(utoipa::openapi::KnownFormat::DateTime),
    "2026-01-31T12:00:00Z"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_offsets_and_fractions_and_writes_utc() {
        for (text, want) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
            ("2026-01-31T12:00:00.5-00:30", "2026-01-31T12:30:00.5Z"),
            ("2026-01-31T12:00:00.123456789012Z", "2026-01-31T12:00:00.123456Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-30T00:00:00Z", "9999-12-30T00:00:00Z"),
        ] {
            assert_eq!(
                text.parse::<Time>().map(|t| t.to_string()),
                Ok(want.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_rfc_3339_time() {
        for text in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "10000-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-31T25:00:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00Z[UTC]",
            "0001-01-01T00:00:00+23:00",
            "２026-01-31T12:00:00Z",
        ] {
            assert_eq!(text.parse::<Time>(), Err(TimeError), "{text}");
        }
    }

    #[test]
    fn microseconds_survive_the_round_trip() {
        let now = Time::now();
        assert_eq!(Time::from_microseconds(now.microseconds()), Some(now));
        assert_eq!(now.to_string().parse(), Ok(now));
    }
}
