-- name: sweep(most)!
-- Remove tickets that were not used in time. What another process removes just now is left to it.
DELETE FROM event_tickets
WHERE secret_hash IN (
    SELECT secret_hash FROM event_tickets WHERE expires_at < now() ORDER BY expires_at LIMIT :most FOR UPDATE SKIP LOCKED
);

-- name: add(secret_hash, job_id, organization_id, life)$
-- Keep a ticket, and return when it ends. Postgres's clock counts, since another process may be shown it.
INSERT INTO event_tickets (secret_hash, job_id, organization_id, expires_at)
VALUES (:secret_hash, :job_id, :organization_id, now() + :life)
RETURNING expires_at;

-- name: holder(secret_hash, job_id)$
-- Return whose ticket it is, which stays good.
SELECT organization_id FROM event_tickets
WHERE secret_hash = :secret_hash AND job_id = :job_id AND expires_at > now();

-- name: use(secret_hash, job_id)$
-- Take a ticket away, and return whose it was. Of two who show it at once, the second waits and finds nothing.
DELETE FROM event_tickets
WHERE secret_hash = :secret_hash AND job_id = :job_id AND expires_at > now()
RETURNING organization_id;
