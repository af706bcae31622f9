-- name: lock_runs(job_ids, runs, organization_ids, gate, caller_endpoint, model, credential)^
-- Lets one transaction at a time begin attempts at a run, and spend from a budget. The next statement sees what the one before
-- it committed; sorted, so that two workers cannot deadlock. Returns for how long the gate is closed yet, or NULL, and why the endpoint
-- is held and when its next probe is due, or NULLs, which so cost no round trip of their own.
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(key)
    FROM (
        SELECT hashtextextended(job_id::text, run) AS key
        FROM unnest(:job_ids::uuid[], :runs::int[]) AS wanted (job_id, run)
        UNION
        SELECT hashtextextended(organization_id, -1)
        FROM unnest(:organization_ids::text[]) AS spender (organization_id)
        WHERE EXISTS (SELECT FROM budget_of(organization_id, ''))
        ORDER BY key
    ) AS sorted
)
SELECT
    closed.closed_until - clock_timestamp() AS closed_for,
    held.sentence,
    held.blame,
    -- As with the gate below.
    CASE WHEN held.probe_set_at <= clock_timestamp() + interval '1 second' THEN held.next_probe_at - clock_timestamp() END
        AS next_probe_in
FROM (SELECT count(*) FROM locked) AS all_locked
-- A gate that was closed in the future was closed by a clock that has been set back: it is not known until when.
LEFT JOIN llm_gate AS closed ON closed.endpoint = :gate
    AND closed.closed_until > clock_timestamp() AND closed.closed_at <= clock_timestamp()
LEFT JOIN llm_holds AS held ON held.endpoint = :caller_endpoint AND held.model = :model AND held.credential = :credential
    AND held.passed_at IS NULL;

-- name: close_gate(endpoint, wait, reason)!
-- Closes the gate for everybody; an earlier time than the one that stands changes nothing.
INSERT INTO llm_gate (endpoint, closed_until, reason, closed_at)
VALUES (:endpoint, clock_timestamp() + :wait::interval, :reason, clock_timestamp())
ON CONFLICT (endpoint) DO UPDATE
SET closed_until = excluded.closed_until, reason = excluded.reason,
    -- One that is closed still is closed for longer.
    closed_at = CASE WHEN llm_gate.closed_until > clock_timestamp() THEN least(llm_gate.closed_at, excluded.closed_at)
    ELSE excluded.closed_at END
WHERE llm_gate.closed_until < excluded.closed_until OR llm_gate.closed_at > excluded.closed_at;

-- name: abandon(now, job_ids, runs, entries, attempt_time)!
-- Takes the runs away from attempts that were begun for the same entry, whose worker has lost it, and from those whose time
-- is over, or is longer than any attempt is given, since the clock was set back: whoever still works on one can no longer
-- save. Attempts at earlier runs of these jobs have lost them anyway: a run begins when the one before it has ended. Waits
-- for a save under way.
UPDATE generation_attempts AS older
SET state = 'abandoned', maybe_billed = true, finished_at = :now
FROM unnest(:job_ids::uuid[], :runs::int[], :entries::text[]) AS wanted (job_id, run, entry)
WHERE older.job_id = wanted.job_id AND older.run <= wanted.run AND older.state = 'started'
    AND (older.run < wanted.run OR older.entry = wanted.entry OR coalesce(older.deadline <= clock_timestamp(), true)
        OR older.deadline > clock_timestamp() + :attempt_time::interval + interval '1 second');

-- name: begin(job_ids, runs, organization_ids, tokens, entries, attempt_time, max_tokens, unknown_tokens, prompt_tokens, asked_model, period, endpoint, gate, caller_endpoint, model, credential, now)
-- Starts the next attempt of each run that has not ended, has none under way and does not wait for its turn, unless its job
-- has spent `max_tokens` (0: no cap); what is not known of a call's cost counts as `unknown_tokens`. Returns for each run its
-- new attempt and what its job has spent; or how it ended, with the code of its failure and with what the saved attempt of a
-- completed run left; or for how long the attempt under way may last yet, by this database's clock; or that it waits; or why
-- its organization's budget does not let it begin.
-- Keeps when its endpoint last took no calls: the gate's last time, and the last hold of this model and key.
WITH held AS MATERIALIZED (
    SELECT min(closing.began_at) AS began_at, max(closing.ended_at) AS ended_at
    FROM (
        SELECT closed_at AS began_at, closed_until AS ended_at FROM llm_gate WHERE endpoint = :gate
        UNION ALL
        SELECT held_at, passed_at FROM llm_holds
        WHERE endpoint = :caller_endpoint AND model = :model AND credential = :credential AND passed_at IS NOT NULL
        ORDER BY ended_at DESC
        LIMIT 1
    ) AS closing
), wanted AS MATERIALIZED (
    SELECT
        run_of.*,
        older.attempt AS last_attempt,
        older.spent,
        older.deadline AS under_way_until,
        coalesce(line.state <> 'released', false) AS waits,
        line.entered_at,
        line.released_at,
        coalesce(line.paced, '[]') AS paced,
        held.began_at AS held_from,
        held.ended_at AS held_until
    FROM unnest(
        :job_ids::uuid[], :runs::int[], :organization_ids::text[], :tokens::uuid[], :entries::text[], :prompt_tokens::bigint[]
    ) WITH ORDINALITY AS run_of (job_id, run, organization_id, token, entry, most_prompt, place)
    CROSS JOIN held
    LEFT JOIN dispatch_runs AS line ON line.job_id = run_of.job_id AND line.run = run_of.run
    CROSS JOIN LATERAL (
        SELECT
            coalesce(max(attempt.attempt) FILTER (WHERE attempt.run = run_of.run), 0) AS attempt,
            max(attempt.deadline) FILTER (WHERE attempt.run = run_of.run AND attempt.state = 'started') AS deadline,
            coalesce(sum(
                coalesce(prompt_tokens, 0)::bigint + coalesce(completion_tokens, 0) + CASE
                    WHEN maybe_billed AND prompt_tokens + completion_tokens::bigint IS NULL THEN :unknown_tokens::bigint
                    ELSE 0
                END
            ), 0)::bigint AS spent
        FROM generation_attempts AS attempt
        WHERE attempt.job_id = run_of.job_id
    ) AS older
), ready AS MATERIALIZED (
    SELECT * FROM wanted
    WHERE (:max_tokens::bigint = 0 OR spent < :max_tokens::bigint)
        AND under_way_until IS NULL
        AND NOT waits
        AND NOT EXISTS (
            SELECT FROM job_outcomes AS ended WHERE ended.job_id = wanted.job_id AND ended.run = wanted.run
        )
), budgets AS MATERIALIZED (
    SELECT spender.organization_id, known.budget, known.kind, known.spent, known.reserved
    FROM (SELECT DISTINCT organization_id FROM ready) AS spender
    CROSS JOIN LATERAL budget_of(spender.organization_id, :period::text) AS known
), priced AS MATERIALIZED (
    SELECT
        ready.job_id,
        ready.run,
        ready.place,
        ready.organization_id,
        budgets.budget,
        budgets.kind,
        budgets.spent,
        budgets.reserved,
        llm_most_cost(:asked_model::text, :now, ready.most_prompt, :unknown_tokens::bigint) AS most_cost
    FROM ready JOIN budgets USING (organization_id)
), bounded AS MATERIALIZED (
    SELECT
        job_id,
        run,
        budget,
        spent,
        most_cost,
        CASE
            WHEN most_cost IS NULL THEN 'unpriced'
            WHEN kind = 'soft' THEN 'fits'
            -- Those of the batch before it have reserved theirs, or wait.
            WHEN spent + reserved + sum(most_cost) OVER (PARTITION BY organization_id ORDER BY place) <= budget THEN 'fits'
            WHEN spent + most_cost > budget THEN 'exceeded'
            ELSE 'held'
        END AS verdict
    FROM priced
), begun AS (
    INSERT INTO generation_attempts
        (job_id, run, attempt, token, state, started_at, organization_id, entry, deadline, endpoint, most_tokens,
            asked_model, reserved, entered_at, released_at, paced, held_from, held_until)
    SELECT
        job_id, run, last_attempt + 1, token, 'started', :now, organization_id, entry,
        clock_timestamp() + :attempt_time::interval, :endpoint::text, :unknown_tokens::bigint, :asked_model::text,
        bounded.most_cost, entered_at, released_at, paced, held_from, held_until
    FROM ready LEFT JOIN bounded USING (job_id, run)
    WHERE coalesce(bounded.verdict, 'fits') = 'fits'
    RETURNING job_id, run, attempt
)
SELECT
    wanted.job_id,
    wanted.run,
    wanted.spent,
    begun.attempt,
    wanted.under_way_until - clock_timestamp() AS wait,
    wanted.waits,
    bounded.verdict,
    bounded.budget,
    bounded.spent AS money_spent,
    ended.outcome,
    ended.fact -> 'data' ->> 'code' AS error_code,
    saved.model,
    saved.prompt_tokens,
    saved.completion_tokens,
    saved.finished_at
FROM wanted
LEFT JOIN begun USING (job_id, run)
LEFT JOIN bounded USING (job_id, run)
LEFT JOIN job_outcomes AS ended ON ended.job_id = wanted.job_id AND ended.run = wanted.run
LEFT JOIN generation_attempts AS saved
    ON saved.job_id = ended.job_id AND saved.run = ended.run AND saved.state = 'saved';

-- name: teams(max_bytes, team_ids)
-- Teams with their newest materials, as many as may matter to a prompt of `max_bytes`.
SELECT
    team.id,
    team.organization_id,
    team.name,
    team.size,
    team.description,
    coalesce((
        SELECT jsonb_agg(
            jsonb_build_array(material.title, left(material.content, :max_bytes), length(material.content) > :max_bytes)
            ORDER BY material.id DESC
        )
        FROM (
            SELECT
                id,
                left(title, 200) AS title,
                content,
                coalesce(sum(octet_length(content)) OVER (
                    ORDER BY id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ), 0) AS bytes_before
            FROM team_materials
            WHERE team_id = team.id
            ORDER BY id DESC
            LIMIT 200
        ) AS material
        WHERE material.bytes_before < :max_bytes
    ), '[]') AS materials
FROM teams AS team
WHERE team.id = ANY(:team_ids::text[]);

-- name: answered(now, job_ids, runs, attempts, tokens, maybe_billed, models, prompt_tokens, completion_tokens)
-- Records what answers cost, and marks those attempts saved that still hold their run. The caller saves their activities
-- in the same transaction. A late answer of an attempt that lost its run changes only that attempt's own record.
UPDATE generation_attempts AS attempt
SET
    state = CASE WHEN attempt.state = 'started' THEN 'saved' ELSE attempt.state END,
    finished_at = CASE WHEN attempt.state = 'started' THEN :now ELSE attempt.finished_at END,
    maybe_billed = attempt.maybe_billed OR answer.maybe_billed,
    model = answer.model,
    prompt_tokens = answer.prompt_tokens,
    completion_tokens = answer.completion_tokens
FROM unnest(
    :job_ids::uuid[], :runs::int[], :attempts::int[], :tokens::uuid[], :maybe_billed::bool[],
    :models::text[], :prompt_tokens::int[], :completion_tokens::int[]
) AS answer (job_id, run, attempt, token, maybe_billed, model, prompt_tokens, completion_tokens)
WHERE attempt.job_id = answer.job_id AND attempt.run = answer.run AND attempt.attempt = answer.attempt
    AND attempt.token = answer.token
RETURNING attempt.token, attempt.state, attempt.finished_at;

-- name: too_late(job_ids, runs, attempts, tokens)!
-- Takes back `saved` from attempts whose run had ended in another way (it was cancelled, say) before the answer came.
UPDATE generation_attempts AS attempt
SET state = 'failed', error_code = 'run_ended'
FROM unnest(:job_ids::uuid[], :runs::int[], :attempts::int[], :tokens::uuid[]) AS late (job_id, run, attempt, token)
WHERE attempt.job_id = late.job_id AND attempt.run = late.run AND attempt.attempt = late.attempt
    AND attempt.token = late.token;

-- name: save_activities(job_ids, runs, activities, models, prompt_tokens, completion_tokens)!
-- Writes the activities of completed runs, each run's as one JSON array, in place of those of an earlier run. Model and
-- token counts are those of the one call that made all three.
INSERT INTO customized_activities (
    job_id, position, run, title, description, duration_minutes, group_size, materials, steps, objective,
    model, prompt_tokens, completion_tokens
)
SELECT
    answer.job_id,
    item.position,
    answer.run,
    item.activity ->> 'title',
    item.activity ->> 'description',
    (item.activity ->> 'duration_minutes')::int,
    item.activity -> 'group_size',
    item.activity -> 'materials',
    item.activity -> 'steps',
    item.activity ->> 'objective',
    answer.model,
    answer.prompt_tokens,
    answer.completion_tokens
FROM unnest(
    :job_ids::uuid[], :runs::int[], :activities::text[], :models::text[], :prompt_tokens::int[], :completion_tokens::int[]
) AS answer (job_id, run, activities, model, prompt_tokens, completion_tokens)
CROSS JOIN LATERAL jsonb_array_elements(answer.activities::jsonb) WITH ORDINALITY AS item (activity, position)
ON CONFLICT (job_id, position) DO UPDATE SET
    run = excluded.run,
    title = excluded.title,
    description = excluded.description,
    duration_minutes = excluded.duration_minutes,
    group_size = excluded.group_size,
    materials = excluded.materials,
    steps = excluded.steps,
    objective = excluded.objective,
    model = excluded.model,
    prompt_tokens = excluded.prompt_tokens,
    completion_tokens = excluded.completion_tokens,
    created_at = excluded.created_at
WHERE customized_activities.run <= excluded.run;

-- name: fail(now, job_ids, runs, attempts, tokens, error_codes, maybe_billed, models, prompt_tokens, completion_tokens)!
-- Records how attempts failed and what they cost. One that has lost its run stays as it is but for the cost.
UPDATE generation_attempts AS attempt
SET
    state = CASE WHEN attempt.state = 'started' THEN 'failed' ELSE attempt.state END,
    error_code = coalesce(attempt.error_code, failure.error_code),
    finished_at = CASE WHEN attempt.state = 'started' THEN :now ELSE attempt.finished_at END,
    maybe_billed = attempt.maybe_billed OR failure.maybe_billed,
    model = failure.model,
    prompt_tokens = failure.prompt_tokens,
    completion_tokens = failure.completion_tokens
FROM unnest(
    :job_ids::uuid[], :runs::int[], :attempts::int[], :tokens::uuid[], :error_codes::text[], :maybe_billed::bool[],
    :models::text[], :prompt_tokens::int[], :completion_tokens::int[]
) AS failure (
    job_id, run, attempt, token, error_code, maybe_billed, model, prompt_tokens, completion_tokens
)
WHERE attempt.job_id = failure.job_id AND attempt.run = failure.run AND attempt.attempt = failure.attempt
    AND attempt.token = failure.token AND attempt.state <> 'saved';

-- name: discard(job_ids, runs, attempts, tokens)!
-- Forgets attempts that have made no call, so that a row stands for a call, and probing an endpoint that is away leaves
-- nothing behind. One that was taken over meanwhile stays.
DELETE FROM generation_attempts AS attempt
USING unnest(:job_ids::uuid[], :runs::int[], :attempts::int[], :tokens::uuid[]) AS idle (job_id, run, attempt, token)
WHERE attempt.job_id = idle.job_id AND attempt.run = idle.run AND attempt.attempt = idle.attempt
    AND attempt.token = idle.token AND attempt.state = 'started';

-- name: give_up(error_code, now, job_id, run)!
-- Ends the attempts of a run that the stage gives up while it does not know how they went (a stage timeout, a bug).
UPDATE generation_attempts
SET state = 'failed', error_code = :error_code, maybe_billed = true, finished_at = :now
WHERE job_id = :job_id AND run = :run AND state = 'started';
