-- What credentials are found by that are to be looked after.

-- Accounts that an operator made, by their last use: those that it left behind.
CREATE INDEX service_accounts_orphans ON service_accounts (organization_id, coalesce(last_used_at, created_at))
WHERE deleted_at IS NULL AND json_extract(labels, '$."sealpod.dev/owner"') IS NOT NULL;

-- Keys that die by the clock: those to be removed once they have.
CREATE INDEX api_keys_expires_at ON api_keys (expires_at) WHERE expires_at IS NOT NULL;
