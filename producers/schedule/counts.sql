-- name: take_turn()$
-- Whether this transaction is the one that counts; of two that would, the second leaves it to the first.
SELECT pg_try_advisory_xact_lock(hashtext('teamfit.job_counts'));

-- name: progress()^
-- Up to where in the archive jobs are counted, and where the archive ends; both from an index's end.
SELECT
    (SELECT counted_to FROM job_counts_progress) AS counted_to,
    coalesce((SELECT max(sequence) FROM job_events), 0) AS archived_to;

-- name: changed(after, limit)^
-- The next events of the archive, up to a number: the last of them, how many, and the times of all that their jobs lived through.
-- A job counts where it began and where it ended, so nothing else can have changed.
WITH page AS (
    SELECT sequence, job_id FROM job_events WHERE sequence > :after ORDER BY sequence LIMIT :limit
)
SELECT
    (SELECT max(sequence) FROM page) AS last,
    (SELECT count(*) FROM page) AS events,
    array(
        SELECT DISTINCT date_bin('5 minutes', event.time, 'epoch')
        FROM (SELECT DISTINCT job_id FROM page) AS job
        JOIN job_events AS event ON event.job_id = job.job_id
        WHERE event.type <> 'teamfit.job.progressed.v1'
        ORDER BY 1
    ) AS times;

-- name: forget(since, until)!
-- Forgets the counts from a time until another.
DELETE FROM job_counts WHERE at >= :since AND at < :until;

-- name: count(since, until, width)!
-- Counts the jobs that began or ended from a time until another, as one row for each width of it, state and time taken; by
-- two indexes.
-- The words are the read model's, and Celery's. Whether a job was to wait is asked of those alone that took long.
INSERT INTO job_counts (at, state, took, jobs)
SELECT date_bin(:width::interval, created_at, :since::timestamptz), 'asked', 0, count(*)
FROM customization_jobs WHERE created_at >= :since AND created_at < :until
GROUP BY 1
UNION ALL
SELECT ended.at, ended.state, ended.took, count(*)
FROM (
    SELECT
        date_bin(:width::interval, job.completed_at, :since::timestamptz) AS at,
        word.state,
        CASE
            WHEN word.state <> 'completed' THEN 0
            WHEN job.run > 1 OR (
                job.completed_at > job.created_at + interval '1 minute' AND EXISTS (
                    SELECT FROM job_events AS asked
                    WHERE asked.job_id = job.job_id AND asked.type = 'teamfit.job.requested.v1'
                        AND asked.event #>> '{data,run_at}' IS NOT NULL
                )
            ) THEN 999
            ELSE least(120, floor(4 * log(2, greatest(
                0.03, extract(EPOCH FROM job.completed_at - job.created_at)
            ))))::smallint
        END AS took
    FROM customization_jobs AS job
    JOIN (
        VALUES ('completed', 'completed'), ('success', 'completed'), ('failed', 'failed'), ('failure', 'failed'),
            ('cancelled', 'cancelled'), ('revoked', 'cancelled')
    ) AS word (said, state) ON word.said = lower(job.status)
    WHERE job.completed_at >= :since AND job.completed_at < :until
) AS ended
GROUP BY 1, 2, 3;

-- name: note_progress(counted_to)!
-- Notes up to where the archive is counted.
INSERT INTO job_counts_progress AS known (counted_to) VALUES (:counted_to)
ON CONFLICT (only_row) DO UPDATE SET counted_to = greatest(known.counted_to, excluded.counted_to);

-- name: first_time(since)^
-- When the first job since a time was asked for or ended, and before when whole jobs are deleted.
SELECT
    least(
        (SELECT min(created_at) FROM customization_jobs WHERE created_at >= :since),
        (SELECT min(completed_at) FROM customization_jobs WHERE completed_at >= :since)
    ) AS first,
    (SELECT jobs_horizon FROM archive_retention) AS deleted_before;
