//! What callers ask for, and what they may be allowed.

/// A pattern, and the keys that it matches.
type KeyPattern = (&'static str, fn(&str) -> bool);

/// What one caller asks for, all along.
pub struct Question {
    pub environment: usize,
    pub keys: &'static [&'static str],
    pub pattern: Option<KeyPattern>,
    pub pinned: &'static [(&'static str, usize)],
    pub configurations: bool,
    pub values: bool,
}

impl Question {
    pub fn is_for_all(&self) -> bool {
        self.keys.is_empty() && self.pattern.is_none() && self.pinned.is_empty()
    }

    /// Whether the active version of the key is asked for.
    pub fn asks_for(&self, key: &str) -> bool {
        self.is_for_all() || self.keys.contains(&key) || self.pattern.is_some_and(|(_, matches)| matches(key))
    }
}

const ALL: Question = Question {
    environment: 0,
    keys: &[],
    pattern: None,
    pinned: &[],
    configurations: false,
    values: true,
};

pub const QUESTIONS: [Question; 7] = [
    Question {
        keys: &["a", "db-1"],
        ..ALL
    },
    Question {
        pattern: Some(("db-*", |key| key.starts_with("db-"))),
        ..ALL
    },
    ALL,
    Question {
        keys: &["a", "db-2"],
        pinned: &[("db-1", 1), ("db-2", 2)],
        ..ALL
    },
    Question {
        keys: &["a"],
        configurations: true,
        ..ALL
    },
    Question {
        keys: &["x.y", "ghost"],
        pattern: Some(("*", |_| true)),
        values: false,
        ..ALL
    },
    Question { environment: 1, ..ALL },
];

/// A rule that a caller may be given: its patterns, whether it is for configurations too, and what it speaks of.
pub struct Rule {
    pub patterns: [&'static str; 3],
    pub configurations: bool,
    pub permission: &'static str,
    /// Of the project with its first or second name, an environment, and a key.
    pub covers: fn(bool, &str, &str) -> bool,
}

pub const RULES: [Rule; 5] = [
    Rule {
        patterns: ["*", "*", "*"],
        configurations: false,
        permission: "read",
        covers: |_, _, _| true,
    },
    Rule {
        patterns: ["p*", "local", "db-*"],
        configurations: false,
        permission: "write",
        covers: |is_renamed, environment, key| !is_renamed && environment == "local" && key.starts_with("db-"),
    },
    Rule {
        patterns: ["*", "{local,staging}", "a"],
        configurations: true,
        permission: "read",
        covers: |_, environment, key| environment == "local" && key == "a",
    },
    Rule {
        patterns: ["*", "pro?", "?.?"],
        configurations: false,
        permission: "read",
        covers: |_, environment, key| environment == "prod" && key == "x.y",
    },
    Rule {
        patterns: ["elsewhere", "*", "*"],
        configurations: true,
        permission: "admin",
        covers: |_, _, _| false,
    },
];
