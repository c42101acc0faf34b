//! Paths, as the texts that the runtime gets.

/// Whether `inner` is `outer` or lies in it.
pub fn contains(outer: &str, inner: &str) -> bool {
    segments(inner).starts_with(&segments(outer))
}

/// Whether one of them lies in the other.
pub fn meet(one: &str, other: &str) -> bool {
    contains(one, other) || contains(other, one)
}

/// `//` and `/./` mean nothing, and `..` is what it is to the runtime: one step back in the text.
pub fn segments(path: &str) -> Vec<&str> {
    let mut all = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(all.pop()),
            part => all.push(part),
        }
    }
    all
}

/// Where a path leads in images in which `/var/run` is a link to `/run`: most, and not ours.
pub fn linked<'a, 'p>(segments: &'a [&'p str]) -> &'a [&'p str] {
    match segments {
        ["var", rest @ ..] if rest.first() == Some(&"run") => rest,
        all => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_another_by_whole_segments() {
        assert!(contains("/a", "/a"));
        assert!(contains("/a/", "/a/b"));
        assert!(contains("/", "/a"));
        assert!(contains("/a/./b", "//a/b/c"));
        assert!(!contains("/a/b", "/a"));
        assert!(!contains("/a", "/ab"));
        assert!(contains("/a", "/b/../../a/c") && !contains("/a", "/a/../b"));
    }
}
