-- Login by e-mail code. Addresses and networks stand here as keyed hashes only: what somebody tries to sign in as is
-- nobody's business before it is proved, and a row has one size whatever was sent.

-- Codes that were asked for and are neither used nor dead. At most three an address.
CREATE TABLE login_codes (
    id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
    address    BLOB    NOT NULL CHECK (length(address) = 32),
    -- Where it was asked for from.
    network    BLOB    NOT NULL CHECK (length(network) = 32),
    -- Whether this address had signed in from that network before.
    familiar   INTEGER NOT NULL CHECK (familiar IN (0, 1)),
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    -- Wrong guesses from other networks.
    misses     INTEGER NOT NULL CHECK (misses >= 0),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_codes_address ON login_codes (address);
CREATE INDEX login_codes_expires_at ON login_codes (expires_at);

-- What is counted per window of time, each kind under a key of its own. A window begins with the first that is counted
-- in it; a row whose window is over is as good as none, and is removed along with later counts.
CREATE TABLE login_counters (
    kind    INTEGER NOT NULL,
    key     BLOB    NOT NULL CHECK (length(key) = 32),
    count   INTEGER NOT NULL CHECK (count >= 0),
    ends_at INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX login_counters_ends_at ON login_counters (ends_at);
