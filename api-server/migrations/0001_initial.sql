-- Times are microseconds since 1970-01-01T00:00:00Z. Ids are UUIDs of 16 bytes. Names are unique among live rows only,
-- so a deleted name can be used again. `sealed` is an envelope of crypto/envelope.rs: no value is stored in clear.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE organizations (
    id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX organizations_live_name ON organizations (name) WHERE deleted_at IS NULL;

-- A project is what the management plane calls an application.
CREATE TABLE projects (
    id              BLOB    PRIMARY KEY CHECK (length(id) = 16),
    organization_id BLOB    NOT NULL REFERENCES organizations (id),
    slug            TEXT    NOT NULL,
    display_name    TEXT    NOT NULL,
    description     TEXT,
    labels          TEXT    NOT NULL CHECK (json_valid(labels)),
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX projects_live_slug ON projects (organization_id, slug) WHERE deleted_at IS NULL;

CREATE TABLE environments (
    id           BLOB    PRIMARY KEY CHECK (length(id) = 16),
    project_id   BLOB    NOT NULL REFERENCES projects (id),
    slug         TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    labels       TEXT    NOT NULL CHECK (json_valid(labels)),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    deleted_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX environments_live_slug ON environments (project_id, slug) WHERE deleted_at IS NULL;

-- A secret is a slot: a name in a project. Its values are versions.
CREATE TABLE secrets (
    id          BLOB    PRIMARY KEY CHECK (length(id) = 16),
    project_id  BLOB    NOT NULL REFERENCES projects (id),
    name        TEXT    NOT NULL,
    description TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    deleted_at  INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX secrets_live_name ON secrets (project_id, name) WHERE deleted_at IS NULL;

-- The value stands last, so that what decides whether a version is active is read without it.
CREATE TABLE versions (
    id              BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    secret_id       BLOB    NOT NULL REFERENCES secrets (id),
    environment_id  BLOB    NOT NULL REFERENCES environments (id),
    number          INTEGER NOT NULL CHECK (number >= 1),
    is_enabled      INTEGER NOT NULL CHECK (is_enabled IN (0, 1)),
    not_before      INTEGER,
    expires_at      INTEGER,
    created_at      INTEGER NOT NULL,
    created_by_type TEXT    NOT NULL,
    created_by_id   BLOB,
    created_by_name TEXT    NOT NULL,
    sealed          BLOB    NOT NULL,
    CHECK (expires_at IS NULL OR not_before IS NULL OR expires_at > not_before)
) STRICT;
CREATE UNIQUE INDEX versions_number ON versions (secret_id, environment_id, number);
-- Versions that the passing of time alone will make active.
CREATE INDEX versions_pending ON versions (environment_id, not_before) WHERE not_before IS NOT NULL;

-- What the organization plane's DELETE leaves: the versions that a secret has in one environment are hidden, up to the
-- newest. Taking the row away brings them back. Numbering goes on behind it, also when the versions themselves are
-- purged.
CREATE TABLE hidden_versions (
    id              BLOB    PRIMARY KEY CHECK (length(id) = 16),
    secret_id       BLOB    NOT NULL REFERENCES secrets (id),
    environment_id  BLOB    NOT NULL REFERENCES environments (id),
    from_number     INTEGER NOT NULL CHECK (from_number >= 1),
    to_number       INTEGER NOT NULL CHECK (to_number >= from_number),
    deleted_at      INTEGER NOT NULL,
    deleted_by_type TEXT    NOT NULL,
    deleted_by_id   BLOB,
    deleted_by_name TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX hidden_versions_range ON hidden_versions (secret_id, environment_id, to_number);

CREATE TABLE configurations (
    id             BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    environment_id BLOB    NOT NULL REFERENCES environments (id),
    key            TEXT    NOT NULL,
    description    TEXT,
    -- Counts the values that this entry has had; revision_id names the one that it has now.
    revision       INTEGER NOT NULL CHECK (revision >= 1),
    revision_id    BLOB    NOT NULL CHECK (length(revision_id) = 16),
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    deleted_at     INTEGER,
    sealed         BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX configurations_live_key ON configurations (environment_id, key) WHERE deleted_at IS NULL;

CREATE TABLE service_accounts (
    id              BLOB    PRIMARY KEY CHECK (length(id) = 16),
    organization_id BLOB    NOT NULL REFERENCES organizations (id),
    -- The one project that the account may reach; null: the whole organization.
    project_id      BLOB    REFERENCES projects (id),
    name            TEXT    NOT NULL,
    labels          TEXT    NOT NULL CHECK (json_valid(labels)),
    expires_at      INTEGER,
    last_used_at    INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX service_accounts_live_name ON service_accounts (organization_id, name) WHERE deleted_at IS NULL;

-- Keys of service accounts and of applications. A key is dead from `expires_at` on; a revoked one is removed.
CREATE TABLE api_keys (
    id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
    account_id BLOB    REFERENCES service_accounts (id),
    project_id BLOB    REFERENCES projects (id),
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    prefix     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    CHECK ((account_id IS NULL) <> (project_id IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest);
CREATE INDEX api_keys_account ON api_keys (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX api_keys_project ON api_keys (project_id) WHERE project_id IS NOT NULL;

CREATE TABLE acl_rules (
    id              BLOB    PRIMARY KEY CHECK (length(id) = 16),
    organization_id BLOB    NOT NULL REFERENCES organizations (id),
    subject_type    TEXT    NOT NULL CHECK (subject_type IN ('user', 'service_account')),
    subject_id      BLOB    NOT NULL CHECK (length(subject_id) = 16),
    project_pattern TEXT    NOT NULL,
    env_pattern     TEXT    NOT NULL,
    key_pattern     TEXT    NOT NULL,
    configurations  INTEGER NOT NULL CHECK (configurations IN (0, 1)),
    permission      TEXT    NOT NULL CHECK (permission IN ('read', 'write', 'admin')),
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX acl_rules_live ON acl_rules
    (subject_id, organization_id, subject_type, project_pattern, env_pattern, key_pattern) WHERE deleted_at IS NULL;
CREATE INDEX acl_rules_organization ON acl_rules (organization_id) WHERE deleted_at IS NULL;

-- One chain an organization and one of the instance (the nil UUID). See audit/chain.rs for the hash.
CREATE TABLE audit_entries (
    chain         BLOB    NOT NULL CHECK (length(chain) = 16),
    seq           INTEGER NOT NULL,
    id            BLOB    NOT NULL CHECK (length(id) = 16),
    created_at    INTEGER NOT NULL,
    action        TEXT    NOT NULL,
    actor_type    TEXT    NOT NULL,
    actor_id      BLOB,
    actor_name    TEXT    NOT NULL,
    resource_type TEXT    NOT NULL,
    resource_id   BLOB,
    resource_name TEXT,
    project       TEXT,
    environment   TEXT,
    outcome       TEXT    NOT NULL,
    ip            TEXT,
    user_agent    TEXT,
    request_id    TEXT,
    metadata      TEXT    NOT NULL,
    hash          BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (chain, seq)
) STRICT, WITHOUT ROWID;

-- Against mistakes, not against whoever owns the file: the keyed hashes are for that.
CREATE TRIGGER audit_entries_append_only BEFORE INSERT ON audit_entries
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit_entries WHERE chain = NEW.chain)
BEGIN
    SELECT raise(ABORT, 'audit entries are numbered without gaps');
END;
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
BEGIN
    SELECT raise(ABORT, 'audit entries are never changed');
END;
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
BEGIN
    SELECT raise(ABORT, 'audit entries are never deleted');
END;
