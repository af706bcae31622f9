-- name: keep(ids, topics, stages, reasons, keys, events, headers, error_types, error_messages, tracebacks, attempts, occurrences, first_times, last_times, event_ids, event_types, job_ids, runs, organization_ids, trace_ids, failure_ids, failure_times)!
-- Writes dead letters, or adds what is new about those that are there. A letter that is delivered again carries a time
-- that is known; a new failure of the same entry carries one that is not. Only the first and last times are kept, so a
-- failure is new if it lies outside of them: letters of one entry that come out of order may be counted too few, never
-- too many.
INSERT INTO failed_events (
    id, topic, stage, reason, key, event, headers, error_type, error_message, traceback, attempts, occurrences,
    first_failed_at, last_failed_at, event_id, event_type, job_id, run, organization_id, trace_id
)
SELECT
    id, topic, stage, reason, key, event, headers, error_type, error_message, traceback, attempts, occurrences,
    first_failed_at, last_failed_at, event_id, event_type, job_id, run, organization_id, trace_id
FROM unnest(
    :ids::uuid[], :topics::text[], :stages::text[], :reasons::text[], :keys::bytea[], :events::bytea[],
    :headers::jsonb[], :error_types::text[], :error_messages::text[], :tracebacks::text[], :attempts::int[],
    :occurrences::int[], :first_times::timestamptz[], :last_times::timestamptz[], :event_ids::text[],
    :event_types::text[], :job_ids::uuid[], :runs::int[], :organization_ids::text[], :trace_ids::text[]
) AS letter (
    id, topic, stage, reason, key, event, headers, error_type, error_message, traceback, attempts, occurrences,
    first_failed_at, last_failed_at, event_id, event_type, job_id, run, organization_id, trace_id
)
ON CONFLICT (id) DO UPDATE SET
    occurrences = failed_events.occurrences + (
        SELECT count(*)
        FROM unnest(:failure_ids::uuid[], :failure_times::timestamptz[]) AS failure (id, failed_at)
        WHERE failure.id = failed_events.id
            AND (failure.failed_at > failed_events.last_failed_at OR failure.failed_at < failed_events.first_failed_at)
    ),
    first_failed_at = least(failed_events.first_failed_at, excluded.first_failed_at),
    (reason, headers, error_type, error_message, traceback, attempts, last_failed_at) = (
        SELECT latest.*
        FROM (
            VALUES
            (
                excluded.reason, excluded.headers, excluded.error_type, excluded.error_message, excluded.traceback,
                excluded.attempts, excluded.last_failed_at
            ),
            (
                failed_events.reason, failed_events.headers, failed_events.error_type, failed_events.error_message,
                failed_events.traceback, failed_events.attempts, failed_events.last_failed_at
            )
        ) AS latest (reason, headers, error_type, error_message, traceback, attempts, last_failed_at)
        ORDER BY latest.last_failed_at DESC
        LIMIT 1
    )
WHERE excluded.last_failed_at > failed_events.last_failed_at
    OR excluded.first_failed_at < failed_events.first_failed_at;

-- name: keep_bytes(id, topic, stage, key, event, error_type, error_message, now)!
-- Writes a dead letter of which no more can be said; one that is there already stays as it is.
INSERT INTO failed_events (
    id, topic, stage, reason, key, event, error_type, error_message, attempts, first_failed_at, last_failed_at
)
VALUES (:id, :topic, :stage, 'given_up', :key, :event, :error_type, :error_message, 1, :now, :now)
ON CONFLICT (id) DO NOTHING;

-- name: discard(ids, occurrences, because, discarded_by, now)$
-- Discards failed events that are open and have not failed again since they were looked at; returns which. In the order
-- of IDs, as the failures stage locks them.
WITH looked_at AS (
    SELECT failed.id, failed.occurrences
    FROM failed_events AS failed
    JOIN unnest(:ids::uuid[], :occurrences::int[]) AS seen (id, occurrences) USING (id, occurrences)
    WHERE failed.state = 'open'
    ORDER BY failed.id
    FOR UPDATE OF failed
), discarded AS (
    UPDATE failed_events AS failed
    SET discarded_at = :now,
        discarded_occurrences = looked_at.occurrences,
        discarded_because = :because,
        discarded_by = :discarded_by
    FROM looked_at
    WHERE failed.id = looked_at.id
    RETURNING failed.id
)
SELECT coalesce(array_agg(id), '{}') FROM discarded;

-- name: mark_replayed(ids, occurrences, now)!
-- Notes that events were sent again, and how often they had failed until then.
UPDATE failed_events AS failed
SET replayed_at = :now, replayed_occurrences = sent.occurrences
FROM unnest(:ids::uuid[], :occurrences::int[]) AS sent (id, occurrences)
WHERE failed.id = sent.id;
