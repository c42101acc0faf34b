-- For reads of the audit log, always newest first by `seq`. Every entry pays for these, so there are only three: an actor
-- or a resource alone is read as the merge of its few actions, and a kind of resource as that of the actions that begin
-- with it.
CREATE INDEX audit_entries_action ON audit_entries (chain, action, seq);
CREATE INDEX audit_entries_actor ON audit_entries (chain, actor_id, action, seq) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_entries_resource ON audit_entries (chain, resource_id, action, seq) WHERE resource_id IS NOT NULL;

-- The entries that are older, by the clock, than the one before them: between two of these, times grow with `seq`, so a
-- time is found by halving. A table of its own costs nothing while the clock goes forward.
CREATE TABLE audit_clock_steps (
    chain BLOB    NOT NULL CHECK (length(chain) = 16),
    seq   INTEGER NOT NULL,
    PRIMARY KEY (chain, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO audit_clock_steps (chain, seq)
SELECT chain, seq
FROM (
    SELECT chain, seq, created_at, lag(created_at) OVER (PARTITION BY chain ORDER BY seq) AS before
    FROM audit_entries
)
WHERE created_at < before;
