use sealpod_core::SecretText;

use crate::crypto::random;

const DIGITS: usize = 6;
/// How many codes there are.
const CODES: u32 = 1_000_000;

/// Six digits. Its `Debug` tells nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code(SecretText);

impl Code {
    /// Each as likely as any other.
    pub fn generate() -> Self {
        loop {
            if let Some(code) = Self::of(u32::from_be_bytes(*random::<4>())) {
                return code;
            }
        }
    }

    /// `None` for the few numbers at the end of the range that would make some codes likelier than others.
    fn of(random: u32) -> Option<Self> {
        const END: u32 = u32::MAX - u32::MAX % CODES;
        (random < END).then(|| Self(format!("{:06}", random % CODES).into()))
    }

    /// The code that somebody typed, whatever spaces came along; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = String::with_capacity(DIGITS);
        for c in text.chars().filter(|c| !c.is_whitespace()) {
            if !c.is_ascii_digit() || digits.len() == DIGITS {
                return None;
            }
            digits.push(c);
        }
        (digits.len() == DIGITS).then(|| Self(digits.into()))
    }

    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_six_digits_and_reads_back_whatever_spaces_are_in_it() {
        for _ in 0..100 {
            let code = Code::generate();
            let text = code.expose();
            assert!(text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit()));
            let spaced = format!(" {}\u{a0}{}\n", &text[..3], &text[3..]);
            assert_eq!(Code::parse(&spaced), Some(code));
        }
        assert_eq!(Code::of(7).unwrap().expose(), "000007");
    }

    #[test]
    fn what_is_not_six_ascii_digits_is_no_code() {
        for text in [
            "",
            "12345",
            "1234567",
            "12345a",
            "-12345",
            "+12345",
            "１２３４５６",
            "12.345",
            "1\u{0}23456",
        ] {
            assert_eq!(Code::parse(text), None, "{text:?}");
        }
        assert_eq!(Code::parse(&"1".repeat(1_000_000)), None);
    }

    #[test]
    fn every_code_has_as_many_numbers_behind_it() {
        // 4,294 whole turns; what is left over is drawn again.
        assert!(Code::of(4_293_999_999).is_some());
        assert!(Code::of(4_294_000_000).is_none() && Code::of(u32::MAX).is_none());
        assert_eq!(u32::MAX / CODES, 4_294);
    }

    #[test]
    fn a_code_is_not_seen_by_accident() {
        assert_eq!(format!("{:?}", Code::of(123_456).unwrap()), "Code([redacted])");
    }
}
