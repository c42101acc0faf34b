//! Paths and queries out of names that may hold anything.

use std::fmt::Write as _;

use crate::{Error, Result};

/// Escapes all but the unreserved characters of RFC 3986, so that a name is one segment or one query value whatever it
/// holds.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// `/a/b/c` of its segments, each a name as it is.
pub(crate) fn path<'a>(segments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut path = String::new();
    for segment in segments {
        // URLs normalise these away, escaped or not: the call would go to another resource.
        if matches!(segment, "" | "." | "..") {
            return Err(Error::Unaddressable {
                name: segment.to_owned(),
            });
        }
        path.push('/');
        path.push_str(&escape(segment));
    }
    Ok(path)
}

/// Appends `name=value` to a query.
pub(crate) fn append(query: &mut String, name: &str, value: &str) {
    query.push(if query.is_empty() { '?' } else { '&' });
    query.push_str(name);
    query.push('=');
    query.push_str(&escape(value));
}

/// The query of those parameters that have a value.
pub(crate) fn query<'a>(parameters: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            append(&mut query, name, value);
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_one_segment_whatever_it_holds() {
        assert_eq!(
            path(["db/password", "a b?#%"]).unwrap(),
            "/db%2Fpassword/a%20b%3F%23%25"
        );
        assert_eq!(path(["ü"]).unwrap(), "/%C3%BC");
        for name in ["", ".", ".."] {
            assert!(matches!(path(["a", name]), Err(Error::Unaddressable { .. })));
        }
        assert_eq!(path(["...", ".a"]).unwrap(), "/.../.a");
    }

    #[test]
    fn a_parameter_without_a_value_is_left_out() {
        assert_eq!(query([("a", None), ("b", Some("x y")), ("c", Some(""))]), "?b=x%20y&c=");
        assert_eq!(query([("a", None)]), "");
    }

    proptest! {
        #[test]
        fn an_escaped_segment_survives_the_url_parser(name in "\\PC{1,20}") {
            prop_assume!(name != "." && name != "..");
            let text = format!("https://host{}", path(["a", &name, "b"]).unwrap());
            let url = reqwest::Url::parse(&text).unwrap();
            prop_assert_eq!(url.as_str(), text);
        }
    }
}
