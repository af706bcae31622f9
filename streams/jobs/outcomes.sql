-- name: decide(job_ids, runs, outcome, fact)!
-- Writes how runs ended; a run that is decided keeps its first outcome.
INSERT INTO job_outcomes (job_id, run, outcome, fact)
SELECT job_id, run, :outcome, :fact
FROM unnest(:job_ids::uuid[], :runs::int[]) AS undecided (job_id, run)
ON CONFLICT (job_id, run) DO NOTHING;

-- name: outcome_of(job_id, run)^
-- The outcome of one run and the fact kept with it; no row while the run is undecided.
SELECT outcome, fact FROM job_outcomes WHERE job_id = :job_id AND run = :run;

-- name: decide_each(job_ids, runs, outcome, facts)!
-- Writes how runs ended, each with its own fact; a run that is decided keeps its first outcome. Sorted, so that two
-- writers cannot deadlock.
INSERT INTO job_outcomes (job_id, run, outcome, fact)
SELECT job_id, run, :outcome, fact
FROM unnest(:job_ids::uuid[], :runs::int[], :facts::jsonb[]) AS undecided (job_id, run, fact)
ORDER BY job_id, run
ON CONFLICT (job_id, run) DO NOTHING;

-- name: outcomes_of(job_ids, runs)
-- The outcomes of runs and the facts kept with them; no row for a run that is undecided.
SELECT job_id, run, outcome, fact
FROM job_outcomes
WHERE (job_id, run) IN (SELECT * FROM unnest(:job_ids::uuid[], :runs::int[]));

-- name: complete(job_ids, runs)
-- Writes that runs were completed and returns the outcome that stands. Sorted, so that two writers cannot deadlock.
INSERT INTO job_outcomes (job_id, run, outcome)
SELECT job_id, run, 'completed'
FROM unnest(:job_ids::uuid[], :runs::int[]) AS undecided (job_id, run)
ORDER BY job_id, run
-- The update changes nothing; without it a decided run would not be returned.
ON CONFLICT (job_id, run) DO UPDATE SET outcome = job_outcomes.outcome
RETURNING job_id, run, outcome;
