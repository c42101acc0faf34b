//! Points in time as the REST planes carry them.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant to the microsecond, of the years 0001-9999. Reads RFC 3339 with an offset and any fraction; writes UTC.
///
/// Microseconds since 1970-01-01T00:00:00Z, and not jiff's timestamp: that one ends a day before the year 9999 does, so
/// the 9999-12-31T23:59:59Z that many programs write for "never" would be refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time with an offset and a year of 0001 to 9999, for example 2026-01-31T12:00:00Z")]
pub struct TimeError;

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

impl Time {
    pub fn now() -> Self {
        Self::from_timestamp(Timestamp::now())
    }

    /// The instant of a clock or a file; one before the year 0001 is the first there is.
    pub fn from_timestamp(timestamp: Timestamp) -> Self {
        Self(timestamp.as_microsecond().max(FIRST))
    }

    /// Microseconds since 1970-01-01T00:00:00Z, which is how the store keeps times.
    pub fn microseconds(self) -> i64 {
        self.0
    }

    pub fn from_microseconds(microseconds: i64) -> Option<Self> {
        (FIRST..=LAST).contains(&microseconds).then_some(Self(microseconds))
    }

    /// As jiff has it; what is past its end is its end.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::MAX)
    }

    /// This instant and `seconds`, or the end of time where that is past it.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        let microseconds = seconds.saturating_mul(1_000_000);
        Self(self.0.saturating_add(microseconds).clamp(FIRST, LAST))
    }

    fn civil(self) -> DateTime {
        EPOCH
            .checked_add(SignedDuration::from_micros(self.0))
            .expect("civil time holds all of these years")
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
        if !well_formed {
            return Err(TimeError);
        }
        let rest = &text[19..];
        let (fraction, offset) = match rest.strip_prefix('.') {
            Some(tail) => tail.split_at(tail.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", rest),
        };
        if fraction.is_empty() && rest.starts_with('.') {
            return Err(TimeError);
        }
        let fraction = &fraction[..fraction.len().min(6)];
        let dot = if fraction.is_empty() { "" } else { "." };
        let local: DateTime = format!("{shape}{dot}{fraction}").parse().map_err(|_| TimeError)?;
        let since_epoch = local.duration_since(EPOCH).as_micros();
        // An offset can push the instant out of the years that it was written in.
        i64::try_from(since_epoch)
            .ok()
            .and_then(|local| local.checked_sub(offset_minutes(offset)? * 60_000_000))
            .and_then(Self::from_microseconds)
            .ok_or(TimeError)
    }
}

/// `Z` or `±hh:mm`.
fn offset_minutes(text: &str) -> Option<i64> {
    let (sign, h1, h2, m1, m2) = match *text.as_bytes() {
        [b'Z' | b'z'] => return Some(0),
        [b'+', h1, h2, b':', m1, m2] => (1, h1, h2, m1, m2),
        [b'-', h1, h2, b':', m1, m2] => (-1, h1, h2, m1, m2),
        _ => return None,
    };
    let number = |tens: u8, ones: u8| {
        let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        digits.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    };
    let (hours, minutes) = (number(h1, h2)?, number(m1, m2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.civil())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T22:00:00-01:59", "9999-12-31T23:59:00Z"),
            ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
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
            "9999-12-31T23:59:59-00:01",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+02:60",
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
        for end in [FIRST, LAST] {
            let time = Time::from_microseconds(end).unwrap();
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        assert_eq!(Time::from_microseconds(FIRST - 1), None);
        assert_eq!(Time::from_microseconds(LAST + 1), None);
        assert_eq!(now.plus_seconds(i64::MAX).microseconds(), LAST);
        assert_eq!(now.plus_seconds(-60).plus_seconds(60), now);
    }
}
