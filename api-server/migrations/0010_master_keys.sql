-- Which master key each value needs: the bytes 2 to 9 of an envelope are its id. By these indexes a rotation finds what is
-- left to do, and a start whether it has every key, without reading the values.
CREATE INDEX versions_master_key ON versions (substr(sealed, 2, 8));
CREATE INDEX configurations_master_key ON configurations (substr(sealed, 2, 8));
CREATE INDEX idempotency_master_key ON idempotency (substr(sealed, 2, 8)) WHERE sealed IS NOT NULL;

-- The master keys under which this database has had values. One is retired once nothing needs it any more and everything was
-- found to open without it; nothing is stored under a retired key again.
CREATE TABLE master_keys (
    id            BLOB    PRIMARY KEY CHECK (length(id) = 8),
    first_used_at INTEGER NOT NULL,
    retired_at    INTEGER
) STRICT, WITHOUT ROWID;
