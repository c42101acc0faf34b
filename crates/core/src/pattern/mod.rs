//! ACL patterns: `*` any run, `?` one character, `{a,b}` alternatives, `\` escapes. The whole text must match, case
//! counts, and matching takes time in proportion to the text: all states of the pattern advance together, so no
//! pattern makes it backtrack.

mod program;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use program::{Program, Step};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest pattern, in characters without the escapes.
pub const MAX_CHARACTERS: usize = 256;
/// Most alternatives of one group.
pub const MAX_ALTERNATIVES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("must not be empty; use `*` for everything")]
    Empty,
    #[error("must be at most 256 characters, not counting escapes")]
    TooLong,
    #[error("ends in a `\\` that escapes nothing; write `\\\\` for a backslash")]
    DanglingEscape,
    #[error("has a `{{` without its `}}`; write `\\{{` for a brace")]
    OpenGroup,
    #[error("has a group inside a group; write the alternatives side by side")]
    NestedGroup,
    #[error("has a group without text; write at least one alternative, or `\\{{\\}}` for braces")]
    EmptyGroup,
    #[error("has a group of more than 8 alternatives; use several rules")]
    TooManyAlternatives,
}

/// A parsed pattern; keeps the text it came from. Clones share it: rights are made of patterns at each request.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    source: String,
    program: Program,
}

impl Pattern {
    /// The pattern that matches everything.
    pub fn any() -> Self {
        Self::of("*", vec![Step::Run])
    }

    fn of(source: &str, steps: Vec<Step>) -> Self {
        Self(Arc::new(Parsed {
            source: source.to_owned(),
            program: Program::new(steps),
        }))
    }

    pub fn as_str(&self) -> &str {
        &self.0.source
    }

    /// Text for a pattern that matches exactly `literal`.
    pub fn escape(literal: &str) -> String {
        let mut out = String::with_capacity(literal.len());
        for c in literal.chars() {
            if matches!(c, '*' | '?' | '{' | '}' | ',' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out
    }

    /// The one text that this pattern matches, if it has no wildcard and no group.
    pub fn literal(&self) -> Option<String> {
        self.0
            .program
            .steps()
            .iter()
            .map(|step| if let Step::Char(c) = step { Some(*c) } else { None })
            .collect()
    }

    /// All texts that this pattern matches, if it has no wildcard and they are at most `most`.
    pub fn texts(&self, most: usize) -> Option<Vec<String>> {
        let mut texts = Vec::new();
        self.0.program.texts(most, &mut texts).then_some(texts)
    }

    /// What all texts that this pattern matches have in common.
    pub fn affixes(&self) -> Affixes {
        self.0.program.affixes()
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.program.matches(text)
    }
}

/// How the texts begin and end that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affixes {
    pub prefix: String,
    pub suffix: String,
    /// Whether the pattern matches every text that begins and ends so, without one being part of the other.
    pub is_all: bool,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(source: &str) -> Result<Self, PatternError> {
        let mut parser = Parser {
            chars: source.chars(),
            counted: 0,
            steps: Vec::new(),
        };
        while let Some(token) = parser.token()? {
            match token {
                Token::Open => parser.group()?,
                token => parser.push(token),
            }
        }
        if parser.steps.is_empty() {
            return Err(PatternError::Empty);
        }
        Ok(Self::of(source, parser.steps))
    }
}

#[derive(Clone, Copy)]
enum Token {
    Plain(char),
    One,
    Run,
    Open,
    Close,
    Comma,
}

struct Parser<'a> {
    chars: std::str::Chars<'a>,
    counted: usize,
    steps: Vec<Step>,
}

impl Parser<'_> {
    fn token(&mut self) -> Result<Option<Token>, PatternError> {
        let Some(c) = self.chars.next() else { return Ok(None) };
        self.counted += 1;
        if self.counted > MAX_CHARACTERS {
            return Err(PatternError::TooLong);
        }
        Ok(Some(match c {
            '\\' => Token::Plain(self.chars.next().ok_or(PatternError::DanglingEscape)?),
            '?' => Token::One,
            '*' => Token::Run,
            '{' => Token::Open,
            '}' => Token::Close,
            ',' => Token::Comma,
            plain => Token::Plain(plain),
        }))
    }

    /// A token outside a group, or the text of an alternative: a comma or `}` without a group stands for itself.
    fn push(&mut self, token: Token) {
        self.steps.push(match token {
            Token::Plain(c) => Step::Char(c),
            Token::One => Step::One,
            Token::Run => Step::Run,
            Token::Open => Step::Char('{'),
            Token::Close => Step::Char('}'),
            Token::Comma => Step::Char(','),
        });
    }

    /// Behind a `{`: alternatives up to the `}`, each ended by a jump behind the group.
    fn group(&mut self) -> Result<(), PatternError> {
        let fork = self.steps.len();
        self.steps.push(Step::Fork(Vec::new()));
        let mut starts = vec![fork + 1];
        let mut jumps = Vec::new();
        loop {
            match self.token()?.ok_or(PatternError::OpenGroup)? {
                Token::Open => return Err(PatternError::NestedGroup),
                Token::Comma => {
                    jumps.push(self.steps.len());
                    self.steps.push(Step::Jump(0));
                    starts.push(self.steps.len());
                }
                Token::Close => break,
                token => self.push(token),
            }
        }
        if starts.len() > MAX_ALTERNATIVES {
            return Err(PatternError::TooManyAlternatives);
        }
        let end = self.steps.len();
        if end - fork - 1 == jumps.len() {
            return Err(PatternError::EmptyGroup);
        }
        for jump in jumps {
            self.steps[jump] = Step::Jump(end);
        }
        self.steps[fork] = Step::Fork(starts);
        Ok(())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.source)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.source, f)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.source)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
crate::openapi::schema!(
    Pattern,
    crate::openapi::bounded(
        "`*` any run, `?` one character, `{a,b}` up to 8 alternatives, `\\` escapes; the whole text must match",
        "db-*",
        1,
        MAX_CHARACTERS,
        r"^([^\\{]|\\[\s\S]|\{(?!,*\})([^\\{},]|\\[\s\S])*(,([^\\{},]|\\[\s\S])*){0,7}\})+$"
    )
);

#[cfg(test)]
mod tests;
