-- name: standings(organization_ids, team_ids, period, longest_wait)
-- What admission must know about each request, in the order asked. Has a statement of this transaction fail that waits longer
-- for a lock; NULL: as long as the server says. So that takes no round trip of its own.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(:longest_wait, current_setting('lock_timeout')), true)
), asked AS MATERIALIZED (
    SELECT organization_id, team_id, place
    FROM unnest(:organization_ids::text[], :team_ids::text[]) WITH ORDINALITY AS one (organization_id, team_id, place)
), money AS MATERIALIZED (
    SELECT spender.organization_id, known.budget, known.spent
    FROM (SELECT DISTINCT organization_id FROM asked) AS spender
    CROSS JOIN LATERAL budget_of(spender.organization_id, :period) AS known
    WHERE known.kind = 'hard'
)
SELECT
    asked.organization_id,
    asked.team_id,
    organizations.id IS NOT NULL AS organization_exists,
    coalesce(organizations.trust_score, 0) AS trust_score,
    teams.id IS NOT NULL AS team_exists,
    subscriptions.plan,
    subscriptions.status,
    coalesce(subscriptions.monthly_quota, 0) AS monthly_quota,
    coalesce(subscriptions.priority, false) AS priority,
    money.budget,
    coalesce(money.spent, 0) AS spent
FROM asked
CROSS JOIN patience
LEFT JOIN organizations ON organizations.id = asked.organization_id
LEFT JOIN teams ON teams.id = asked.team_id AND teams.organization_id = asked.organization_id
LEFT JOIN subscriptions ON subscriptions.organization_id = asked.organization_id
LEFT JOIN money ON money.organization_id = asked.organization_id
ORDER BY asked.place;

-- name: open_usage(period, organization_ids)!
-- Makes the counters of a period where they are missing. The organizations come sorted: two workers that open the same
-- counters wait for each other in one order.
INSERT INTO quota_usage (organization_id, period)
SELECT organization_id, :period FROM unnest(:organization_ids::text[]) AS opened (organization_id)
ON CONFLICT (organization_id, period) DO NOTHING;

-- name: lock_usage(organization_ids, periods)
-- Locks counters until the transaction ends and returns the units taken. All lock in this one order, so none
-- deadlocks; whoever changes a reservation holds its counter's lock.
SELECT quota_usage.organization_id, quota_usage.period, quota_usage.reserved + quota_usage.charged AS used
FROM quota_usage
WHERE (quota_usage.organization_id, quota_usage.period) IN (
    SELECT organization_id, period
    FROM unnest(:organization_ids::text[], :periods::text[]) AS wanted (organization_id, period)
)
ORDER BY quota_usage.organization_id, quota_usage.period
FOR UPDATE;

-- name: lock_free_usage(organization_ids, periods)
-- Locks those of these counters that no other transaction holds, without waiting, and returns the units taken of each.
SELECT quota_usage.organization_id, quota_usage.period, quota_usage.reserved + quota_usage.charged AS used
FROM quota_usage
WHERE (quota_usage.organization_id, quota_usage.period) IN (
    SELECT organization_id, period
    FROM unnest(:organization_ids::text[], :periods::text[]) AS wanted (organization_id, period)
)
ORDER BY quota_usage.organization_id, quota_usage.period
FOR UPDATE SKIP LOCKED;

-- name: decisions(job_ids, longest_wait)
-- Every decision so far about these jobs, of any run, or one row of NULLs. Limits how long this transaction's statements wait
-- for a lock, as above, and so does that where there is no decision yet.
WITH patience AS MATERIALIZED (
    SELECT set_config('lock_timeout', coalesce(:longest_wait, current_setting('lock_timeout')), true)
)
SELECT job_id, run, organization_id, period, state, code, message, priority, decided_at
FROM patience LEFT JOIN quota_ledger ON job_id = ANY(:job_ids::uuid[]);

-- name: on_record(job_ids)
-- Every decision so far about these jobs, of any run, and how their runs have ended, where they have: a run may have either
-- without the other.
SELECT
    job_id, run, entry.organization_id, entry.period, entry.state, entry.code, entry.message, entry.priority, entry.decided_at,
    ended.outcome
FROM (SELECT * FROM quota_ledger WHERE quota_ledger.job_id = ANY(:job_ids::uuid[])) AS entry
FULL JOIN (SELECT * FROM job_outcomes WHERE job_outcomes.job_id = ANY(:job_ids::uuid[])) AS ended USING (job_id, run);

-- name: outcomes(job_ids)
-- How the runs of these jobs have ended, where they have.
SELECT job_id, run, outcome FROM job_outcomes WHERE job_id = ANY(:job_ids::uuid[]);

-- name: insert_decisions(at, job_ids, runs, organization_ids, periods, states, codes, messages, priorities)$
-- Writes first decisions, adds the reservations among them to their locked counters, and returns how many were written. A
-- run that somebody else has just entered is left alone; if that is not committed yet, this waits for it. The runs come
-- sorted, so that those who wait do so in one order.
WITH inserted AS (
    INSERT INTO quota_ledger
        (job_id, run, organization_id, period, state, code, message, priority, decided_at, settled_at)
    SELECT
        job_id, run, organization_id, period, state, code, message, priority, :at,
        CASE WHEN state = 'released' THEN :at::timestamptz END
    FROM unnest(
        :job_ids::uuid[], :runs::int[], :organization_ids::text[], :periods::text[], :states::text[],
        :codes::text[], :messages::text[], :priorities::boolean[]
    ) AS decided (job_id, run, organization_id, period, state, code, message, priority)
    ON CONFLICT (job_id, run) DO NOTHING
    RETURNING organization_id, period, state
), counted AS (
    UPDATE quota_usage SET reserved = quota_usage.reserved + added.units
    FROM (
        SELECT organization_id, period, count(*) AS units
        FROM inserted
        WHERE state = 'reserved'
        GROUP BY organization_id, period
    ) AS added
    WHERE quota_usage.organization_id = added.organization_id AND quota_usage.period = added.period
)
SELECT count(*) FROM inserted;

-- name: settle(at, job_ids, runs, states)!
-- Charges or releases reservations, each once, and moves the locked counters by exactly the rows that changed.
WITH settled AS (
    UPDATE quota_ledger SET state = ended.state, settled_at = :at
    FROM unnest(:job_ids::uuid[], :runs::int[], :states::text[]) AS ended (job_id, run, state)
    WHERE quota_ledger.job_id = ended.job_id AND quota_ledger.run = ended.run AND quota_ledger.state = 'reserved'
    RETURNING quota_ledger.organization_id, quota_ledger.period, quota_ledger.state
), moved AS (
    SELECT organization_id, period, count(*) AS units, count(*) FILTER (WHERE state = 'charged') AS charges
    FROM settled
    GROUP BY organization_id, period
)
UPDATE quota_usage
SET reserved = quota_usage.reserved - moved.units, charged = quota_usage.charged + moved.charges
FROM moved
WHERE quota_usage.organization_id = moved.organization_id AND quota_usage.period = moved.period;
