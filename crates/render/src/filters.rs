//! The filters beside MiniJinja's own: what configuration files need their values in.
//!
//! | filter | gives |
//! |---|---|
//! | `b64encode` | base64 of a text, or of a secret that is not text |
//! | `b64decode` | what a base64 text encodes; where that is not text, only `b64encode` takes it |
//! | `json` | JSON, also of lists and maps; a text with its quotes |
//! | `shellquote` | one word of a POSIX shell |
//! | `urlquote` | with everything percent-encoded but letters, digits and `-._~`: fit for any part of a URL |
//! | `pem("CERTIFICATE")` | the list of a text's PEM blocks whose label is that or ends in it; without an argument all |

use data_encoding::BASE64;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, Value};
use zeroize::Zeroizing;

use crate::buffer::Buffer;
use crate::formats::{json_text, shell_word};
use crate::template::{Binary, Notes};

/// Lists in lists that `json` follows.
const MAX_DEPTH: usize = 32;

pub(crate) fn add_to(environment: &mut Environment<'_>, notes: &Notes) {
    let with = |filter: fn(&Value, &Notes) -> Result<Value, Error>| {
        let notes = notes.clone();
        move |value: &Value| filter(value, &notes)
    };
    environment.add_filter("b64encode", with(b64encode));
    environment.add_filter("b64decode", with(b64decode));
    environment.add_filter("json", with(json));
    environment.add_filter("shellquote", with(shellquote));
    environment.add_filter("urlquote", with(urlquote));
    let notes = notes.clone();
    environment.add_filter("pem", move |value: &Value, label: Option<&str>| {
        pem(value, label, &notes)
    });
}

/// Numbers and booleans are text too; lists are not.
fn text(value: &Value, notes: &Notes) -> Result<Zeroizing<String>, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Number | ValueKind::Bool => Ok(Zeroizing::new(value.to_string())),
        _ => {
            if let Some(binary) = value.downcast_object_ref::<Binary>() {
                binary.misused();
            }
            Err(notes.fault("a filter wants text"))
        }
    }
}

fn b64encode(value: &Value, notes: &Notes) -> Result<Value, Error> {
    if let Some(binary) = value.downcast_object_ref::<Binary>() {
        return Ok(Value::from(BASE64.encode(binary.bytes())));
    }
    Ok(Value::from(BASE64.encode(text(value, notes)?.as_bytes())))
}

fn b64decode(value: &Value, notes: &Notes) -> Result<Value, Error> {
    let text = text(value, notes)?;
    // As files of base64 are: with line ends, which say nothing.
    let packed: Zeroizing<Vec<u8>> = Zeroizing::new(text.bytes().filter(|b| !b.is_ascii_whitespace()).collect());
    let decoded = BASE64
        .decode(&packed)
        .map(Zeroizing::new)
        .map_err(|_| notes.fault("b64decode wants base64"))?;
    Ok(match std::str::from_utf8(&decoded) {
        Ok(text) => Value::from(text),
        Err(_) => Binary::value("the result of b64decode", &decoded, notes),
    })
}

fn json(value: &Value, notes: &Notes) -> Result<Value, Error> {
    let mut out = Buffer::new(usize::MAX);
    write_json(value, MAX_DEPTH, &mut out, notes)?;
    made(out)
}

fn write_json(value: &Value, depth: usize, out: &mut Buffer, notes: &Notes) -> Result<(), Error> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(notes.fault("json follows 32 lists or maps in one another, no more"));
    };
    match value.kind() {
        ValueKind::None => out.push("null"),
        ValueKind::Bool => out.push(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let number = value.to_string();
            if number
                .bytes()
                .any(|b| b.is_ascii_alphabetic() && !matches!(b, b'e' | b'E'))
            {
                return Err(notes.fault("json has no such number"));
            }
            out.push(&number);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push_char('[');
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push(", ");
                }
                write_json(&item, depth, out, notes)?;
            }
            out.push_char(']');
        }
        ValueKind::Map => {
            out.push_char('{');
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push(", ");
                }
                json_text(&text(&key, notes)?, out);
                out.push(": ");
                write_json(&value.get_item(&key)?, depth, out, notes)?;
            }
            out.push_char('}');
        }
        ValueKind::Undefined => return Err(minijinja::ErrorKind::UndefinedError.into()),
        _ => json_text(&text(value, notes)?, out),
    }
    Ok(())
}

fn shellquote(value: &Value, notes: &Notes) -> Result<Value, Error> {
    let text = text(value, notes)?;
    if text.contains('\0') {
        return Err(notes.fault("shellquote: a NUL character cannot be part of a word"));
    }
    let mut out = Buffer::new(usize::MAX);
    shell_word(&text, &mut out);
    made(out)
}

fn urlquote(value: &Value, notes: &Notes) -> Result<Value, Error> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let text = text(value, notes)?;
    let mut out = Buffer::new(usize::MAX);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push_char(byte.into());
        } else {
            out.push_char('%');
            out.push_char(DIGITS[usize::from(byte >> 4)].into());
            out.push_char(DIGITS[usize::from(byte & 15)].into());
        }
    }
    made(out)
}

fn pem(value: &Value, label: Option<&str>, notes: &Notes) -> Result<Value, Error> {
    let text = text(value, notes)?;
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Buffer)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(begun) = between(line, "-----BEGIN ") {
            open = Some((begun, Buffer::new(usize::MAX)));
        }
        let Some((begun, block)) = &mut open else { continue };
        block.push(line);
        block.push_char('\n');
        if between(line, "-----END ").is_some_and(|ended| ended == *begun) {
            let wanted = label.is_none_or(|label| is_labelled(begun, label));
            let (_, block) = open.take().expect("it is open");
            if wanted {
                blocks.push(made(block)?);
            }
        }
    }
    Ok(Value::from(blocks))
}

/// `PRIVATE KEY` is what `RSA PRIVATE KEY` is, too.
fn is_labelled(label: &str, wanted: &str) -> bool {
    label
        .strip_suffix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with(' '))
}

fn between<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    line.strip_prefix(marker)?.strip_suffix("-----")
}

fn made(out: Buffer) -> Result<Value, Error> {
    let bytes = out.into_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|_| minijinja::ErrorKind::InvalidOperation)?;
    Ok(Value::from(text))
}
