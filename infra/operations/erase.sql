-- Each statement is one transaction's whole work on one table, and repeating it changes nothing. Those that take job IDs are given some
-- hundred, so that none takes long.

-- name: known_jobs(organization_id)
-- The jobs that any table has a row of for the organization, in the order in which they are gone through. Jobs of others may be among
-- them: each statement looks whose a row is.
SELECT job_id FROM customization_jobs WHERE organization_id = :organization_id
UNION
SELECT job_id FROM job_requests WHERE organization_id = :organization_id
UNION
SELECT job_id FROM quota_ledger WHERE organization_id = :organization_id
UNION
SELECT job_id FROM failed_events WHERE organization_id = :organization_id AND job_id IS NOT NULL
UNION
SELECT job_id FROM early_cancellations WHERE organization_id = :organization_id
ORDER BY job_id;

-- name: live_of(organization_id, job_ids)
-- Those of some jobs whose newest run has not ended, with that run. What is older than the pipeline cannot be cancelled.
SELECT known.job_id, standing.latest_run AS run
FROM unnest(:job_ids::uuid[]) AS known (job_id)
LEFT JOIN customization_jobs AS job ON job.job_id = known.job_id
CROSS JOIN LATERAL job_standing(known.job_id, 1) AS standing
WHERE (job.job_id IS NULL OR job.status IN ('pending', 'processing'))
    AND standing.latest_outcome IS NULL AND standing.owner = :organization_id
    AND (
        job.job_id IS NULL
        OR EXISTS (SELECT FROM job_events AS event WHERE event.job_id = known.job_id)
        OR EXISTS (SELECT FROM job_outcomes AS ended WHERE ended.job_id = known.job_id)
    )
ORDER BY known.job_id;

-- name: live_jobs(organization_id)
-- The organization's jobs whose newest run has not ended, as far as any table tells.
SELECT DISTINCT known.job_id
FROM (
    SELECT job_id FROM job_requests WHERE organization_id = :organization_id
    UNION
    SELECT job_id FROM quota_ledger WHERE organization_id = :organization_id
    UNION
    SELECT job_id FROM customization_jobs WHERE organization_id = :organization_id
) AS known
CROSS JOIN LATERAL job_standing(known.job_id, 1) AS standing
LEFT JOIN customization_jobs AS job ON job.job_id = known.job_id
WHERE standing.latest_outcome IS NULL AND standing.owner = :organization_id
    AND (job.job_id IS NULL OR job.status IN ('pending', 'processing'))
ORDER BY known.job_id;

-- name: exists(organization_id)$
-- Whether the backend knows the organization.
SELECT EXISTS (SELECT FROM organizations WHERE id = :organization_id);

-- name: counts(organization_id)^
-- How much there is to erase. Rows that were erased before count again: they are looked at again.
SELECT
    (SELECT count(*) FROM customization_jobs WHERE organization_id = :organization_id) AS jobs,
    (
        SELECT count(*) FROM job_events
        WHERE organization_id = :organization_id
            AND job_id IN (SELECT job.job_id FROM customization_jobs AS job WHERE job.organization_id = :organization_id)
    ) AS events,
    (
        SELECT count(*) FROM customized_activities
        WHERE job_id IN (SELECT job.job_id FROM customization_jobs AS job WHERE job.organization_id = :organization_id)
    ) AS activities,
    (
        SELECT count(*) FROM failed_events
        WHERE organization_id = :organization_id
            OR job_id IN (SELECT job.job_id FROM customization_jobs AS job WHERE job.organization_id = :organization_id)
    ) AS failed_events,
    (SELECT count(*) FROM early_cancellations WHERE organization_id = :organization_id) AS cancellations;

-- name: erase_requests(job_ids, organization_id, erased)!
-- The requests that the intake accepted.
UPDATE job_requests
SET event = jsonb_set(event, '{data,requirements}', to_jsonb(:erased::text))
WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id AND event #>> '{data,requirements}' <> :erased;

-- name: erase_wishes(job_ids, organization_id)!
-- The digests of wishes: whoever guesses a text could tell from one whether it was that.
UPDATE job_owners SET wish = NULL
WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id AND wish IS NOT NULL;

-- name: erase_events(job_ids, organization_id, erased)!
-- The archived events: wishes, reasons, messages and titles. Types, times and numbers stay, so that the archive still folds.
UPDATE job_events
SET event = jsonb_set(event, '{data}', (event -> 'data') || (
    SELECT jsonb_object_agg(field, :erased::text)
    FROM unnest(ARRAY['requirements', 'reason', 'message', 'error_message', 'title']) AS field
    WHERE event -> 'data' ->> field <> :erased
))
WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id AND EXISTS (
    SELECT FROM unnest(ARRAY['requirements', 'reason', 'message', 'error_message', 'title']) AS field
    WHERE event -> 'data' ->> field <> :erased
);

-- name: erase_early(organization_id, erased)!
-- Cancellations that came before their jobs: the reasons.
UPDATE early_cancellations
SET event = jsonb_set(event, '{data,reason}', to_jsonb(:erased::text))
WHERE organization_id = :organization_id AND event #>> '{data,reason}' <> :erased;

-- name: erase_outcomes(job_ids, organization_id, erased)!
-- The terminal facts, from which lost events are published again.
UPDATE job_outcomes AS ended
SET fact = jsonb_set(fact, '{data}', (fact -> 'data') || (
    SELECT jsonb_object_agg(field, :erased::text)
    FROM unnest(ARRAY['reason', 'message', 'error_message']) AS field
    WHERE fact -> 'data' ->> field <> :erased
))
WHERE job_id = ANY(:job_ids) AND fact #>> '{data,organization_id}' = :organization_id AND EXISTS (
    SELECT FROM unnest(ARRAY['reason', 'message', 'error_message']) AS field
    WHERE fact -> 'data' ->> field <> :erased
);

-- name: erase_jobs(job_ids, organization_id, erased)!
-- The read model, as a fold of the erased archive makes it.
UPDATE customization_jobs
SET requirements = CASE WHEN requirements IS NOT NULL THEN :erased END,
    error_message = CASE WHEN error_message IS NOT NULL THEN :erased END,
    updated_at = now()
WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id
    AND (requirements <> :erased OR error_message <> :erased);

-- name: erase_activities(job_ids, organization_id, erased)!
-- The three activities of each job. Their numbers stay, since a completed job has three.
UPDATE customized_activities AS activity
SET title = :erased, description = :erased, materials = '[]', steps = '[]', objective = :erased
FROM customization_jobs AS job
WHERE activity.job_id = ANY(:job_ids) AND job.job_id = activity.job_id AND job.organization_id = :organization_id
    AND (activity.title, activity.description) IS DISTINCT FROM (:erased, :erased);

-- name: erase_line(job_ids, organization_id, erased)!
-- Runs that waited for their turn or were under way. They have ended, so the dispatch removes the rows.
UPDATE dispatch_runs SET event = convert_to(:erased, 'UTF8')
WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id AND ended;

-- name: failed_events_of(job_ids, organization_id, erased)
-- The dead letters of some jobs.
SELECT id FROM failed_events
WHERE job_id = ANY(:job_ids) AND error_message <> :erased AND (
    organization_id = :organization_id
    OR (organization_id IS NULL AND EXISTS (
        SELECT FROM customization_jobs AS job
        WHERE job.job_id = failed_events.job_id AND job.organization_id = :organization_id
    ))
);

-- name: failed_events_of_no_job(organization_id, erased, at_once)
-- The dead letters of no job, so many at once.
SELECT id FROM failed_events
WHERE organization_id = :organization_id AND job_id IS NULL AND error_message <> :erased
LIMIT :at_once;

-- name: erase_failed_events(ids, erased, operator)!
-- What has no bytes any more cannot be replayed, so an open one is discarded.
UPDATE failed_events
SET event = NULL,
    headers = '{}',
    error_message = :erased,
    traceback = NULL,
    discarded_at = coalesce(discarded_at, now()),
    discarded_occurrences = greatest(discarded_occurrences, occurrences),
    discarded_because = coalesce(discarded_because, :erased),
    discarded_by = coalesce(discarded_by, :operator)
WHERE id = ANY(:ids::uuid[]);

-- name: forget_webhooks(organization_id)!
-- Has what was told until now not be told again: its deliveries are deleted next. The endpoints are locked before the deliveries, as
-- whoever notes a try does.
UPDATE webhook_endpoints SET compared_from = clock_timestamp() WHERE organization_id = :organization_id;

-- name: delete_webhooks(organization_id, at_once)$
-- What its endpoints were sent, and what they wait for, so many at once; how many there were. Bodies hold reasons and messages. The
-- endpoints stay.
WITH found AS (
    SELECT sent.endpoint_id, sent.event_id
    FROM webhook_endpoints AS one
    JOIN webhook_deliveries AS sent ON sent.endpoint_id = one.id
    WHERE one.organization_id = :organization_id
    LIMIT :at_once
), gone AS (
    DELETE FROM webhook_deliveries AS sent USING found
    WHERE sent.endpoint_id = found.endpoint_id AND sent.event_id = found.event_id
    RETURNING sent.event_id
)
SELECT count(*) FROM gone;

-- name: delete_scheduled(job_ids, organization_id)!
-- Records that wait for their time. Their jobs have ended; facts among them are published again from their outcomes.
DELETE FROM scheduled_events
WHERE key IN (
    SELECT convert_to(job_id::text, 'UTF8') FROM customization_jobs
    WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id
    UNION
    SELECT convert_to(job_id::text, 'UTF8') FROM job_requests
    WHERE job_id = ANY(:job_ids) AND organization_id = :organization_id
);
