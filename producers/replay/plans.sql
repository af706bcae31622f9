-- name: add_plan(id, filters, created_by, now)!
-- Adds a plan without events.
INSERT INTO replay_plans (id, filters, created_by, created_at) VALUES (:id, :filters, :created_by, :now);

-- name: add_items(plan_id, stage, error_type, organization_id, job_id, reason, trace_id, since, until, topics, stages, start_topics, start_stages, start_types)!
-- Adds the open failed events that a filter finds, and says of each what would be done with it.
--
-- An event that starts a run (the pairs and types of start_…) is a rerun, unless a stage could not read it: only the stage
-- knows whether such bytes are an event. Several failed events of one job give it one rerun, the latest. Organizations take
-- turns in the order of sending, so that the many events of one do not keep those of another waiting.
WITH candidate AS (
    SELECT
        failed.id, failed.job_id, coalesce(failed.run, 1) AS run, failed.organization_id, failed.occurrences,
        failed.last_failed_at,
        EXISTS (
            SELECT FROM unnest(:topics::text[], :stages::text[]) AS destination (topic, stage)
            WHERE (destination.topic, destination.stage) = (failed.topic, failed.stage)
        ) AS has_destination,
        failed.job_id IS NOT NULL AND failed.organization_id IS NOT NULL AND EXISTS (
            SELECT FROM unnest(:start_topics::text[], :start_stages::text[], :start_types::text[])
                AS start (topic, stage, type)
            WHERE (start.topic, start.stage, start.type) = (failed.topic, failed.stage, failed.event_type)
        ) AS starts_run,
        failed.error_type NOT IN ('InvalidEvent', 'ForgedEvent', 'JobIdReused') AS is_readable
    FROM failed_events_found(
        'open', :stage, :error_type, :organization_id, :job_id, :reason, :trace_id, :since, :until
    ) AS failed
), known AS (
    SELECT
        candidate.*,
        standing.*,
        (
            SELECT ended.outcome FROM job_outcomes AS ended
            WHERE ended.job_id = candidate.job_id AND ended.run = candidate.run
        ) AS run_outcome,
        (
            SELECT count(*) FROM failed_events AS other
            WHERE other.job_id = candidate.job_id AND other.state = 'open' AND other.id <> candidate.id
        ) AS others_behind,
        row_number() OVER (
            PARTITION BY candidate.job_id, candidate.organization_id, candidate.starts_run AND candidate.is_readable
            ORDER BY candidate.run DESC, candidate.last_failed_at DESC, candidate.id
        ) AS place_in_job
    FROM candidate
    LEFT JOIN LATERAL job_standing(candidate.job_id, candidate.run) AS standing ON candidate.starts_run
), judged AS (
    SELECT
        known.*,
        CASE
            WHEN NOT has_destination THEN 'no_destination'
            WHEN NOT starts_run THEN NULL
            WHEN owner <> organization_id THEN 'other_organization'
            WHEN NOT is_readable THEN NULL
            WHEN completed THEN 'succeeded'
            WHEN latest_outcome = 'cancelled' THEN 'cancelled'
            WHEN latest_run > run AND latest_outcome IS NULL THEN 'running'
            WHEN place_in_job > 1 THEN 'same_job'
            WHEN latest_run = 2147483647 THEN 'no_run_left'
        END AS excluded_because
    FROM known
), decided AS (
    SELECT
        judged.*,
        CASE
            WHEN excluded_because IS NOT NULL THEN 'exclude'
            WHEN starts_run AND is_readable THEN 'rerun'
            ELSE 'resend'
        END AS action,
        row_number() OVER (PARTITION BY organization_id ORDER BY last_failed_at, id) AS turn
    FROM judged
)
INSERT INTO replay_plan_items (
    plan_id, position, failed_event_id, action, excluded_because, occurrences, last_failed_at, others_behind, job_id, run,
    run_outcome, latest_run, latest_outcome, next_run, ends_first
)
SELECT
    :plan_id, row_number() OVER (ORDER BY turn, organization_id, id), id, action, excluded_because, occurrences,
    last_failed_at, others_behind, job_id, run, run_outcome, latest_run, latest_outcome,
    CASE WHEN action = 'rerun' THEN latest_run + 1 END,
    action = 'rerun' AND run_outcome IS NULL
FROM decided;

-- name: unproven(plan_id, given_up, after, limit)
-- Reruns after a position whose event no stage of ours is known to have read: the transport wrote the dead letter.
SELECT item.position, failed.event, failed.headers
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id AND item.position > :after AND item.action = 'rerun' AND failed.reason <> :given_up
ORDER BY item.position
LIMIT :limit;

-- name: resend_instead(plan_id, positions)!
-- Sends events again as they were, which were to be reruns.
UPDATE replay_plan_items
SET action = 'resend', next_run = NULL, ends_first = false
WHERE plan_id = :plan_id AND position = ANY(:positions::int[]);

-- name: set_effects(id, effects)!
-- Keeps what the plan said would follow from it.
UPDATE replay_plans SET effects = :effects WHERE id = :id;

-- name: latest(limit, before)
-- Plans, the latest first. How far each is would be a count over all of its events.
SELECT
    id, state, filters, created_by, created_at, started_at, ended_at, coalesce((effects ->> 'events')::int, 0) AS events
FROM replay_plans
WHERE :before::timestamptz IS NULL OR created_at < :before
ORDER BY created_at DESC, id
LIMIT :limit;

-- name: plan(id)^
-- A plan and how far it is.
SELECT
    plan.id, plan.state, plan.filters, plan.effects, plan.created_by, plan.created_at, plan.started_at, plan.ended_at,
    count(item.position) FILTER (WHERE item.action <> 'exclude') AS total,
    count(item.sent_at) AS sent
FROM replay_plans AS plan
LEFT JOIN replay_plan_items AS item ON item.plan_id = plan.id
WHERE plan.id = :id
GROUP BY plan.id;

-- name: by_organization(plan_id)
-- The events of a plan by organization, the most first.
SELECT failed.organization_id, count(*) AS events
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id
GROUP BY failed.organization_id
ORDER BY events DESC, failed.organization_id;

-- name: by_error(plan_id)
-- The events of a plan by stage and error, the most first.
SELECT failed.stage, failed.error_type, count(*) AS events
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id
GROUP BY failed.stage, failed.error_type
ORDER BY events DESC, failed.stage, failed.error_type;

-- name: excluded(plan_id, listed)
-- Why events of a plan are not sent, how many, and of which jobs the first of them are.
SELECT
    excluded_because AS because,
    count(*) AS events,
    coalesce(array_agg(DISTINCT job_id) FILTER (WHERE job_id IS NOT NULL AND place <= :listed), '{}') AS job_ids
FROM (
    SELECT excluded_because, job_id, row_number() OVER (PARTITION BY excluded_because ORDER BY position) AS place
    FROM replay_plan_items
    WHERE plan_id = :plan_id AND action = 'exclude'
) AS left_out
GROUP BY excluded_because
ORDER BY events DESC, because;

-- name: quota(plan_id, period)
-- The units that the reruns of a plan would take, by organization, beside those that ending runs gives back, and what is
-- left in the period.
SELECT
    failed.organization_id,
    count(*) AS units,
    count(*) FILTER (
        WHERE EXISTS (
            SELECT FROM quota_ledger AS held
            WHERE held.job_id = item.job_id AND held.run < item.next_run AND held.state = 'reserved'
                AND held.period = :period
        )
    ) AS given_back,
    coalesce(subscriptions.monthly_quota, 0) AS monthly_quota,
    greatest(
        0, coalesce(subscriptions.monthly_quota, 0) - coalesce(quota_usage.reserved + quota_usage.charged, 0)
    ) AS units_left
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
LEFT JOIN subscriptions ON subscriptions.organization_id = failed.organization_id
LEFT JOIN quota_usage ON quota_usage.organization_id = failed.organization_id AND quota_usage.period = :period
WHERE item.plan_id = :plan_id AND item.action = 'rerun'
GROUP BY failed.organization_id, subscriptions.monthly_quota, quota_usage.reserved, quota_usage.charged
ORDER BY units DESC, failed.organization_id;

-- name: tokens_per_run(latest)^
-- What a run has cost lately: the average over those of the latest calls whose tokens are known, all calls of a run summed.
SELECT round(avg(tokens))::bigint AS per_run, count(*) AS runs
FROM (
    SELECT sum(prompt_tokens::bigint + completion_tokens) AS tokens
    FROM (
        SELECT job_id, run, prompt_tokens, completion_tokens
        FROM generation_attempts
        WHERE prompt_tokens IS NOT NULL AND completion_tokens IS NOT NULL
        ORDER BY finished_at DESC NULLS LAST
        LIMIT :latest
    ) AS call
    GROUP BY job_id, run
) AS cost;

-- name: sends(plan_id)
-- How many records a plan sends: reruns, runs ended before, and resends by topic and consumer group.
SELECT
    item.action,
    CASE WHEN item.action = 'resend' THEN failed.topic END AS topic,
    CASE WHEN item.action = 'resend' THEN failed.stage END AS stage,
    count(*) AS records,
    count(*) FILTER (WHERE item.ends_first) AS ends_first
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
WHERE item.plan_id = :plan_id AND item.action <> 'exclude'
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: behind(plan_id)
-- What else has failed of the jobs that a plan brings back, and is not in the plan, by stage.
SELECT other.stage, other.error_type, count(*) AS events, count(DISTINCT other.job_id) AS jobs
FROM failed_events AS other
WHERE other.state = 'open'
    AND other.job_id IN (SELECT job_id FROM replay_plan_items WHERE plan_id = :plan_id AND others_behind > 0)
    AND NOT EXISTS (
        SELECT FROM replay_plan_items AS item WHERE item.plan_id = :plan_id AND item.failed_event_id = other.id
    )
GROUP BY other.stage, other.error_type
ORDER BY events DESC, other.stage;

-- name: items(plan_id, after, limit)
-- The events of a plan one by one, in the order of sending.
SELECT
    item.position, item.failed_event_id, item.action, item.excluded_because, item.others_behind, item.job_id, item.run,
    item.next_run, item.ends_first, item.sent_at, failed.stage, failed.error_type, failed.organization_id,
    CASE
        WHEN item.sent_at IS NULL THEN NULL
        WHEN failed.occurrences > item.occurrences THEN 'failed again'
        WHEN item.action = 'resend' THEN 'sent'
        WHEN job.run >= item.next_run THEN job_state(job.status)
        ELSE 'sent'
    END AS became
FROM replay_plan_items AS item
JOIN failed_events AS failed ON failed.id = item.failed_event_id
LEFT JOIN customization_jobs AS job ON job.job_id = item.job_id
WHERE item.plan_id = :plan_id AND item.position > :after
ORDER BY item.position
LIMIT :limit;
