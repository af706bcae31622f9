-- name: begin(secret_hash, subject, role, now, expires_at)!
-- Begin a session.
INSERT INTO console_sessions (secret_hash, subject, role, created_at, expires_at)
VALUES (:secret_hash, :subject, :role, :now, :expires_at);

-- name: find(secret_hashes)
-- Sessions, ended ones by time included.
SELECT secret_hash, subject, role, expires_at FROM console_sessions WHERE secret_hash = ANY(:secret_hashes::bytea[]);

-- name: end(secret_hash)!
-- End a session.
DELETE FROM console_sessions WHERE secret_hash = :secret_hash;

-- name: sweep_sessions(now)!
-- Remove what has ended by time.
DELETE FROM console_sessions WHERE expires_at < :now;

-- name: sweep_links(now)!
-- Remove links that were not used in time.
DELETE FROM console_links WHERE expires_at < :now;

-- name: add_link(secret_hash, subject, now, expires_at)!
-- Keep a link.
INSERT INTO console_links (secret_hash, subject, created_at, expires_at)
VALUES (:secret_hash, :subject, :now, :expires_at);

-- name: use_link(secret_hash, now)^
-- Take a link away, whose it was; it cannot be used again.
DELETE FROM console_links WHERE secret_hash = :secret_hash AND expires_at > :now RETURNING subject;
