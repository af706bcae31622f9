-- name: set(kind, subject, organization_id, value, reason, set_by, lasts)!
-- Wants something of the fleet; what was wanted of the same before is replaced.
INSERT INTO fleet_controls AS known (kind, subject, organization_id, value, reason, set_by, set_at, expires_at)
VALUES (:kind, :subject, :organization_id, :value, :reason, :set_by, clock_timestamp(), clock_timestamp() + :lasts::interval)
ON CONFLICT (kind, subject, organization_id) DO UPDATE SET
    value = excluded.value, reason = excluded.reason, set_by = excluded.set_by, set_at = excluded.set_at,
    expires_at = excluded.expires_at;

-- name: unset(kind, subject, organization_id)^
-- Wants it no more; returns what was wanted, if it had not expired.
DELETE FROM fleet_controls
WHERE kind = :kind AND subject = :subject AND organization_id = :organization_id
RETURNING reason, set_by, set_at, coalesce(expires_at > clock_timestamp(), true) AS was_in_force;

-- name: forget_expired()!
-- Deletes what has expired a day ago.
DELETE FROM fleet_controls WHERE expires_at < clock_timestamp() - interval '1 day';

-- name: tell(channel)!
-- Has every process look at once, when this commits.
SELECT pg_notify(:channel, '');

-- name: processes()
-- Each process, the latest sign of life first.
SELECT
    process, kind, host, pid, version, stages, started_at, seen_at, ended_at, rss_bytes, log_level, doing,
    extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s
FROM fleet_processes ORDER BY ended_at IS NOT NULL, kind, stages, started_at, process;

-- name: waiting(organization_id)^
-- The runs that a pause would concern, of an organization or of all, up to 10,000 of each.
SELECT
    (SELECT count(*) FROM (
        SELECT FROM dispatch_runs WHERE state <> 'released' AND NOT ended
            AND (:organization_id::text IS NULL OR organization_id = :organization_id) LIMIT 10000
    ) AS one) AS in_line,
    (SELECT count(*) FROM (
        SELECT FROM dispatch_runs WHERE state = 'released' AND NOT ended
            AND (:organization_id::text IS NULL OR organization_id = :organization_id) LIMIT 10000
    ) AS one) AS released;

-- name: knows_endpoint(endpoint)$
-- Whether an LLM endpoint of this name was ever called, or has closed its gate, or a worker would call it.
SELECT EXISTS (SELECT FROM llm_gate WHERE endpoint = :endpoint)
    OR EXISTS (
        SELECT FROM fleet_processes AS one CROSS JOIN jsonb_array_elements(one.doing) AS stage (told)
        WHERE stage.told -> 'endpoints' ? :endpoint
    )
    OR EXISTS (SELECT FROM llm_hours WHERE endpoint = :endpoint);

-- name: knows_organization(organization_id)$
-- Whether the backend, or the line, knows an organization.
SELECT EXISTS (SELECT FROM organizations WHERE id = :organization_id)
    OR EXISTS (SELECT FROM dispatch_organizations WHERE organization_id = :organization_id);
