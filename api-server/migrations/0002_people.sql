-- People: who may sign in, who has signed in, and what they may do where.

-- An address is trimmed and in lower case. An invitation makes the row, the first login activates it.
CREATE TABLE users (
    id           BLOB    PRIMARY KEY CHECK (length(id) = 16),
    email        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    activated_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX users_email ON users (email);

-- A session is dead from `expires_at` on; one that was ended is removed.
CREATE TABLE sessions (
    id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
    user_id    BLOB    NOT NULL REFERENCES users (id),
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_digest ON sessions (digest);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE members (
    organization_id BLOB    NOT NULL REFERENCES organizations (id),
    user_id         BLOB    NOT NULL REFERENCES users (id),
    role            TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'member')),
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (organization_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_user ON members (user_id);
CREATE INDEX members_owners ON members (organization_id) WHERE role = 'owner';
