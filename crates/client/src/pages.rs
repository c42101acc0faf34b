//! Lists page by page, for those that are longer than one answer should be.

use std::fmt;
use std::marker::PhantomData;

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::de::DeserializeOwned;

use crate::path::append;
use crate::{Client, Error, Result};

/// A list of the management plane, as far as it is not read yet. Each page is one call with a deadline of its own, and
/// one state of the list; what is made or deleted between two pages is listed or not, and moves nothing else.
pub struct Pages<'a, T> {
    client: &'a Client,
    /// Of the list, and so of all its pages.
    path: String,
    /// Path and query of the next page.
    next: Option<String>,
    items: PhantomData<fn() -> T>,
}

impl<'a, T: DeserializeOwned> Pages<'a, T> {
    /// `query` is what the list is narrowed down by.
    pub(crate) fn of(client: &'a Client, path: String, mut query: String, limit: u32) -> Self {
        append(&mut query, "limit", &limit.to_string());
        Self {
            client,
            next: Some(format!("{path}{query}")),
            path,
            items: PhantomData,
        }
    }

    /// The next page, or `None` behind the last one. After an error the same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>> {
        let Some(target) = self.next.clone() else {
            return Ok(None);
        };
        let answer = self.client.call(Method::GET, target.clone()).send().await?;
        let items = answer.json()?;
        self.next = match answer.next.as_deref() {
            None => None,
            Some(next) if self.leads_on(next, &target) => Some(next.to_owned()),
            Some(_) => {
                return Err(Error::BadAnswer {
                    status: answer.status.as_u16(),
                    reason: "its `Link` leads out of the list, or back to the same page".to_owned(),
                });
            }
        };
        Ok(Some(items))
    }

    /// Everything that is left, however much it is.
    pub async fn rest(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// A link decides where a credential goes, so it may only lead on in the same list.
    fn leads_on(&self, next: &str, from: &str) -> bool {
        let rest = next.strip_prefix(&self.path);
        rest.is_some_and(|rest| rest.starts_with('?')) && next != from
    }
}

impl<T> fmt::Debug for Pages<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Pages");
        shown.field("path", &self.path).field("next", &self.next).finish()
    }
}

/// The target of `rel="next"`, of whichever header and place among other links.
pub(crate) fn next_link(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    for mut rest in links {
        while let Some((target, tail)) = rest.split_once('<').and_then(|(_, tail)| tail.split_once('>')) {
            let end = tail.find('<').unwrap_or(tail.len());
            let is_next = tail[..end].split([';', ',']).any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            });
            if is_next {
                return Some(target.to_owned());
            }
            rest = tail;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn the_next_link_is_found_among_others() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(LINK, HeaderValue::from_str(value).unwrap());
            }
            next_link(&headers)
        };
        let next = Some("/a?after=b,c;d".to_owned());
        assert_eq!(of(&["</a?after=b,c;d>; rel=\"next\""]), next);
        assert_eq!(of(&["</a?after=b,c;d>;title=x; REL=next"]), next);
        assert_eq!(of(&["</z>; rel=\"prev\", </a?after=b,c;d>; rel=\"next\""]), next);
        assert_eq!(
            of(&["</style.css>; rel=preload", "</a?after=b,c;d>; rel=\"next\""]),
            next
        );
        for other in [
            "",
            "</a>",
            "</a>; rel=\"prev\"",
            "</a; rel=\"next\"",
            "</a>; title=\"next\"",
            "next",
        ] {
            assert_eq!(of(&[other]), None, "{other}");
        }
    }
}
