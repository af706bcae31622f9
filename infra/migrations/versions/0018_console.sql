-- Whoever signed in to the console, and until when. Secrets are kept as hashes: who reads this table can be nobody.
CREATE TABLE console_sessions (
    secret_hash bytea PRIMARY KEY,
    subject text NOT NULL,
    role text NOT NULL CHECK (role IN ('operator', 'viewer')),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX console_sessions_expires_at ON console_sessions (expires_at);

-- Links that sign in once, made by whoever can run a command on the machine.
CREATE TABLE console_links (
    secret_hash bytea PRIMARY KEY,
    subject text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
