//! What is asked for, in the one form that two equal questions share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use sealpod_core::Pattern;
use sealpod_core::names::MAX_SECRET_NAME;
use sealpod_core::wire::bundle::{BundleRequest, MAX_SELECTORS, MAX_WAIT, PinnedVersion};

use super::state::Etag;
use crate::body::fields::{array, boolean, parsed, string, whole};
use crate::body::{Fields, QueryFields, ReadFields, ReadQuery};
use crate::store::Selection;

/// A question for a bundle: no doubles, and in an order of its own.
#[derive(Debug, Clone)]
pub struct Request {
    pub keys: BTreeSet<String>,
    pub patterns: Vec<Pattern>,
    pub pinned: BTreeMap<String, u64>,
    pub configurations: bool,
    pub values: bool,
    pub wait: Duration,
}

impl Request {
    /// The names that were asked for one by one, which the answer must account for.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let pinned = self.pinned.keys().filter(|key| !self.keys.contains(*key));
        self.keys.iter().chain(pinned).map(String::as_str)
    }

    /// Whether everything is asked for that the caller may read.
    pub fn is_for_all(&self) -> bool {
        self.keys.is_empty() && self.patterns.is_empty() && self.pinned.is_empty()
    }

    pub fn selection(&self) -> Selection {
        if self.is_for_all() {
            return Selection::All;
        }
        Selection::Named {
            keys: self.keys.iter().cloned().collect(),
            patterns: self.patterns.clone(),
            pinned: self.pinned.clone(),
        }
    }

    /// The question of which this is the text, without its wait.
    pub fn of(canonical: &[u8]) -> Self {
        let (keys, patterns, pinned, configurations, values) =
            serde_json::from_slice(canonical).expect("it was written by `canonical`");
        Self {
            keys,
            patterns,
            pinned,
            configurations,
            values,
            wait: Duration::ZERO,
        }
    }

    /// The question as text; two questions with one answer are the same text, however they were written and however
    /// long they wait.
    pub fn canonical(&self) -> Vec<u8> {
        let patterns: Vec<&str> = self.patterns.iter().map(Pattern::as_str).collect();
        let parts = (&self.keys, patterns, &self.pinned, self.configurations, self.values);
        serde_json::to_vec(&parts).expect("text, numbers and truth values are always JSON")
    }
}

/// Where faults are noted: of a body's fields or of a query's parameters.
trait Noting {
    fn note(&mut self, name: &str, why: &str);
}

impl Noting for Fields<'_> {
    fn note(&mut self, name: &str, why: &str) {
        self.fault(name, why);
    }
}

impl Noting for QueryFields {
    fn note(&mut self, name: &str, why: &str) {
        self.fault(name, why);
    }
}

fn checked(request: BundleRequest, faults: &mut impl Noting) -> Option<Request> {
    let BundleRequest {
        key,
        mut pattern,
        version,
        configurations,
        values,
        wait,
    } = request;
    let mut sound = true;
    let mut fault = |name: &str, why: &str| {
        faults.note(name, why);
        sound = false;
    };
    if key.len() + pattern.len() + version.len() > MAX_SELECTORS {
        fault(
            "key",
            "is one of more than 500 keys, patterns and versions together; ask in several requests",
        );
    }
    let is_name = |key: &String| !key.is_empty() && key.chars().count() <= MAX_SECRET_NAME;
    if !key.iter().all(is_name) {
        fault("key", "must be 1 to 200 characters");
    }
    let mut pinned = BTreeMap::new();
    for PinnedVersion { key, version } in version {
        if !is_name(&key) {
            fault("version", "must name a key of 1 to 200 characters");
        }
        if pinned.insert(key, version).is_some_and(|before| before != version) {
            fault("version", "pins one key to two versions");
        }
    }
    pattern.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    pattern.dedup();
    sound.then(|| Request {
        keys: key.into_iter().collect(),
        patterns: pattern,
        pinned,
        configurations,
        values,
        wait: Duration::from_secs(wait),
    })
}

impl ReadQuery for Request {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let key = query.all("key");
        let pattern = query.parsed("pattern");
        let version = query.parsed("version");
        let configurations = query.boolean("configurations", false);
        let values = query.boolean("values", true);
        let wait = query.whole("wait", 0, MAX_WAIT);
        let request = BundleRequest {
            key,
            pattern: pattern?,
            version: version?,
            configurations: configurations?,
            values: values?,
            wait: wait?.unwrap_or(0),
        };
        checked(request, query)
    }
}

impl ReadFields for Request {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let key = fields.or("key", vec![], array(string));
        let pattern = fields.or("pattern", vec![], array(parsed));
        let version = fields.or("version", vec![], array(parsed));
        let configurations = fields.or("configurations", false, boolean);
        let values = fields.or("values", true, boolean);
        let wait = fields.or("wait", 0, whole(MAX_WAIT));
        let request = BundleRequest {
            key: key?,
            pattern: pattern?,
            version: version?,
            configurations: configurations?,
            values: values?,
            wait: wait?,
        };
        checked(request, fields)
    }
}

/// The tags of `If-None-Match`, without what surrounds them: for weak comparison, as the header demands. Our tags hold no
/// comma.
pub fn known_tags(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tags.map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
        .filter(|tag| !tag.is_empty())
}

/// The states that the caller has, by `If-None-Match`.
#[derive(Debug, Clone, Default)]
pub struct Known(Box<[Etag]>);

impl Known {
    pub fn of(headers: &HeaderMap) -> Self {
        // Tags of another form name no state of ours.
        Self(known_tags(headers).filter_map(|tag| tag.parse().ok()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, etag: Etag) -> bool {
        self.0.contains(&etag)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|etag| etag.bytes()).collect()
    }

    /// How many bytes it takes.
    pub fn weight(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::FromRequestParts;

    use crate::body::Query;

    async fn query(uri: &str) -> Option<Request> {
        let (mut parts, ()) = axum::http::Request::get(uri).body(()).unwrap().into_parts();
        let request = Query::<Request>::from_request_parts(&mut parts, &()).await.ok();
        request.map(|Query(request)| request)
    }

    #[tokio::test]
    async fn equal_questions_are_equal_however_they_are_written() {
        let one = query("/?key=b&key=a&pattern=x*&pattern=a*&version=c:1&wait=30")
            .await
            .unwrap();
        let two = query("/?version=c:1&pattern=a*&pattern=x*&pattern=a*&key=a&key=b&key=b")
            .await
            .unwrap();
        assert_eq!(one.canonical(), two.canonical());
        assert_eq!(Request::of(&one.canonical()).canonical(), one.canonical());
        assert_eq!(one.named().collect::<Vec<_>>(), ["a", "b", "c"]);
        for other in [
            "/?key=a",
            "/?key=a&key=b&pattern=a*&pattern=x*&version=c:1&values=false",
        ] {
            assert_ne!(query(other).await.unwrap().canonical(), one.canonical(), "{other}");
        }
    }

    #[tokio::test]
    async fn questions_are_bounded_and_free_of_contradictions() {
        let keys = |n: usize| format!("/?{}", vec!["key=a"; n].join("&"));
        assert!(query(&keys(500)).await.is_some());
        assert!(query(&keys(501)).await.is_none());
        for bad in [
            "/?version=a:1&version=a:2",
            "/?key=",
            "/?version=a",
            "/?pattern=%7B",
            "/?wait=121",
        ] {
            assert!(query(bad).await.is_none(), "{bad}");
        }
    }

    #[test]
    fn the_known_states_are_read_from_any_form_of_the_header() {
        let mut headers = HeaderMap::new();
        let [a, b, c, d] = ["A", "B", "C", "D"].map(|letter| letter.repeat(42) + "A");
        for line in [format!("\"{a}\", W/\"{b}\", \"another's\", *"), c.clone()] {
            headers.append(header::IF_NONE_MATCH, line.parse().unwrap());
        }
        let known = Known::of(&headers);
        let has = |tag: &String| known.has(tag.parse().unwrap());
        assert!([&a, &b, &c].into_iter().all(has) && !has(&d));
        assert_eq!((known.weight(), a.parse::<Etag>().unwrap().to_string()), (3 * 32, a));
        assert!(Known::of(&HeaderMap::new()).is_empty());
    }
}
