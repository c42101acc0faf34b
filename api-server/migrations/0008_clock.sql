-- Accounts that end by the clock: those whose keys go once they have.
CREATE INDEX service_accounts_expires_at ON service_accounts (expires_at) WHERE expires_at IS NOT NULL;
