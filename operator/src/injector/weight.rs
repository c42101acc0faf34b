//! How much memory the JSON of a pod takes once it is read, told from its text.
//!
//! A map of one entry is a node of a tree with room for eleven, so the text `{"key":"a"}` becomes fifty times as large: 3 MiB
//! of tolerations would be 170 MB. Whoever may create pods writes such a text, so it is weighed before it is read.

/// A map that is not empty: the node of its first entries.
const MAP: usize = 704;
/// A further entry, of a list or of a map, whose nodes may be half empty; or a list with its first one.
const ENTRY: usize = 176;

/// Bytes that the values in `json` take at most. The text has to be JSON.
pub fn of(json: &str) -> usize {
    let bytes = json.as_bytes();
    let mut weight = bytes.len();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_text(bytes, at),
            b'{' if bytes.get(at + 1) != Some(&b'}') => weight += MAP,
            b'[' if bytes.get(at + 1) != Some(&b']') => weight += ENTRY,
            b',' => weight += ENTRY,
            _ => {}
        }
        at += 1;
    }
    weight
}

/// Where the text that begins at `at` has its closing quotation mark.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_text_weighs_its_length() {
        let text = r#"{"a":"{[,\"{,","b":[]}"#;
        assert_eq!(of(text), text.len() + MAP + ENTRY);
        for plain in ["", "\"", "\"\\", "7", "{}", "[]"] {
            assert_eq!(of(plain), plain.len(), "{plain}");
        }
    }

    #[test]
    fn maps_weigh_the_most_and_a_real_pod_little() {
        assert_eq!(of(r#"[{"key":"a"},{"key":"a"}]"#), 25 + 2 * ENTRY + 2 * MAP);
        let pod = super::super::tests::pod_with(&serde_json::json!({}));
        assert!(of(&pod.to_string()) < 16 << 10);
    }
}
