-- name: gates()
-- Every endpoint that has ever named a time, and for how long it takes no calls yet.
-- One that was closed in the future, by a clock that was set back since, is open.
SELECT
    endpoint,
    closed_until,
    CASE WHEN closed_at <= clock_timestamp() THEN greatest(closed_until - clock_timestamp(), interval '0')
    ELSE interval '0' END AS closed_for,
    reason
FROM llm_gate ORDER BY endpoint;

-- name: open_gates(endpoints)
-- Opens gates; those that are open already are left out.
UPDATE llm_gate SET closed_until = clock_timestamp()
WHERE endpoint = ANY (:endpoints::text[]) AND closed_until > clock_timestamp()
RETURNING endpoint;

-- name: close_gate(endpoint, lasts, reason)!
-- Closes a gate, or keeps it closed for as long.
INSERT INTO llm_gate (endpoint, closed_until, closed_at, reason)
VALUES (:endpoint, clock_timestamp() + :lasts::interval, clock_timestamp(), :reason)
ON CONFLICT (endpoint) DO UPDATE SET
    closed_until = excluded.closed_until, closed_at = excluded.closed_at, reason = excluded.reason;
