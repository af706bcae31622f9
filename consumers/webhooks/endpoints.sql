-- name: add(id, organization_id, url, types, secret, now)!
-- A new endpoint.
INSERT INTO webhook_endpoints (id, organization_id, url, types, secret, created_at, compared_from)
VALUES (:id, :organization_id, :url, :types, :secret, :now, :now);

-- name: lock_organization(organization_id)!
-- Has endpoints of an organization be added one after the other, so that their number is known.
SELECT pg_advisory_xact_lock(hashtextextended('webhooks:' || :organization_id, 0));

-- name: count(organization_id)$
-- How many endpoints an organization has.
SELECT count(*) FROM webhook_endpoints WHERE organization_id = :organization_id;

-- name: endpoints(organization_id, id, after_organization, after_at, after_id, limit)
-- Endpoints with what waits for each, up to 10,000; all, or those of an organization, or one; a page of them after a place.
SELECT
    one.id, one.organization_id, one.url, one.types, one.created_at,
    CASE WHEN one.secret_before_until > now() THEN one.secret_before_until END AS secret_before_until,
    one.failing_since, one.disabled_at, one.disabled_because,
    (
        SELECT count(*) FROM (
            SELECT FROM webhook_deliveries AS waits
            WHERE waits.endpoint_id = one.id AND waits.delivered_at IS NULL AND waits.given_up_at IS NULL
            ORDER BY waits.due_at LIMIT 10000
        ) AS bounded
    ) AS waiting
FROM webhook_endpoints AS one
WHERE (:organization_id::text IS NULL OR one.organization_id = :organization_id)
    AND (:id::uuid IS NULL OR one.id = :id)
    AND (
        :after_id::uuid IS NULL
        OR (one.organization_id, one.created_at, one.id) > (:after_organization::text, :after_at::timestamptz, :after_id)
    )
ORDER BY one.organization_id, one.created_at, one.id
LIMIT :limit;

-- name: lock(id)!
-- Has whoever changes an endpoint wait for another who does.
SELECT FROM webhook_endpoints WHERE id = :id FOR NO KEY UPDATE;

-- name: rotate(id, secret, until)!
-- Signs with a new secret; the one before signs too for a while.
UPDATE webhook_endpoints SET secret_before = secret, secret_before_until = :until, secret = :secret WHERE id = :id;

-- name: disable(id, because, now)$
-- Sends nothing to an endpoint any more; returns its organization, unless it was disabled before.
UPDATE webhook_endpoints SET disabled_at = :now, disabled_because = :because
WHERE id = :id AND disabled_at IS NULL
RETURNING organization_id;

-- name: enable(id)!
-- Sends to an endpoint again.
UPDATE webhook_endpoints SET disabled_at = NULL, disabled_because = NULL, failing_since = NULL WHERE id = :id;

-- name: remove(id)!
-- Forgets an endpoint, and with it all that was or would be sent there.
DELETE FROM webhook_endpoints WHERE id = :id;

-- name: works(id)!
-- Notes that an endpoint took what it was sent.
UPDATE webhook_endpoints SET failing_since = NULL WHERE id = :id AND failing_since IS NOT NULL;

-- name: fails(id, now)$
-- Notes that an endpoint did not; returns since when it takes nothing.
UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, :now) WHERE id = :id
RETURNING failing_since;

-- name: listening(organization_ids)
-- Which of these organizations have endpoints.
SELECT DISTINCT organization_id FROM webhook_endpoints WHERE organization_id = ANY(:organization_ids::text[]);
