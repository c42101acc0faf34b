-- Requests that carried an `Idempotency-Key`, for a day. `scope` is a keyed hash over the caller, the method, the path and
-- the key, `fingerprint` one over what was asked. The row is written in the transaction of the change itself; the sealed
-- answer follows, unless it holds a key, which is never kept.
CREATE TABLE idempotency (
    scope       BLOB    NOT NULL CHECK (length(scope) = 32),
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    -- The one execution that this row is of.
    attempt     BLOB    NOT NULL CHECK (length(attempt) = 16),
    -- What the change made, by its audit entry.
    resource_id BLOB,
    created_at  INTEGER NOT NULL,
    sealed      BLOB
) STRICT;
CREATE UNIQUE INDEX idempotency_scope ON idempotency (scope);
CREATE INDEX idempotency_created_at ON idempotency (created_at);

-- The feed of changes reads the log in its order, past the reads of values, which are most of it and which do not pay
-- for this.
CREATE INDEX audit_entries_changes ON audit_entries (chain, seq)
    WHERE outcome = 'success' AND action <> 'secret.read' AND action <> 'secret.list';
-- Where the clock alone makes a change.
CREATE INDEX versions_begin ON versions (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX versions_end ON versions (expires_at) WHERE expires_at IS NOT NULL;
