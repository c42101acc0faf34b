//! Kubernetes quantities (`16Mi`, `500m`, `1e3`), as far as injection has to compare and add them.

const KIBI: u64 = 1024;
/// A quantity is kept in units of 10^-9, the finest that Kubernetes writes.
const NANO_DIGITS: u32 = 9;

/// A quantity in units of 10^-9, so that `1`, `1000m` and `1e0` are equal. None for anything that is no quantity.
pub fn nanos(text: &str) -> Option<i128> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (factor, ten) = scale(suffix)?;
    let (negative, number) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !plain(whole) || !plain(fraction) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let exponent = i64::from(NANO_DIGITS) + i64::from(ten) - i64::try_from(fraction.len()).ok()?;
    let scaled = mantissa.checked_mul(factor)?;
    let power = 10i128.checked_pow(u32::try_from(exponent.unsigned_abs()).ok()?)?;
    let value = if exponent < 0 {
        scaled / power
    } else {
        scaled.checked_mul(power)?
    };
    Some(if negative { -value } else { value })
}

/// A size in the canonical form, so that the API server gives back what we sent: exactly, with the largest binary suffix
/// that leaves no fraction, or else the largest decimal one.
pub fn format(bytes: u64) -> String {
    let (unit, suffixes) = if bytes.is_multiple_of(KIBI) {
        (KIBI, ["", "Ki", "Mi", "Gi", "Ti"])
    } else {
        (1_000, ["", "k", "M", "G", "T"])
    };
    let (mut value, mut suffix) = (bytes, "");
    for larger in suffixes.into_iter().skip(1) {
        if value == 0 || !value.is_multiple_of(unit) {
            break;
        }
        value /= unit;
        suffix = larger;
    }
    format!("{value}{suffix}")
}

/// A suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1024i128.pow(power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            Some((1, exponent.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (a, b) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            (".5Gi", "512Mi"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("1E", "1000P"),
            ("100M", "100000000"),
            ("1.", "1"),
            ("+2", "2"),
            ("129e6", "129M"),
        ] {
            assert_eq!(nanos(a).unwrap(), nanos(b).unwrap(), "{a} and {b}");
        }
        assert_ne!(nanos("1Mi"), nanos("1M"));
    }

    #[test]
    fn what_is_no_quantity_has_no_amount() {
        for bad in [
            "", ".", "-", "Mi", "1mi", "1 Mi", "1.2.3", "1-2", "e3", "1e", "0x10", "١",
        ] {
            assert_eq!(nanos(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_written_as_the_api_server_writes_them() {
        for (bytes, want) in [
            (0, "0"),
            (1_000, "1k"),
            (40_000_000, "40M"),
            (1_025, "1025"),
            (1_024_000, "1000Ki"),
            (1 << 24, "16Mi"),
            (1 << 30, "1Gi"),
            ((1 << 30) + (1 << 20), "1025Mi"),
        ] {
            assert_eq!(format(bytes), want);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}", number in "[-+.0-9]{0,45}[eEmMGKin0-9]{0,12}") {
            let _ = (nanos(&text), nanos(&number));
        }

        #[test]
        fn what_is_written_reads_back(number in 0u64..1 << 30, unit in prop::sample::select(vec![1, 1_000, 1_024])) {
            let bytes = number * unit;
            prop_assert_eq!(nanos(&format(bytes)), Some(i128::from(bytes) * 1_000_000_000));
        }
    }
}
