//! Several values in one text, by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sealpod_core::SecretValue;
use sealpod_core::injection::Format;
use zeroize::Zeroizing;

use crate::Error;
use crate::buffer::Buffer;
use crate::variables::{named, refuse, texts, without_nul};

/// The values in one text, by key; every value has to be text.
///
/// - `env`: lines that a POSIX shell reads, `NAME='value'`; what needs no quotes has none.
/// - `properties`: lines that Java reads, `NAME=value`, all ASCII.
/// - `json`, `yaml`: one object of texts, with the keys as they are.
///
/// `literal` are the keys that somebody named as they are: an `env` text refuses any other that would change how
/// programs start.
pub fn format(
    format: Format,
    values: &BTreeMap<&str, &SecretValue>,
    literal: &BTreeSet<&str>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    format_text(format, &texts(values)?, literal)
}

/// As [`format`], of texts, which may also be empty: configurations.
pub fn format_text(
    format: Format,
    values: &BTreeMap<&str, &str>,
    literal: &BTreeSet<&str>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut out = Buffer::new(usize::MAX);
    match format {
        Format::Env => {
            let named = named(values)?;
            refuse(&named, literal)?;
            for entry in named {
                let (variable, text) = without_nul(entry)?;
                out.push(&variable);
                out.push_char('=');
                shell_word(text, &mut out);
                out.push_char('\n');
            }
        }
        Format::Properties => {
            for (variable, (_, text)) in named(values)? {
                out.push(&variable);
                out.push_char('=');
                properties_value(text, &mut out);
                out.push_char('\n');
            }
        }
        Format::Json => json_object(values, &mut out),
        Format::Yaml => {
            if values.is_empty() {
                out.push("{}\n");
            }
            for (key, text) in values {
                // A key that is longer than a YAML reader takes on one line says so.
                if key.len() > MAX_SIMPLE_KEY {
                    out.push("? ");
                    yaml_text(key, &mut out);
                    out.push("\n: ");
                } else {
                    yaml_text(key, &mut out);
                    out.push(": ");
                }
                yaml_text(text, &mut out);
                out.push_char('\n');
            }
        }
    }
    Ok(out.into_bytes())
}

/// Bytes of a key that stay within 1024 characters however many of them are escaped.
const MAX_SIMPLE_KEY: usize = 160;

fn json_object(values: &BTreeMap<&str, &str>, out: &mut Buffer) {
    out.push_char('{');
    for (index, (key, text)) in values.iter().enumerate() {
        out.push(if index == 0 { "\n  " } else { ",\n  " });
        json_text(key, out);
        out.push(": ");
        json_text(text, out);
    }
    out.push(if values.is_empty() { "}\n" } else { "\n}\n" });
}

/// A JSON text with its quotes.
pub(crate) fn json_text(text: &str, out: &mut Buffer) {
    // The last two end a line for JavaScript, and for readers of JSON by the line.
    quoted(text, |c| matches!(c, '\u{7f}' | '\u{2028}' | '\u{2029}'), out);
}

/// A double-quoted YAML text: what YAML calls not printable, or the end of a line, is escaped.
fn yaml_text(text: &str, out: &mut Buffer) {
    let unprintable = |c| {
        matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    quoted(text, unprintable, out);
}

/// A text in double quotes, with the escapes that JSON and YAML share. `also` are characters to escape beside those that
/// both want escaped.
fn quoted(text: &str, also: impl Fn(char) -> bool, out: &mut Buffer) {
    out.push_char('"');
    for c in text.chars() {
        match c {
            '"' => out.push("\\\""),
            '\\' => out.push("\\\\"),
            '\n' => out.push("\\n"),
            '\r' => out.push("\\r"),
            '\t' => out.push("\\t"),
            '\0'..='\u{1f}' => escape_units(c, out),
            c if also(c) => escape_units(c, out),
            c => out.push_char(c),
        }
    }
    out.push_char('"');
}

/// The value of a property: what begins with a space, or is not plain ASCII, is escaped.
fn properties_value(text: &str, out: &mut Buffer) {
    for (at, c) in text.char_indices() {
        match c {
            ' ' if at == 0 => out.push("\\ "),
            '\\' => out.push("\\\\"),
            '\n' => out.push("\\n"),
            '\r' => out.push("\\r"),
            '\t' => out.push("\\t"),
            '\x0c' => out.push("\\f"),
            ' '..='~' => out.push_char(c),
            c => escape_units(c, out),
        }
    }
}

/// `\uXXXX`, twice for what is beyond 16 bits.
fn escape_units(c: char, out: &mut Buffer) {
    let mut escaped = Zeroizing::new(String::with_capacity(12));
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(escaped, "\\u{unit:04x}").expect("a String takes all that is written");
    }
    out.push(&escaped);
}

/// A text as one word of a POSIX shell, without quotes where it needs none.
pub(crate) fn shell_word(text: &str, out: &mut Buffer) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        out.push(text);
        return;
    }
    out.push_char('\'');
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            out.push("'\\''");
        }
        out.push(part);
    }
    out.push_char('\'');
}
