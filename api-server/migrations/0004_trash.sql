-- The trash: what was deleted and can still be restored, one row a deletion. The object itself keeps its own
-- `deleted_at`, by which every other statement passes over it; what was deleted together with something larger has no
-- row of its own and comes back with it.
CREATE TABLE trash (
    -- Names the deletion, not the object. Later deletions have higher ids.
    id               BLOB    PRIMARY KEY CHECK (length(id) = 16),
    organization_id  BLOB    NOT NULL REFERENCES organizations (id),
    kind             TEXT    NOT NULL
        CHECK (kind IN ('project', 'environment', 'secret', 'secret_versions', 'configuration')),
    -- What was deleted and what it was in. Nobody's references, because rows go before the one that says so.
    project_id       BLOB    NOT NULL CHECK (length(project_id) = 16),
    environment_id   BLOB    CHECK (length(environment_id) = 16),
    secret_id        BLOB    CHECK (length(secret_id) = 16),
    configuration_id BLOB    CHECK (length(configuration_id) = 16),
    -- Of the object when it was deleted.
    name             TEXT    NOT NULL,
    -- First and last version, of `secret_versions`.
    from_number      INTEGER,
    to_number        INTEGER,
    deleted_at       INTEGER NOT NULL,
    deleted_by_type  TEXT    NOT NULL,
    deleted_by_id    BLOB,
    deleted_by_name  TEXT    NOT NULL,
    -- 1: it is being purged, which can take several transactions, and is as good as gone.
    purging          INTEGER NOT NULL DEFAULT 0 CHECK (purging IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX trash_organization ON trash (organization_id, id);
CREATE INDEX trash_project ON trash (project_id);
CREATE INDEX trash_environment ON trash (environment_id) WHERE environment_id IS NOT NULL;
CREATE INDEX trash_secret ON trash (secret_id) WHERE secret_id IS NOT NULL;
CREATE INDEX trash_due ON trash (purging, deleted_at);

-- The deletion that a range belongs to; one deletion can leave several ranges. Null: purged, and kept for the numbering
-- only.
ALTER TABLE hidden_versions ADD COLUMN trash_id BLOB CHECK (trash_id IS NULL OR length(trash_id) = 16);
CREATE INDEX hidden_versions_trash ON hidden_versions (trash_id) WHERE trash_id IS NOT NULL;

-- What was deleted before there was a trash. The audit log knows by whom.
UPDATE hidden_versions SET trash_id = id;

INSERT INTO trash (id, organization_id, kind, project_id, name, deleted_at, deleted_by_type, deleted_by_name)
SELECT id, organization_id, 'project', id, slug, deleted_at, 'system', 'unknown'
FROM projects
WHERE deleted_at IS NOT NULL;

INSERT INTO trash
    (id, organization_id, kind, project_id, environment_id, name, deleted_at, deleted_by_type, deleted_by_name)
SELECT e.id, p.organization_id, 'environment', p.id, e.id, e.slug, e.deleted_at, 'system', 'unknown'
FROM environments e JOIN projects p ON p.id = e.project_id
WHERE e.deleted_at IS NOT NULL;

INSERT INTO trash
    (id, organization_id, kind, project_id, secret_id, name, deleted_at, deleted_by_type, deleted_by_name)
SELECT s.id, p.organization_id, 'secret', p.id, s.id, s.name, s.deleted_at, 'system', 'unknown'
FROM secrets s JOIN projects p ON p.id = s.project_id
WHERE s.deleted_at IS NOT NULL;

INSERT INTO trash
    (id, organization_id, kind, project_id, environment_id, secret_id, name, from_number, to_number, deleted_at,
     deleted_by_type, deleted_by_id, deleted_by_name)
SELECT h.id, p.organization_id, 'secret_versions', p.id, h.environment_id, s.id, s.name, h.from_number, h.to_number,
    h.deleted_at, h.deleted_by_type, h.deleted_by_id, h.deleted_by_name
FROM hidden_versions h JOIN secrets s ON s.id = h.secret_id JOIN projects p ON p.id = s.project_id;

INSERT INTO trash
    (id, organization_id, kind, project_id, environment_id, configuration_id, name, deleted_at, deleted_by_type,
     deleted_by_name)
SELECT c.id, p.organization_id, 'configuration', p.id, e.id, c.id, c.key, c.deleted_at, 'system', 'unknown'
FROM configurations c JOIN environments e ON e.id = c.environment_id JOIN projects p ON p.id = e.project_id
WHERE c.deleted_at IS NOT NULL;

-- A row that goes for good is looked for in every table that may refer to it, the deleted rows of it too: without these
-- indexes each such look would read the whole table. So is a new row of a table that has a trigger, because the engine
-- plans its insert as if it could repair a broken reference.
CREATE INDEX projects_organization ON projects (organization_id);
CREATE INDEX environments_project ON environments (project_id);
CREATE INDEX secrets_project ON secrets (project_id);
CREATE INDEX versions_environment ON versions (environment_id);
CREATE INDEX hidden_versions_environment ON hidden_versions (environment_id);
CREATE INDEX configurations_environment ON configurations (environment_id);
CREATE INDEX service_accounts_organization ON service_accounts (organization_id);
CREATE INDEX service_accounts_project ON service_accounts (project_id) WHERE project_id IS NOT NULL;
DROP INDEX acl_rules_organization;
CREATE INDEX acl_rules_organization ON acl_rules (organization_id);

-- What goes after as many days as the trash keeps things, without ever having been in it.
CREATE INDEX organizations_deleted ON organizations (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX service_accounts_deleted ON service_accounts (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX acl_rules_deleted ON acl_rules (deleted_at) WHERE deleted_at IS NOT NULL;
