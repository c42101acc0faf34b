//! Searching for a value in every form in which it could have been written down.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// Finds a value in plain, base64 and hexadecimal text.
#[derive(Debug)]
pub struct Canary {
    forms: Vec<Vec<u8>>,
}

impl Canary {
    /// `value` needs some length: its ends are lost in base64.
    pub fn new(value: &str) -> Self {
        let bytes = value.as_bytes();
        let mut forms = vec![
            bytes.to_vec(),
            HEXLOWER.encode(bytes).into_bytes(),
            HEXUPPER.encode(bytes).into_bytes(),
        ];
        // Within a longer text base64 shows the same bytes in three ways. The groups at the ends mix with what stands
        // around the value, so only the whole groups between them are looked for.
        for skip in 0..3 {
            let whole = &bytes[skip..][..(bytes.len() - skip) / 3 * 3];
            forms.push(BASE64_NOPAD.encode(whole).into_bytes());
            forms.push(BASE64URL_NOPAD.encode(whole).into_bytes());
        }
        Self { forms }
    }

    pub fn is_in(&self, haystack: impl AsRef<[u8]>) -> bool {
        let haystack = haystack.as_ref();
        self.forms.iter().any(|form| contains(haystack, form))
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;

    #[test]
    fn a_value_is_found_in_every_form_and_at_every_place() {
        let canary = Canary::new("canary-4711-value");
        for before in ["", "a", "ab", "abc"] {
            let text = format!("{before}canary-4711-value and more");
            assert!(canary.is_in(&text));
            assert!(canary.is_in(BASE64.encode(text.as_bytes())), "{before:?}");
            assert!(canary.is_in(HEXLOWER.encode(text.as_bytes())), "{before:?}");
        }
        assert!(!canary.is_in("canary-4711-valu"));
        assert!(!canary.is_in(BASE64.encode(b"canary-4712-value")));
    }
}
