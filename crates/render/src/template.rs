//! Templates of files: MiniJinja without loaders, macros and imports, strict, and bounded in work and output.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use sealpod_core::SecretValue;
use zeroize::Zeroizing;

use crate::buffer::Buffer;
use crate::{Error, Values, filters};

/// Largest template, in bytes.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;
/// Largest text that a template writes, in bytes: that of one secret.
pub const MAX_OUTPUT_BYTES: usize = sealpod_core::redacted::MAX_VALUE_BYTES;
/// Work of one rendering: each step costs one, and so do 64 bytes that are read or made. So 12 MB at most.
const FUEL: u64 = 200_000;

/// Writes `source` with the values in place of its expressions.
///
/// It sees the maps `secrets` and `configurations` and nothing else; a key that is not there is an error unless the
/// template has a `default` for it. The text is not escaped, and ends as the source does. A secret that is not text has
/// to go through `b64encode`.
pub fn template(source: &str, values: &Values<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let notes = Notes::default();
    let environment = environment(source, &notes)?;
    let template = environment.get_template(NAME).expect("it has just been added");
    let mut out = Buffer::new(MAX_OUTPUT_BYTES);
    let rendered = template.render_captured_to(context(values, &notes), &mut out).map(drop);
    let notes = notes.take();
    if let Some(key) = notes.binary {
        return Err(Error::Binary { key });
    }
    match rendered {
        Ok(()) => Ok(out.into_bytes()),
        Err(_) if out.is_over => Err(Error::OutputTooLarge),
        Err(error) => Err(told(&error, notes, source)),
    }
}

/// Whether `source` is a template at all; which keys and filters it wants shows only with values.
pub fn check_template(source: &str) -> Result<(), Error> {
    environment(source, &Notes::default()).map(drop)
}

const NAME: &str = "template";

/// The engine with the one template in it.
fn environment<'a>(source: &'a str, notes: &Notes) -> Result<Environment<'a>, Error> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Error::SourceTooLarge);
    }
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_fuel(Some(FUEL));
    // It writes everything that is there.
    environment.remove_global("debug");
    filters::add_to(&mut environment, notes);
    environment
        .add_template(NAME, source)
        .map_err(|error| Error::Template {
            line: error.line().unwrap_or(1),
            // Of the source alone: nothing has been read yet.
            what: format!("{}{}", error.kind(), detail(&error)),
        })?;
    Ok(environment)
}

/// What is wrong, without the engine's own details: those of a rendering may quote values.
fn told(error: &minijinja::Error, notes: Noted, source: &str) -> Error {
    let line = error.line().unwrap_or(1);
    match (error.kind(), notes.missed, notes.fault) {
        (ErrorKind::OutOfFuel, ..) => Error::TooMuchWork,
        // Many keys may have been looked up and found missing before, with a `default`.
        (ErrorKind::UndefinedError, Some((map, key)), _) if line_of(source, line).contains(&key) => {
            Error::NoKey { line, map, key }
        }
        (_, _, Some(fault)) => Error::Template {
            line,
            what: fault.to_owned(),
        },
        (kind @ (ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction), ..) => {
            // Names that the source has chosen.
            Error::Template {
                line,
                what: format!("{kind}{}", detail(error)),
            }
        }
        (kind, ..) => Error::Template {
            line,
            what: kind.to_string(),
        },
    }
}

fn detail(error: &minijinja::Error) -> String {
    error.detail().map(|detail| format!(": {detail}")).unwrap_or_default()
}

fn line_of(source: &str, line: usize) -> &str {
    source.lines().nth(line.saturating_sub(1)).unwrap_or_default()
}

/// What happened in a rendering that its error does not tell, or must not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// The last key that was looked up and is not there, with the map.
    missed: Option<(&'static str, String)>,
    /// A value that is not text and was used as if it were.
    binary: Option<String>,
    /// What one of our own filters says.
    fault: Option<&'static str>,
}

impl Notes {
    fn with<T>(&self, change: impl FnOnce(&mut Noted) -> T) -> T {
        // Whole after every single step, so a panic elsewhere cannot have broken it.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> Noted {
        self.with(std::mem::take)
    }

    /// The error of one of our own filters.
    pub(crate) fn fault(&self, what: &'static str) -> minijinja::Error {
        self.with(|noted| noted.fault = Some(what));
        minijinja::Error::new(ErrorKind::InvalidOperation, what)
    }
}

fn context(values: &Values<'_>, notes: &Notes) -> Value {
    let secrets = values.secrets.iter().map(|(key, value)| {
        let value = match std::str::from_utf8(value.expose()) {
            Ok(text) => Value::from(text),
            Err(_) => Binary::value(key, value.expose(), notes),
        };
        ((*key).to_owned(), value)
    });
    let configurations = values.configurations.iter();
    let configurations = configurations.map(|(key, text)| ((*key).to_owned(), Value::from(*text)));
    minijinja::context! {
        secrets => Map::value("secrets", secrets.collect(), notes),
        configurations => Map::value("configurations", configurations.collect(), notes),
    }
}

/// A map whose missing keys are noted.
struct Map {
    name: &'static str,
    entries: BTreeMap<String, Value>,
    notes: Notes,
}

impl Map {
    fn value(name: &'static str, entries: BTreeMap<String, Value>, notes: &Notes) -> Value {
        Value::from_object(Self {
            name,
            entries,
            notes: notes.clone(),
        })
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let found = self.entries.get(key).cloned();
        if found.is_none() {
            self.notes
                .with(|noted| noted.missed = Some((self.name, key.to_owned())));
        }
        found
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.keys().map(|key| Value::from(key.as_str())).collect())
    }
}

/// A value that is not text. To use it as text gives nothing and is noted.
pub(crate) struct Binary {
    key: String,
    value: Option<SecretValue>,
    notes: Notes,
}

impl Binary {
    /// `key` says whose it is.
    pub(crate) fn value(key: &str, bytes: &[u8], notes: &Notes) -> Value {
        Value::from_object(Self {
            key: key.to_owned(),
            value: SecretValue::from_bytes(bytes.to_vec()).ok(),
            notes: notes.clone(),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.value.as_ref().map_or(&[], SecretValue::expose)
    }

    pub(crate) fn misused(&self) {
        self.notes.with(|noted| noted.binary = Some(self.key.clone()));
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.misused();
        Ok(())
    }
}

impl Object for Binary {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.misused();
        Ok(())
    }
}
