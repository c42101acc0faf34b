-- The log is read by what its entries are about, and that is random: an index over all of it costs a page of the disk
-- for each entry, three times what the entry itself costs. So finished stretches of a chain, the runs, are indexed each
-- by itself and in order; what follows the last of them is short and read as it is. See docs/adr/0013-runs-of-the-audit-log.md.
DROP INDEX audit_entries_action;
DROP INDEX audit_entries_actor;
DROP INDEX audit_entries_resource;

CREATE TABLE audit_runs (
    id       INTEGER PRIMARY KEY,
    chain    BLOB    NOT NULL CHECK (length(chain) = 16),
    -- From one `seq` to another, both included.
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL CHECK (last >= first),
    -- 0 while its lists are being written: nobody reads them yet.
    complete INTEGER NOT NULL CHECK (complete IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX audit_runs_of_chain ON audit_runs (chain, last);

CREATE TABLE audit_lists (
    run     INTEGER NOT NULL,
    -- Whose entries: empty for those of everybody, else `a` and the id of an actor, or `r` and the id of a resource.
    subject BLOB    NOT NULL CHECK (length(subject) IN (0, 17)),
    action  TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (run, subject, action, seq)
) STRICT, WITHOUT ROWID;
