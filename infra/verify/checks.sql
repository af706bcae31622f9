-- Each query states one invariant: how many things it looked at (`checked`), how many of them break it (`found`), some of
-- those, with their IDs (`examples`), and, where a sum says more, a `detail`. Some effects follow a little after their
-- cause; what is younger than :patience is not held against anybody.

-- name: accepted(size, patience)
-- Every request that the intake accepted or the projection archived has ended, is reserved, or waits in the schedule. One
-- that is younger than :patience may still be on its way to the quota stage. Somebody else's job cannot be asked for: such
-- a request ends among the dead letters.
WITH request AS (
    SELECT job_id, run, organization_id, min(since) AS since
    FROM (
        SELECT job_id, 1 AS run, organization_id, accepted_at AS since FROM job_requests
        UNION ALL
        SELECT job_id, run, organization_id, archived_at FROM job_events WHERE type = 'teamfit.job.requested.v1'
    ) AS seen
    GROUP BY job_id, run, organization_id
), standing AS MATERIALIZED (
    SELECT
        request.job_id,
        request.run,
        request.since,
        ended.outcome IS NOT NULL AS ended,
        ended.outcome IS NULL AND (
            entry.state IS NOT DISTINCT FROM 'reserved'
            OR request.since > now() - :patience::interval
            OR EXISTS (
                SELECT FROM scheduled_events AS later
                WHERE later.key = convert_to(request.job_id::text, 'UTF8')
            )
        ) AS live
    FROM request
    LEFT JOIN job_outcomes AS ended ON ended.job_id = request.job_id AND ended.run = request.run
    LEFT JOIN quota_ledger AS entry ON entry.job_id = request.job_id AND entry.run = request.run
    WHERE NOT EXISTS (
        SELECT FROM quota_ledger AS other
        WHERE other.job_id = request.job_id AND other.organization_id <> request.organization_id
    )
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE NOT ended AND NOT live) AS found,
    count(*) || ' accepted = ' || count(*) FILTER (WHERE ended) || ' ended + ' || count(*) FILTER (WHERE live) || ' live + '
    || count(*) FILTER (WHERE NOT ended AND NOT live) || ' lost' AS detail,
    ARRAY(
        SELECT job_id || ' run ' || run || ' accepted at ' || to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        FROM standing WHERE NOT ended AND NOT live ORDER BY since, job_id LIMIT :size
    ) AS examples
FROM standing;

-- name: charged(size, patience)
-- A run is charged if and only if it completed, so the two agree by organization and period. The charge follows the fact:
-- a run that completed just now may still be reserved.
WITH unit AS MATERIALIZED (
    SELECT
        coalesce(entry.job_id, ended.job_id) AS job_id,
        coalesce(entry.run, ended.run) AS run,
        entry.organization_id,
        entry.period,
        entry.state,
        ended.decided_at,
        CASE
            WHEN ended.outcome IS NULL THEN entry.state = 'charged'
            WHEN entry.state = 'reserved' THEN ended.decided_at <= now() - :patience::interval
            ELSE entry.state IS DISTINCT FROM 'charged'
        END AS wrong
    FROM quota_ledger AS entry
    FULL JOIN (SELECT * FROM job_outcomes WHERE outcome = 'completed') AS ended
        ON ended.job_id = entry.job_id AND ended.run = entry.run
    WHERE entry.state = 'charged' OR ended.outcome IS NOT NULL
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE wrong) AS found,
    count(*) FILTER (WHERE state = 'charged') || ' charged, ' || count(decided_at) || ' completed, of '
    || count(DISTINCT (organization_id, period)) || ' organizations and periods' AS detail,
    ARRAY(
        SELECT job_id || ' run ' || run || ' of ' || coalesce(organization_id || ' ' || period, 'no organization') || ': '
            || CASE WHEN decided_at IS NULL THEN 'charged, not completed'
                ELSE 'completed, ' || coalesce(state, 'never reserved') END
        FROM unit WHERE wrong ORDER BY organization_id, period, job_id, run LIMIT :size
    ) AS examples
FROM unit;

-- name: reserved(size, patience)
-- Quota is held for runs that live, and given back or charged soon after one has ended.
WITH held AS MATERIALIZED (
    SELECT
        entry.job_id, entry.run, entry.organization_id, entry.period, ended.outcome,
        coalesce(ended.decided_at <= now() - :patience::interval, false) AS wrong
    FROM quota_ledger AS entry
    LEFT JOIN job_outcomes AS ended ON ended.job_id = entry.job_id AND ended.run = entry.run
    WHERE entry.state = 'reserved'
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE wrong) AS found,
    count(*) || ' reserved, ' || count(*) FILTER (WHERE outcome IS NULL) || ' of them live' AS detail,
    ARRAY(
        SELECT job_id || ' run ' || run || ' of ' || organization_id || ' ' || period || ': ' || outcome || ', still reserved'
        FROM held WHERE wrong ORDER BY organization_id, period, job_id, run LIMIT :size
    ) AS examples
FROM held;

-- name: counters(size)
-- The counters that admission locks are the sums of the ledger's rows. A run that was closed before it was reserved never
-- counted. Charges of a period in which the ledger has nothing at all were brought over from an older system. Of months
-- before `jobs_horizon` the ledger is not whole any more.
WITH summed AS (
    SELECT
        organization_id,
        period,
        count(*) FILTER (WHERE state = 'reserved') AS reserved,
        count(*) FILTER (WHERE state = 'charged') AS charged
    FROM quota_ledger
    WHERE state IN ('reserved', 'charged') OR (state = 'released' AND message IS NULL)
    GROUP BY organization_id, period
), counter AS MATERIALIZED (
    SELECT
        coalesce(counted.organization_id, summed.organization_id) AS organization_id,
        coalesce(counted.period, summed.period) AS period,
        coalesce(counted.reserved, 0) AS reserved,
        coalesce(counted.charged, 0) AS charged,
        coalesce(summed.reserved, 0) AS reserved_sum,
        coalesce(summed.charged, 0) AS charged_sum,
        summed.period IS NULL AND counted.reserved = 0 AS brought_over
    FROM quota_usage AS counted
    FULL JOIN summed ON summed.organization_id = counted.organization_id AND summed.period = counted.period
), wrong AS (
    SELECT * FROM counter
    WHERE NOT brought_over AND (reserved <> reserved_sum OR charged <> charged_sum)
        AND period >= coalesce((SELECT to_char(jobs_horizon AT TIME ZONE 'UTC', 'YYYY-MM') FROM archive_retention), '')
)
SELECT
    (SELECT count(*) FROM counter) AS checked,
    (SELECT count(*) FROM wrong) AS found,
    ARRAY(
        SELECT organization_id || ' ' || period || ': counted ' || reserved || ' reserved and ' || charged
            || ' charged, the ledger has ' || reserved_sum || ' and ' || charged_sum
        FROM wrong ORDER BY organization_id, period LIMIT :size
    ) AS examples;

-- name: within_limit(size)
-- No organization has taken more than the monthly quota. What a plan allowed in past months is not on record.
WITH wrong AS MATERIALIZED (
    SELECT used.*, plan.monthly_quota
    FROM quota_usage AS used
    JOIN subscriptions AS plan ON plan.organization_id = used.organization_id
    WHERE used.period >= to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')
        AND used.reserved + used.charged > plan.monthly_quota
)
SELECT
    (
        SELECT count(*) FROM quota_usage JOIN subscriptions USING (organization_id)
        WHERE period >= to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')
    ) AS checked,
    (SELECT count(*) FROM wrong) AS found,
    ARRAY(
        SELECT organization_id || ' ' || period || ': ' || reserved + charged || ' of ' || monthly_quota
        FROM wrong ORDER BY organization_id, period LIMIT :size
    ) AS examples;

-- name: activities(size)
-- A completed job has activities 1, 2 and 3 of its newest completed run. Nothing else has any, but for jobs of which the
-- pipeline knows nothing and which are older than its first event.
WITH completed AS (
    SELECT job_id, max(run) AS run FROM job_outcomes WHERE outcome = 'completed' GROUP BY job_id
), saved AS (
    SELECT
        job_id,
        min(created_at) AS created_at,
        array_agg(DISTINCT run) AS runs,
        array_agg(position::int ORDER BY position) AS positions
    FROM customized_activities
    GROUP BY job_id
), wrong AS MATERIALIZED (
    SELECT completed.job_id, 'run ' || completed.run || ' completed, has '
        || coalesce('activities ' || array_to_string(saved.positions, ', ') || ' of run ' || array_to_string(saved.runs, ', '),
            'no activities') AS what
    FROM completed
    LEFT JOIN saved ON saved.job_id = completed.job_id
    WHERE saved.positions IS DISTINCT FROM ARRAY[1, 2, 3] OR saved.runs IS DISTINCT FROM ARRAY[completed.run]
    UNION ALL
    SELECT saved.job_id, 'activities of run ' || array_to_string(saved.runs, ', ') || ', not completed'
    FROM saved
    WHERE NOT EXISTS (SELECT FROM completed WHERE completed.job_id = saved.job_id)
        AND (
            saved.created_at >= (SELECT archived_at FROM job_events ORDER BY sequence LIMIT 1)
            OR EXISTS (
                SELECT FROM quota_ledger AS entry WHERE entry.job_id = saved.job_id AND entry.run = ANY(saved.runs)
            )
            OR EXISTS (
                SELECT FROM job_outcomes AS ended WHERE ended.job_id = saved.job_id AND ended.run = ANY(saved.runs)
            )
        )
)
SELECT
    (SELECT count(*) FROM completed) AS checked,
    (SELECT count(*) FROM wrong) AS found,
    ARRAY(SELECT job_id || ' ' || what FROM wrong ORDER BY job_id LIMIT :size) AS examples;

-- name: event_ids(size)
-- No event is in the archive twice.
WITH twice AS MATERIALIZED (
    SELECT job_id, event_id, count(*) AS times
    FROM job_events
    GROUP BY job_id, event_id
    HAVING count(*) > 1
)
SELECT
    (SELECT count(*) FROM job_events) AS checked,
    (SELECT count(*) FROM twice) AS found,
    ARRAY(
        SELECT job_id || ' event ' || event_id || ' ' || times || ' times' FROM twice ORDER BY job_id, event_id LIMIT :size
    ) AS examples;

-- name: outcomes_told(size, patience)
-- What was decided about a run is told: the fact that follows from an outcome reaches the archive, and stays there until
-- retention removes it.
WITH untold AS MATERIALIZED (
    SELECT ended.job_id, ended.run, ended.outcome
    FROM job_outcomes AS ended
    WHERE ended.decided_at <= now() - :patience::interval
        AND ended.decided_at >= coalesce((SELECT max(horizon) FROM archive_retention), '-infinity')
        AND NOT EXISTS (
            SELECT FROM job_events AS event
            WHERE event.job_id = ended.job_id AND event.run = ended.run
                AND event.type = 'teamfit.job.' || ended.outcome || '.v1'
        )
)
SELECT
    (SELECT count(*) FROM job_outcomes) AS checked,
    (SELECT count(*) FROM untold) AS found,
    ARRAY(
        SELECT job_id || ' run ' || run || ' ' || outcome || ', not in the archive' FROM untold ORDER BY job_id, run LIMIT :size
    ) AS examples;

-- name: facts_decided(size)
-- What is told was decided: each terminal fact in the archive is its run's outcome. Facts of another organization than the
-- job's mean nothing (see the fold).
WITH told AS MATERIALIZED (
    SELECT event.job_id, event.run, split_part(event.type, '.', 3) AS kind, ended.outcome
    FROM job_events AS event
    LEFT JOIN job_outcomes AS ended ON ended.job_id = event.job_id AND ended.run = event.run
    LEFT JOIN customization_jobs AS job ON job.job_id = event.job_id
    WHERE event.type IN (
            'teamfit.job.completed.v1', 'teamfit.job.failed.v1', 'teamfit.job.rejected.v1', 'teamfit.job.cancelled.v1'
        )
        AND (job.organization_id IS NULL OR job.organization_id = event.organization_id)
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE outcome IS DISTINCT FROM kind) AS found,
    ARRAY(
        SELECT job_id || ' run ' || run || ' is told ' || kind || ', was decided ' || coalesce(outcome, 'nothing')
        FROM told WHERE outcome IS DISTINCT FROM kind ORDER BY job_id, run, kind LIMIT :size
    ) AS examples
FROM told;

-- name: forged(size)
-- No event says of a job what its sender may not say. What was refused is an
-- open failed event, malformed or not, of each stage that met it, and counts once; a cancellation that came before the job was
-- asked for, from another organization, was never applied.
WITH refused AS MATERIALIZED (
    SELECT job_id, coalesce(organization_id, 'no organization') || ': ' || coalesce(event_type, min(topic)) || ' '
        || coalesce(event_id, '') || ', refused by ' || string_agg(DISTINCT stage, ' and ' ORDER BY stage) || ': '
        || min(error_message) AS what, min(first_failed_at) AS at
    FROM failed_events
    WHERE state = 'open' AND error_type IN ('InvalidEvent', 'ForgedEvent', 'JobIdReused') AND (
        organization_id <> job_owner(job_id)
        OR (
            error_type = 'ForgedEvent'
            AND event_type NOT IN ('teamfit.job.requested.v1', 'teamfit.job.cancel-requested.v1')
        )
    )
    GROUP BY job_id, organization_id, event_type, event_id, event
    UNION ALL
    SELECT early.job_id, early.organization_id || ': teamfit.job.cancel-requested.v1 ' || (early.event ->> 'id')
        || ', before the job was asked for by ' || owner.organization_id, early.received_at
    FROM early_cancellations AS early
    JOIN job_owners AS owner ON owner.job_id = early.job_id AND owner.organization_id <> early.organization_id
)
SELECT
    (SELECT count(*) FROM job_owners) AS checked,
    (SELECT count(*) FROM refused) AS found,
    ARRAY(SELECT coalesce(job_id::text, 'no job') || ' ' || what FROM refused ORDER BY at, job_id LIMIT :size) AS examples;

-- name: mistaken(size)
-- What senders got wrong about their own jobs, each event once. It is refused and has no effect, so it breaks
-- nothing; its senders should hear of it.
WITH refused AS MATERIALIZED (
    SELECT job_id, coalesce(organization_id, 'no organization') || ': ' || coalesce(event_type, min(topic)) || ' '
        || coalesce(event_id, '') || ', ' || min(error_message) AS what, min(first_failed_at) AS at
    FROM failed_events
    WHERE state = 'open' AND error_type IN ('InvalidEvent', 'ForgedEvent', 'JobIdReused')
        AND (organization_id <> job_owner(job_id)) IS NOT TRUE
        AND (
            error_type = 'ForgedEvent'
            AND event_type NOT IN ('teamfit.job.requested.v1', 'teamfit.job.cancel-requested.v1')
        ) IS NOT TRUE
    GROUP BY job_id, organization_id, event_type, event_id, event
)
SELECT
    (SELECT count(*) FROM refused) AS checked,
    0::bigint AS found,
    CASE (SELECT count(*) FROM refused)
        WHEN 0 THEN 'none is open'
        ELSE 'teamfit failed list has them; tell their senders'
    END AS detail,
    ARRAY(SELECT coalesce(job_id::text, 'no job') || ' ' || what FROM refused ORDER BY at, job_id LIMIT :size) AS examples;

-- name: records(size)
-- A job shows what was asked for: the team and the time of its request, as the intake recorded them.
WITH shown AS MATERIALIZED (
    SELECT
        job.job_id,
        job.team_id IS DISTINCT FROM request.team_id AS other_team,
        job.created_at IS NULL OR coalesce(job.created_at > (request.event ->> 'time')::timestamptz, false) AS too_late
    FROM job_requests AS request
    JOIN customization_jobs AS job ON job.job_id = request.job_id AND job.run > 0
        AND job.organization_id = request.organization_id
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE other_team OR too_late) AS found,
    ARRAY(
        SELECT job_id || concat_ws(' and', '', CASE WHEN other_team THEN ' another team_id' END,
            CASE WHEN too_late THEN ' a later created_at' END) || ' than its request'
        FROM shown WHERE other_team OR too_late ORDER BY job_id LIMIT :size
    ) AS examples
FROM shown;

-- name: saved_attempts(size)
-- A run is saved by one attempt at most, and only if it completed.
WITH saved AS (
    SELECT job_id, run, count(*) AS attempts
    FROM generation_attempts
    WHERE state = 'saved'
    GROUP BY job_id, run
), judged AS MATERIALIZED (
    SELECT saved.job_id, saved.run, saved.attempts, ended.outcome
    FROM saved
    LEFT JOIN job_outcomes AS ended ON ended.job_id = saved.job_id AND ended.run = saved.run
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE attempts > 1 OR outcome IS DISTINCT FROM 'completed') AS found,
    ARRAY(
        SELECT job_id || ' run ' || run || ': ' || attempts || ' saved, outcome ' || coalesce(outcome, 'undecided')
        FROM judged WHERE attempts > 1 OR outcome IS DISTINCT FROM 'completed' ORDER BY job_id, run LIMIT :size
    ) AS examples
FROM judged;

-- name: spend(size)
-- What each organization's calls have cost is what its attempts say. Before `jobs_horizon` they may be gone.
WITH summed AS (
    SELECT
        organization_id,
        to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM') AS period,
        count(*) AS calls,
        coalesce(sum(coalesce(prompt_tokens, 0)::bigint + coalesce(completion_tokens, 0)), 0) AS tokens,
        coalesce(sum(cost), 0) AS cost
    FROM generation_attempts
    WHERE state <> 'started' AND organization_id IS NOT NULL
    GROUP BY 1, 2
), total AS MATERIALIZED (
    SELECT
        organization_id,
        period,
        coalesce(counted.calls, 0) AS calls,
        coalesce(counted.prompt_tokens + counted.completion_tokens, 0) AS tokens,
        coalesce(counted.cost, 0) AS cost,
        coalesce(summed.cost, 0) AS cost_sum,
        coalesce(summed.calls, 0) AS calls_sum,
        coalesce(summed.tokens, 0) AS tokens_sum
    FROM llm_usage AS counted
    FULL JOIN summed USING (organization_id, period)
    WHERE period >= coalesce((SELECT to_char(jobs_horizon AT TIME ZONE 'UTC', 'YYYY-MM') FROM archive_retention), '')
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE (calls, tokens, cost) <> (calls_sum, tokens_sum, cost_sum)) AS found,
    sum(calls) || ' calls, ' || sum(tokens) || ' tokens' AS detail,
    ARRAY(
        SELECT organization_id || ' ' || period || ': counted ' || calls || ' calls, ' || tokens || ' tokens and a cost of ' || cost
            || ', the attempts have ' || calls_sum || ', ' || tokens_sum || ' and ' || cost_sum
        FROM total WHERE (calls, tokens, cost) <> (calls_sum, tokens_sum, cost_sum) ORDER BY organization_id, period LIMIT :size
    ) AS examples
FROM total;

-- name: recorded_calls()$
-- Calls to the LLM on record: each attempt makes one at most, and probes are counted.
SELECT (SELECT count(*) FROM generation_attempts) + coalesce((SELECT sum(calls)::bigint FROM llm_probes), 0);

-- name: findable(size, patience)
-- What a stage gave up can be found and replayed: the run that it failed has a failed event. Runs that no stage handled to the
-- end (`expired`, `interrupted`) have none.
WITH failed AS MATERIALIZED (
    SELECT ended.job_id, ended.run, ended.fact #>> '{data,code}' AS code, EXISTS (
        SELECT FROM failed_events AS kept WHERE kept.job_id = ended.job_id AND coalesce(kept.run, 1) = ended.run
    ) AS kept
    FROM job_outcomes AS ended
    WHERE ended.outcome = 'failed' AND ended.fact IS NOT NULL
        AND ended.fact #>> '{data,code}' NOT IN ('expired', 'interrupted')
        AND ended.decided_at <= now() - :patience::interval
        AND ended.decided_at >= coalesce((SELECT max(horizon) FROM archive_retention), '-infinity')
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE NOT kept) AS found,
    ARRAY(
        SELECT job_id || ' run ' || run || ': ' || coalesce(code, 'failed') || ', and no failed event'
        FROM failed WHERE NOT kept ORDER BY job_id, run LIMIT :size
    ) AS examples
FROM failed;

-- name: failed_events(size)
-- A dead letter says which stage gave it up, and why.
WITH mute AS MATERIALIZED (
    SELECT id, topic FROM failed_events WHERE btrim(stage) = '' OR btrim(error_type) = '' OR btrim(error_message) = ''
)
SELECT
    (SELECT count(*) FROM failed_events) AS checked,
    (SELECT count(*) FROM mute) AS found,
    ARRAY(SELECT id || ' of ' || topic FROM mute ORDER BY id LIMIT :size) AS examples;

-- name: set_aside(size)
-- No run stands still that the reconciler had to set aside. One that has ended in the meantime, and is told, does not.
WITH aside AS MATERIALIZED (
    SELECT again.job_id, again.run, again.set_aside AS why
    FROM reemissions AS again
    WHERE again.set_aside IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM job_outcomes AS ended
            JOIN job_events AS told ON told.job_id = ended.job_id AND told.run = ended.run
                AND told.type = 'teamfit.job.' || ended.outcome || '.v1'
            WHERE ended.job_id = again.job_id AND ended.run = again.run
        )
)
SELECT
    (SELECT count(*) FROM reemissions) AS checked,
    (SELECT count(*) FROM aside) AS found,
    ARRAY(SELECT job_id || ' run ' || run || ': ' || why FROM aside ORDER BY job_id, run LIMIT :size) AS examples;

-- name: line_counters(size)
-- The dispatch counts for each organization what waits and what is in flight as its rows do.
WITH counted AS (
    SELECT
        organization_id,
        count(*) FILTER (WHERE state = 'waiting') AS waiting,
        count(*) FILTER (WHERE state = 'released') AS in_flight
    FROM dispatch_runs
    WHERE state IN ('waiting', 'released')
    GROUP BY organization_id
), wrong AS MATERIALIZED (
    SELECT
        coalesce(known.organization_id, counted.organization_id) AS organization_id,
        coalesce(known.waiting, 0) || ' waiting and ' || coalesce(known.in_flight, 0) || ' in flight, the rows have '
            || coalesce(counted.waiting, 0) || ' and ' || coalesce(counted.in_flight, 0) AS what
    FROM dispatch_organizations AS known
    FULL JOIN counted ON counted.organization_id = known.organization_id
    WHERE (coalesce(known.waiting, 0), coalesce(known.in_flight, 0))
        IS DISTINCT FROM (coalesce(counted.waiting, 0), coalesce(counted.in_flight, 0))
)
SELECT
    (SELECT count(*) FROM dispatch_organizations) AS checked,
    (SELECT count(*) FROM wrong) AS found,
    ARRAY(SELECT organization_id || ': counted ' || what FROM wrong ORDER BY organization_id LIMIT :size) AS examples;

-- name: line_is_live(size, patience)
-- What waits for its turn, or holds a slot, is a run that quota is held for and that has not ended. One that has is marked in
-- the same transaction, or found within seconds.
WITH standing AS MATERIALIZED (
    SELECT
        line.job_id, line.run, line.organization_id, line.state,
        coalesce(decided.outcome, 'quota ' || coalesce(entry.state, 'never held')) AS what,
        NOT line.ended AND (
            decided.decided_at <= now() - :patience::interval
            OR (decided.outcome IS NULL AND entry.state IS DISTINCT FROM 'reserved')
        ) AS wrong
    FROM dispatch_runs AS line
    LEFT JOIN job_outcomes AS decided ON decided.job_id = line.job_id AND decided.run = line.run
    LEFT JOIN quota_ledger AS entry ON entry.job_id = line.job_id AND entry.run = line.run
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE wrong) AS found,
    count(*) FILTER (WHERE state IN ('arrived', 'waiting')) || ' waiting, ' || count(*) FILTER (WHERE state = 'released')
    || ' in flight, ' || count(*) FILTER (WHERE state = 'parked') || ' before a retry' AS detail,
    ARRAY(
        SELECT job_id || ' run ' || run || ' of ' || organization_id || ': ' || state || ', ' || what
        FROM standing WHERE wrong ORDER BY organization_id, job_id, run LIMIT :size
    ) AS examples
FROM standing;

-- name: webhooks_recorded(size, patience)
-- What an endpoint wants to be told of is recorded as a delivery: each end of a run of its organization that is in the archive, and
-- each mark of its budget. What came before the endpoint, and what was deleted on purpose, is older than `compared_from`.
WITH wanted AS MATERIALIZED (
    SELECT
        one.id AS endpoint_id, told.organization_id,
        told.job_id || ' run ' || told.run || ' ' || split_part(told.type, '.', 3) AS what, told.archived_at AS since,
        EXISTS (
            SELECT FROM webhook_deliveries AS known WHERE known.endpoint_id = one.id AND known.event_id = told.event_id
        ) AS recorded
    FROM webhook_endpoints AS one
    JOIN job_events AS told ON told.organization_id = one.organization_id AND told.type IN (
        'teamfit.job.completed.v1', 'teamfit.job.failed.v1', 'teamfit.job.rejected.v1', 'teamfit.job.cancelled.v1'
    )
    WHERE 'job.' || split_part(told.type, '.', 3) = ANY(one.types)
        AND told.archived_at >= one.compared_from AND told.archived_at <= now() - :patience::interval
    UNION ALL
    SELECT
        one.id, mark.organization_id, 'budget of ' || mark.period || ' at ' || mark.percent || ' %', mark.reached_at,
        EXISTS (
            SELECT FROM webhook_deliveries AS known
            WHERE known.endpoint_id = one.id AND known.type = 'budget.reached'
                AND known.body ~ ('"period":"' || mark.period || '"') AND known.body ~ ('"percent":' || mark.percent || '\D')
                AND known.body ~ ('"budget":' || mark.budget || '\D')
        )
    FROM webhook_endpoints AS one
    JOIN budget_marks AS mark ON mark.organization_id = one.organization_id
    WHERE 'budget.reached' = ANY(one.types)
        AND mark.reached_at >= one.compared_from AND mark.reached_at <= now() - :patience::interval
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE NOT recorded) AS found,
    ARRAY(
        SELECT organization_id || ' endpoint ' || endpoint_id || ': ' || what || ', no delivery'
        FROM wanted WHERE NOT recorded ORDER BY since, endpoint_id LIMIT :size
    ) AS examples
FROM wanted;

-- name: webhooks_true(size, patience)
-- No endpoint is told what did not happen, or of another organization: each delivery has its fact in the archive, or its mark of a
-- budget. Tests have none. Facts before `horizon` may be gone; a fact may be told before it is archived.
WITH sent AS MATERIALIZED (
    SELECT
        delivery.endpoint_id, delivery.event_id, delivery.type, one.organization_id, delivery.created_at,
        CASE delivery.type WHEN 'budget.reached' THEN EXISTS (
            SELECT FROM budget_marks AS mark
            WHERE mark.organization_id = one.organization_id
                AND delivery.body ~ ('"period":"' || mark.period || '"') AND delivery.body ~ ('"percent":' || mark.percent || '\D')
        ) ELSE EXISTS (
            SELECT FROM job_events AS told
            WHERE told.job_id = delivery.job_id AND told.event_id = delivery.event_id
                AND told.organization_id = one.organization_id AND told.type = 'teamfit.' || delivery.type || '.v1'
        ) END AS is_true,
        substring(delivery.body FROM '"timestamp":"(\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00))"')::timestamptz AS told_at
    FROM webhook_deliveries AS delivery
    JOIN webhook_endpoints AS one ON one.id = delivery.endpoint_id
    WHERE delivery.event IS NOT NULL AND delivery.created_at <= now() - :patience::interval
), judged AS MATERIALIZED (
    SELECT
        *,
        NOT is_true AND coalesce(told_at >= (SELECT max(horizon) FROM archive_retention), true) AS wrong
    FROM sent
)
SELECT
    count(*) AS checked,
    count(*) FILTER (WHERE wrong) AS found,
    ARRAY(
        SELECT organization_id || ' endpoint ' || endpoint_id || ': ' || type || ' ' || event_id || ', no such fact'
        FROM judged WHERE wrong ORDER BY created_at, endpoint_id LIMIT :size
    ) AS examples
FROM judged;

-- name: webhooks_findable(size)
-- A delivery that was given up can be found and sent again: it has a failed event, which is kept before it is given up.
WITH lost AS MATERIALIZED (
    SELECT delivery.endpoint_id, delivery.event_id, delivery.type, one.organization_id
    FROM webhook_deliveries AS delivery
    JOIN webhook_endpoints AS one ON one.id = delivery.endpoint_id
    WHERE delivery.event IS NOT NULL
        AND delivery.given_up_at >= coalesce((SELECT max(horizon) FROM archive_retention), '-infinity')
        AND NOT EXISTS (
            SELECT FROM failed_events AS kept
            WHERE kept.stage = 'webhooks' AND kept.event_id = delivery.event_id
                AND coalesce(position(convert_to(delivery.endpoint_id::text, 'UTF8') IN kept.event) > 0, true)
        )
)
SELECT
    count(*) AS checked,
    (SELECT count(*) FROM lost) AS found,
    count(delivered_at) || ' delivered, ' || count(*) FILTER (WHERE delivered_at IS NULL AND given_up_at IS NULL)
    || ' waiting, ' || count(given_up_at) || ' given up' AS detail,
    ARRAY(
        SELECT organization_id || ' endpoint ' || endpoint_id || ': ' || type || ' ' || event_id || ', no failed event'
        FROM lost ORDER BY endpoint_id, event_id LIMIT :size
    ) AS examples
FROM webhook_deliveries;

-- name: nothing_reserved(size)
-- At rest no unit of quota is held.
WITH held AS MATERIALIZED (SELECT job_id, run, organization_id, period FROM quota_ledger WHERE state = 'reserved')
SELECT
    (SELECT count(*) FROM quota_ledger) AS checked,
    (SELECT count(*) FROM held) AS found,
    ARRAY(
        SELECT job_id || ' run ' || run || ' of ' || organization_id || ' ' || period
        FROM held ORDER BY organization_id, period, job_id LIMIT :size
    ) AS examples;

-- name: nothing_live(size)
-- At rest every job that the archive tells of has ended, or waits for a time that has not come.
WITH live AS MATERIALIZED (
    SELECT job_id, run, status
    FROM customization_jobs AS job
    WHERE status IN ('pending', 'processing')
        AND EXISTS (SELECT FROM job_events AS event WHERE event.job_id = job.job_id)
        AND NOT EXISTS (
            SELECT FROM scheduled_events AS later
            WHERE later.key = convert_to(job.job_id::text, 'UTF8') AND later.due_at > now()
        )
)
SELECT
    (SELECT count(*) FROM customization_jobs) AS checked,
    (SELECT count(*) FROM live) AS found,
    ARRAY(SELECT job_id || ' run ' || run || ' ' || status FROM live ORDER BY job_id LIMIT :size) AS examples;

-- name: nothing_overdue(size)
-- At rest nothing that is due waits in the schedule.
WITH overdue AS MATERIALIZED (SELECT id, topic, key, due_at, reason FROM scheduled_events WHERE due_at <= now())
SELECT
    (SELECT count(*) FROM scheduled_events) AS checked,
    (SELECT count(*) FROM overdue) AS found,
    ARRAY(
        SELECT id || ' for ' || topic || ': ' || reason FROM overdue ORDER BY due_at, id LIMIT :size
    ) AS examples;
