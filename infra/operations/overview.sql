-- name: now(now, bound)^
-- What there is at this moment: jobs that have not ended, failed events that are open, what is published later, and when anything
-- last happened to a job. Each number is counted up to a bound, each time is read from an index's end.
SELECT
    (
        SELECT count(*) FROM (SELECT FROM customization_jobs WHERE job_state(status) = 'pending' LIMIT :bound) AS bounded
    ) AS pending,
    (
        SELECT count(*) FROM (SELECT FROM customization_jobs WHERE job_state(status) = 'processing' LIMIT :bound) AS bounded
    ) AS processing,
    (SELECT archived_at FROM job_events ORDER BY sequence DESC LIMIT 1) AS last_event_at,
    (
        SELECT count(*) FROM (SELECT FROM failed_events WHERE state = 'open' LIMIT :bound) AS bounded
    ) AS failed,
    (SELECT count(*) FROM (SELECT FROM scheduled_events LIMIT :bound) AS bounded) AS due,
    (
        SELECT count(*) FROM (SELECT FROM scheduled_events WHERE due_at <= :now LIMIT :bound) AS bounded
    ) AS overdue,
    (SELECT min(due_at) FROM scheduled_events) AS first_due_at;

-- name: periods(hour, day, month, now)
-- How many jobs began and ended since three times, by state and time taken.
SELECT
    state,
    took,
    coalesce(sum(jobs) FILTER (WHERE at >= :hour), 0)::bigint AS hour,
    coalesce(sum(jobs) FILTER (WHERE at >= :day), 0)::bigint AS day,
    sum(jobs)::bigint AS month
FROM job_counts
WHERE at >= :month AND at <= :now
GROUP BY state, took;

-- name: bars(since, now, width)
-- How many jobs began and ended in each of the times that a chart shows.
SELECT
    date_bin(:width::interval, at, :since::timestamptz) AS at,
    coalesce(sum(jobs) FILTER (WHERE state = 'asked'), 0)::bigint AS asked,
    coalesce(sum(jobs) FILTER (WHERE state = 'completed'), 0)::bigint AS completed,
    coalesce(sum(jobs) FILTER (WHERE state = 'failed'), 0)::bigint AS failed,
    coalesce(sum(jobs) FILTER (WHERE state = 'cancelled'), 0)::bigint AS cancelled
FROM job_counts
WHERE at >= :since AND at <= :now
GROUP BY 1 ORDER BY 1;

-- name: failed_kinds(bound)
-- The latest open failed events, up to a bound, by stage and error.
SELECT stage, error_type, count(*) AS events, max(last_failed_at) AS last_failed_at
FROM (
    SELECT stage, error_type, last_failed_at FROM failed_events
    WHERE state = 'open' ORDER BY last_failed_at DESC, id DESC LIMIT :bound
) AS latest
GROUP BY stage, error_type ORDER BY events DESC, stage, error_type LIMIT 20;

-- name: spent(period)^
-- What the LLM calls of a month have cost, of all organizations.
SELECT
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
    coalesce(sum(cost), 0)::bigint AS cost,
    coalesce(sum(unpriced_calls), 0)::bigint AS unpriced_calls,
    (SELECT min(currency) FROM llm_prices) AS currency
FROM llm_usage WHERE period = :period;

-- name: verified()^
-- What `teamfit verify` has found last.
SELECT at, settled, ok, violated FROM verify_reports ORDER BY at DESC LIMIT 1;
