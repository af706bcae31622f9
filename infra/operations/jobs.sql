-- name: job(job_id)^
-- What customers see, if the projection knows the job.
SELECT status, run, organization_id, team_id, error_code, error_message, created_at, started_at, completed_at, updated_at
FROM customization_jobs WHERE job_id = :job_id;

-- name: request(job_id)^
-- What the HTTP intake took in.
SELECT organization_id, team_id, idempotency_key, accepted_at FROM job_requests WHERE job_id = :job_id;

-- name: facts(job_id, limit)
-- The first facts of the archive, in the order of arrival, with what each says. No more of them are read than are asked for.
SELECT run, time, type, event ->> 'source' AS source, event ->> 'traceparent' AS traceparent, concat_ws(
    ': ',
    coalesce(event #>> '{data,code}', event #>> '{data,step}', event #>> '{data,run_at}'),
    coalesce(event #>> '{data,error_message}', event #>> '{data,message}', event #>> '{data,reason}')
) AS says
FROM job_events WHERE job_id = :job_id
ORDER BY job_id, sequence LIMIT :limit;

-- name: outcomes(job_id)
-- How each run ended.
SELECT run, outcome, decided_at FROM job_outcomes WHERE job_id = :job_id ORDER BY run;

-- name: quota(job_id)
-- A unit for each run.
SELECT run, state, period, code, message, priority, decided_at, settled_at
FROM quota_ledger WHERE job_id = :job_id ORDER BY run;

-- name: calls(job_id)
-- Calls to the LLM that were made or may have been.
SELECT run, attempt, state, error_code, model, prompt_tokens, completion_tokens, maybe_billed, started_at, finished_at
FROM generation_attempts WHERE job_id = :job_id ORDER BY run, attempt;

-- name: scheduled(job_id)
-- What is published later: retries, a run_at.
SELECT due_at, topic, reason FROM scheduled_events
WHERE key = convert_to(:job_id::uuid::text, 'UTF8') ORDER BY due_at;

-- name: failed(job_id)
-- Its dead letters.
SELECT id, stage, reason, error_type, error_message, state, occurrences, last_failed_at
FROM failed_events WHERE job_id = :job_id ORDER BY last_failed_at;

-- name: reemissions(job_id)
-- How often the reconciler found it standing still, and why it could not be sent on.
SELECT run, times, last_at, set_aside FROM reemissions WHERE job_id = :job_id ORDER BY run;

-- name: activities(job_id)
-- What the customer got.
SELECT position, run, title FROM customized_activities WHERE job_id = :job_id ORDER BY position;
