-- name: stand(job_id, run, topics, admits, released_to)^
-- What is known of where a run stands; NULL as the run: the newest. `before`: how many of its organization come first, of the
-- next 10,000.
SELECT
    asked.run,
    clock_timestamp() AS now,
    coalesce(request.accepted_at, least(told.time, entry.decided_at), entry.decided_at) AS requested_at,
    coalesce(request.event, told.event) #>> '{data,run_at}' AS run_at,
    ended.decided_at AS ended_at,
    ended.outcome,
    line.job_id IS NOT NULL AS in_line,
    CASE WHEN entry.state <> 'rejected' THEN entry.decided_at END AS admitted_at,
    line.entered_at,
    line.released_at,
    CASE WHEN line.returned AND NOT line.due THEN 'parked' WHEN line.due THEN 'waiting' ELSE line.state END AS state,
    coalesce(terms.most, 2147483647) AS most,
    coalesce(known.in_flight, 0) AS in_flight,
    later.due_at AS later_at,
    paused.at_admission AS admission_paused,
    paused.admission_until,
    paused.on_the_way AS way_paused,
    paused.way_until,
    closed.until AS closed_until,
    closed.found AS is_closed,
    CASE WHEN closed.found THEN closed.since END AS closed_since,
    CASE WHEN line.state IN ('arrived', 'waiting') THEN (
        SELECT count(*) FROM (
            SELECT FROM dispatch_runs AS one
            WHERE one.organization_id = line.organization_id AND one.state = 'waiting'
                AND (one.rank, one.place) < (line.rank, line.place)
            LIMIT 10000
        ) AS first
    ) END AS before
FROM (
    SELECT coalesce(:run::int, (SELECT max(newest.run) FROM quota_ledger AS newest WHERE newest.job_id = :job_id), 1) AS run
) AS asked
LEFT JOIN job_requests AS request ON request.job_id = :job_id AND asked.run = 1
LEFT JOIN LATERAL (
    -- The request comes first, so few events are read before it. Fenced off by OFFSET: of a job with very many events, the planner
    -- would read the archive in its order until it comes upon one.
    SELECT one.time, one.event, one.organization_id
    FROM (
        SELECT * FROM job_events AS mine WHERE mine.job_id = :job_id ORDER BY mine.job_id, mine.sequence OFFSET 0
    ) AS one
    WHERE one.run = asked.run AND one.type = 'teamfit.job.requested.v1'
    LIMIT 1
) AS told ON true
LEFT JOIN quota_ledger AS entry ON entry.job_id = :job_id AND entry.run = asked.run
LEFT JOIN job_outcomes AS ended ON ended.job_id = :job_id AND ended.run = asked.run
LEFT JOIN dispatch_runs AS line ON line.job_id = :job_id AND line.run = asked.run
LEFT JOIN dispatch_organizations AS known ON known.organization_id = line.organization_id
LEFT JOIN LATERAL dispatch_terms(line.organization_id) AS terms ON line.job_id IS NOT NULL
LEFT JOIN LATERAL (
    SELECT one.due_at FROM scheduled_events AS one
    WHERE one.key = convert_to((:job_id::uuid)::text, 'UTF8') AND one.topic = ANY(:topics::text[])
    ORDER BY one.due_at LIMIT 1
) AS later ON true
CROSS JOIN LATERAL (
    SELECT
        bool_or(control.subject = :admits) AS at_admission,
        bool_or(control.subject = ANY(:released_to::text[])) AS on_the_way,
        nullif(max(coalesce(control.expires_at, 'infinity')) FILTER (WHERE control.subject = :admits), 'infinity')
            AS admission_until,
        nullif(
            max(coalesce(control.expires_at, 'infinity')) FILTER (WHERE control.subject = ANY(:released_to::text[])), 'infinity'
        ) AS way_until
    FROM fleet_controls AS control
    WHERE control.kind = 'pause' AND (control.expires_at IS NULL OR control.expires_at > clock_timestamp())
        AND control.organization_id IN ('', coalesce(
            line.organization_id, entry.organization_id, request.organization_id, told.organization_id
        ))
) AS paused
CROSS JOIN (
    -- One that has been used lately and takes calls may take the run, whichever others do not.
    SELECT
        count(*) > 0 AND NOT EXISTS (
            SELECT FROM llm_hours AS used
            WHERE used.hour > clock_timestamp() - interval '2 hours'
                AND NOT EXISTS (
                    SELECT FROM llm_gate AS gate
                    WHERE gate.endpoint = used.endpoint
                        AND gate.closed_until > clock_timestamp() AND gate.closed_at <= clock_timestamp()
                )
                AND NOT EXISTS (
                    SELECT FROM llm_holds AS hold
                    WHERE hold.passed_at IS NULL AND hold.model = used.model
                        AND (hold.endpoint = used.endpoint
                            OR used.endpoint LIKE replace(hold.endpoint, '_', '\_') || ' (%')
                )
        ) AS found,
        max(one.until) AS until,
        min(one.since) AS since
    FROM (
        SELECT closed_until AS until, closed_at AS since FROM llm_gate
        WHERE closed_until > clock_timestamp() AND closed_at <= clock_timestamp()
        UNION ALL
        SELECT next_probe_at, held_at FROM llm_holds WHERE passed_at IS NULL
    ) AS one
) AS closed;

-- name: rounds(job_id, run)
-- Its attempts, and before each when it waited for the LLM's limits, with when it came into the line and was released.
SELECT
    call.attempt AS nth, call.entered_at, call.released_at, call.held_from, call.held_until, call.started_at AS began_at,
    call.finished_at, false AS is_paced
FROM generation_attempts AS call
WHERE call.job_id = :job_id AND call.run = :run
UNION ALL
SELECT min(kept.nth), one.entered_at, one.released_at, NULL::timestamptz, NULL::timestamptz, one.began_at, NULL::timestamptz, true
FROM (
    SELECT call.attempt AS nth, call.paced FROM generation_attempts AS call
    WHERE call.job_id = :job_id AND call.run = :run
    UNION ALL
    SELECT 2147483647, line.paced FROM dispatch_runs AS line WHERE line.job_id = :job_id AND line.run = :run
) AS kept
CROSS JOIN LATERAL jsonb_to_recordset(kept.paced)
    AS one (entered_at timestamptz, released_at timestamptz, began_at timestamptz)
GROUP BY one.entered_at, one.released_at, one.began_at
ORDER BY nth, is_paced DESC, began_at;
