//! What callers read where a limit, a quota or a name stands in their way: what it is, and the way out.

use crate::store::{Crowd, Object, Quota};

pub(super) fn too_many(crowd: Crowd) -> String {
    let way_out = match crowd {
        Crowd::RulesOfASubject => "say with patterns such as `db-*` or `{dev,staging}` in one rule what many say",
        Crowd::OrganizationsOfAnOwner => "delete one, or let somebody else make it",
    };
    format!("this would be more than {} {crowd}; {way_out}", crowd.limit())
}

/// Which quota stands in the way, and what to do about it.
pub(super) fn over(quota: Quota, limit: u64) -> String {
    let (what, room) = match quota {
        Quota::Projects => ("projects", "delete one"),
        Quota::Secrets => ("secrets", "delete some"),
        Quota::ValueBytes => ("bytes of stored values", "delete some and purge them from the trash"),
    };
    format!(
        "this organization may hold {limit} {what}, its quota `{quota}`, and this would be more; {room}, or ask a \
         superadmin to raise it with PUT /api/orgs/{{org}}/quotas"
    )
}

/// What to do about a name that a live object has.
pub(super) fn taken(object: Object) -> &'static str {
    match object {
        Object::Organization => "an organization has this name; choose another",
        Object::Project => "an application or project has this slug; choose another name, or send a `slug` of its own",
        Object::Environment => "an environment of this application has this slug; choose another name",
        Object::Secret => "a secret of this application has this name; set its values instead",
        Object::Version => "this version exists already; read the list of versions",
        Object::Configuration => "this key exists in this environment; change it with PUT",
        Object::ServiceAccount => "a service account of this organization has this name; rotate its key instead",
        Object::Member => "this user is a member already; change the role with PATCH",
        Object::Session => "this session exists already; sign in again",
        Object::AclRule | Object::Subject => "this rule exists already; read the list of rules",
        Object::TrashItem => "this is in the trash already; read its list",
        Object::MasterKey | Object::Backup => "this exists already; read its list",
    }
}

/// What to do about a name that was given anew before its former bearer came back.
pub(super) fn taken_again(object: Object) -> &'static str {
    match object {
        Object::Version => "this key has been set in this environment since; delete it there first, then restore",
        Object::Project => "another project has its name by now; rename or delete that one first, then restore",
        Object::Environment => "another environment of the project has its name by now; delete that one first",
        Object::Secret => "another secret of the project has its name by now; delete that one everywhere first",
        Object::Configuration => "another configuration here has its key by now; delete that one first",
        Object::Organization
        | Object::ServiceAccount
        | Object::AclRule
        | Object::Subject
        | Object::Member
        | Object::Session
        | Object::TrashItem
        | Object::MasterKey
        | Object::Backup => "its name is taken by now; free it first, then restore",
    }
}
