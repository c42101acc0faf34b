-- Stretches of a chain that were exported, after which they may go; that they did is what the deleted rows cannot say any more.
-- The entry behind the last stretch is checked against its head, and each row against its MAC, so that nobody takes entries away
-- unseen by writing one here. See docs/adr/0024-old-entries-of-the-audit-log.md.
CREATE TABLE audit_cuts (
    chain    BLOB    NOT NULL CHECK (length(chain) = 16),
    -- From one `seq` to another, both included, and the hashes before and at the end.
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL CHECK (last >= first),
    previous BLOB    NOT NULL CHECK (length(previous) = 32),
    head     BLOB    NOT NULL CHECK (length(head) = 32),
    -- Id of the archive that has them.
    export   BLOB    NOT NULL CHECK (length(export) = 16),
    cut_at   INTEGER NOT NULL,
    mac      BLOB    NOT NULL CHECK (length(mac) = 32),
    PRIMARY KEY (chain, last)
) STRICT, WITHOUT ROWID;

DROP TRIGGER audit_entries_no_delete;
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
WHEN NOT EXISTS (SELECT 1 FROM audit_cuts WHERE chain = OLD.chain AND last >= OLD.seq)
BEGIN
    SELECT raise(ABORT, 'audit entries are deleted only once they were exported');
END;
