//! Who made an application or environment of the server: its labels say so, and only administrators can write those.

use sealpod_core::kubernetes::{ADOPTABLE_BY_LABEL, OWNER_LABEL, RELEASED_BY_LABEL};
use sealpod_core::wire::Labels;

/// What the labels of a server-side object are to one Kubernetes object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This object made it, or took it over with consent.
    Ours,
    /// Nobody owns it, and an administrator consents to this object taking it over.
    Adoptable,
    /// An object of this namespace and name owned it, and let it go.
    Released,
    /// Another object owns it.
    Others,
    /// Nobody owns it.
    Nobodys,
}

/// `ours` is the value of the owner label of the object that asks.
pub fn ownership(labels: &Labels, ours: &str) -> Ownership {
    let is_ours = |label: &str| labels.get(label).is_some_and(|value| value == ours);
    match labels.get(OWNER_LABEL) {
        Some(owner) if owner == ours => Ownership::Ours,
        // Whatever else the labels say: consent to take from another owner does not exist.
        Some(_) => Ownership::Others,
        None if is_ours(ADOPTABLE_BY_LABEL) => Ownership::Adoptable,
        None if is_ours(RELEASED_BY_LABEL) => Ownership::Released,
        None => Ownership::Nobodys,
    }
}

/// Whether the environment of an application that is ours (`application_owner`) was left behind by an earlier owner of
/// that application: objects of other namespaces, or of an earlier namespace of this name, have no part in it now.
pub fn is_left_behind(labels: &Labels, application_owner: &str) -> bool {
    let namespace = |owner: &str| owner.splitn(4, '/').take(3).map(str::to_owned).collect::<Vec<_>>();
    let owner = labels.get(OWNER_LABEL).or_else(|| labels.get(RELEASED_BY_LABEL));
    owner.is_some_and(|owner| namespace(owner) != namespace(application_owner))
}

/// The labels of an object that `owner` made or takes over.
pub fn owned(labels: &Labels, owner: &str) -> Labels {
    with(labels, OWNER_LABEL, owner)
}

/// The labels of an object that `owner` lets go.
pub fn released(labels: &Labels, owner: &str) -> Labels {
    with(labels, RELEASED_BY_LABEL, owner)
}

fn with(labels: &Labels, label: &str, owner: &str) -> Labels {
    let mut labels = labels.clone();
    labels.retain(|key, _| !matches!(key.as_str(), OWNER_LABEL | RELEASED_BY_LABEL | ADOPTABLE_BY_LABEL));
    labels.insert(label.to_owned(), owner.to_owned());
    labels
}

/// What stands in the way of taking over, and the command by which an administrator consents; `path` is that of the
/// server-side object on the management plane.
///
/// The command reads the object instead of quoting it, because it may be another tenant's. It takes another owner's
/// label off: that is an administrator's to decide, for an owner that is gone without letting go.
pub fn needs_consent(what: &str, ownership: Ownership, server_url: &str, path: &str, ours: &str) -> String {
    let because = match ownership {
        Ownership::Others => "belongs to another object (its label sealpod.dev/owner says which)",
        Ownership::Released => "was let go by an earlier object of this name",
        Ownership::Ours | Ownership::Adoptable | Ownership::Nobodys => "was not made by this object",
    };
    let instead = match ownership {
        Ownership::Others => "or, if that object is gone, let an administrator hand it over",
        _ => "or let an administrator consent",
    };
    format!(
        "{what} already exists on the server and {because}: choose another slug, {instead}: \
         U='{server_url}{path}' A=\"Authorization: Bearer $SEALPOD_ADMIN_KEY\"; \
         curl -s \"$U\" -H \"$A\" | jq '{{name, description, labels: (.labels | del(.\"{OWNER_LABEL}\") + \
         {{\"{ADOPTABLE_BY_LABEL}\": \"{ours}\"}})}} | with_entries(select(.value != null))' | \
         curl -X PUT \"$U\" -H \"$A\" -H 'Content-Type: application/json' -d @-"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "cluster/shop/uid/app";

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_owner_label_alone_makes_an_object_ours() {
        for (pairs, want) in [
            (&[(OWNER_LABEL, OURS)][..], Ownership::Ours),
            (&[(OWNER_LABEL, "cluster/shop/uid/other")], Ownership::Others),
            (&[(OWNER_LABEL, "cluster/shop/uid/app2")], Ownership::Others),
            (&[(OWNER_LABEL, "other"), (ADOPTABLE_BY_LABEL, OURS)], Ownership::Others),
            (&[(ADOPTABLE_BY_LABEL, OURS)], Ownership::Adoptable),
            (
                &[(RELEASED_BY_LABEL, OURS), (ADOPTABLE_BY_LABEL, OURS)],
                Ownership::Adoptable,
            ),
            (
                &[(RELEASED_BY_LABEL, OURS), (ADOPTABLE_BY_LABEL, "other")],
                Ownership::Released,
            ),
            (&[(RELEASED_BY_LABEL, OURS)], Ownership::Released),
            (&[(RELEASED_BY_LABEL, "other")], Ownership::Nobodys),
            (&[("team", "a")], Ownership::Nobodys),
            (&[], Ownership::Nobodys),
        ] {
            assert_eq!(ownership(&labels(pairs), OURS), want, "{pairs:?}");
        }
    }

    #[test]
    fn what_objects_of_another_namespace_owned_is_left_behind() {
        for (owner, want) in [
            (OURS, false),
            ("cluster/shop/uid/environments/prod", false),
            ("cluster/shop/old-uid/app", true),
            ("cluster/shop/old-uid/environments/prod", true),
            ("other/shop/uid/app", true),
            ("nonsense", true),
        ] {
            assert_eq!(is_left_behind(&labels(&[(OWNER_LABEL, owner)]), OURS), want, "{owner}");
            assert_eq!(
                is_left_behind(&labels(&[(RELEASED_BY_LABEL, owner)]), OURS),
                want,
                "{owner}"
            );
        }
        assert!(!is_left_behind(&labels(&[("team", "a")]), OURS));
    }

    #[test]
    fn taking_and_letting_go_keep_other_labels_and_leave_one_of_ours() {
        let before = labels(&[("team", "a"), (RELEASED_BY_LABEL, OURS), (ADOPTABLE_BY_LABEL, OURS)]);
        let taken = owned(&before, OURS);
        assert_eq!(taken, labels(&[("team", "a"), (OWNER_LABEL, OURS)]));
        assert_eq!(
            released(&taken, OURS),
            labels(&[("team", "a"), (RELEASED_BY_LABEL, OURS)])
        );
    }

    #[test]
    fn the_message_holds_the_command_and_nothing_of_the_other_object() {
        let text = |ownership| needs_consent("application `shop`", ownership, "https://s:7100", "/api/x/shop", OURS);
        for ownership in [Ownership::Nobodys, Ownership::Released, Ownership::Others] {
            let text = text(ownership);
            assert!(text.contains("U='https://s:7100/api/x/shop'"), "{text}");
            assert!(
                text.contains(&format!("{{\"{ADOPTABLE_BY_LABEL}\": \"{OURS}\"}}")),
                "{text}"
            );
        }
        assert!(text(Ownership::Others).contains("if that object is gone"));
        assert!(!text(Ownership::Nobodys).contains("gone"));
    }
}
