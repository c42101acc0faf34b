//! What users write on pods. `cargo xtask generate` renders it into `docs/annotations.md`.

use std::fmt::Write as _;

/// One annotation as its documentation shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    /// With the prefix.
    pub name: &'static str,
    /// What may be written.
    pub takes: &'static str,
    /// What holds without it.
    pub default: &'static str,
    pub example: &'static str,
    /// Sentences, one after the other.
    pub meaning: &'static str,
}

/// A constant for each name, and the table of all of them, from one text.
macro_rules! annotations {
    ($($(#[doc = $doc:literal])+ $constant:ident = $name:literal, $takes:literal, $default:literal, $example:literal;)+) => {
        $($(#[doc = $doc])+ pub const $constant: &str = concat!("sealpod.dev/", $name);)+

        /// All that users may write; anything else under the prefix is a typing error worth a warning.
        pub const FOR_USERS: &[Annotation] = &[$(Annotation {
            name: $constant,
            takes: $takes,
            default: $default,
            example: $example,
            meaning: concat!($($doc),+),
        }),+];
    };
}

annotations! {
    /// The SecretBindings that the pod gets, all of its own namespace.
    /// One that does not exist, is being deleted or does not select the pod is refused.
    BINDING = "binding", "names, by comma", "every binding of the namespace whose `podSelector` and `serviceAccountNames` take the pod", "db,mail";
    /// The containers that see the files, init containers too.
    /// One that runs before ours, as by `sealpod.dev/after`, finds an empty directory.
    CONTAINERS = "containers", "names, by comma", "all", "app,migrate";
    /// The shape of what is added.
    /// `sidecar`: an init container writes the first files, a regular container keeps them fresh.
    /// `native`: one native sidecar does both, so that a pod that is to end does.
    /// `init`: an init container writes the files once, and nothing stays.
    /// `auto`: `sidecar` for pods that run for ever (`restartPolicy: Always`), `native` for all others.
    MODE = "mode", "`auto`, `sidecar`, `native` or `init`", "`auto`", "init";
    /// An init container behind which ours goes, because nothing can call out before it runs.
    /// Ours is directly behind the last one of it and those of a mesh.
    AFTER = "after", "the name of an init container", "`istio-proxy`, `istio-validation` or `linkerd-proxy` where there is one, else ours is the first", "vpn";
    /// The container whose program reads its values from the environment: it finds `/sealpod/exec` and is started by it.
    /// Write `command: [/sealpod/exec, --from, <mountPath>, --, …]`.
    /// One that runs before ours, as by `sealpod.dev/after`, is refused.
    EXEC = "exec", "the name of a container", "none", "app";
    /// CPU that each of our containers requests.
    CPU_REQUEST = "cpu-request", "a quantity", "`5m`; in a Guaranteed pod its limit; none where the pod has `spec.resources`", "10m";
    /// CPU that each of our containers may use at most.
    CPU_LIMIT = "cpu-limit", "a quantity", "none; `50m` in a Guaranteed pod, `200m` where a quota or a LimitRange of the namespace asks for one, and neither where the pod has `spec.resources`", "500m";
    /// Memory that each of our containers requests.
    MEMORY_REQUEST = "memory-request", "a quantity", "`8Mi`; in a Guaranteed pod its limit; none where the pod has `spec.resources`", "16Mi";
    /// Memory that each of our containers may use at most, with the files in it.
    /// Less than `8Mi`, which our program takes, is refused; less than that and the size of the volumes is a warning.
    MEMORY_LIMIT = "memory-limit", "a quantity", "`32Mi` and the `sizeLimit` of each binding; none where the pod has `spec.resources`", "64Mi";
    /// Whether the sidecar's metrics tell the version of each delivered secret (`sealpod_sidecar_version`).
    /// They show which keys there are to whoever reaches the pod.
    METRICS_VERSIONS = "metrics-versions", "`true` or `false`", "`false`", "true";
}

/// Written by the injector: the names of the bindings that it put into the pod, by comma.
pub const INJECTED: &str = "sealpod.dev/injected";

/// A Markdown table of [`FOR_USERS`].
pub fn markdown() -> String {
    let mut text = "| annotation | takes | without it | example | |\n|---|---|---|---|---|\n".to_owned();
    for annotation in FOR_USERS {
        let Annotation {
            name,
            takes,
            default,
            example,
            meaning,
        } = annotation;
        let meaning = meaning.trim();
        let _ = writeln!(text, "| `{name}` | {takes} | {default} | `{example}` | {meaning} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_annotation_is_documented_in_one_row() {
        let text = markdown();
        for annotation in FOR_USERS {
            assert!(annotation.name.starts_with("sealpod.dev/"), "{}", annotation.name);
            for part in [
                annotation.takes,
                annotation.default,
                annotation.example,
                annotation.meaning.trim(),
            ] {
                assert!(
                    !part.is_empty() && !part.contains(['|', '\n']),
                    "{}: {part:?}",
                    annotation.name
                );
            }
            assert_eq!(text.matches(&format!("| `{}` |", annotation.name)).count(), 1);
        }
        assert_eq!(text.lines().count(), FOR_USERS.len() + 2);
    }
}
