-- name: is_here(process, kind, host, pid, version, stages, rss_bytes, log_level, doing)!
-- Says that a process lives and what it does. Rows of those that are gone are deleted after an hour.
WITH old AS (
    DELETE FROM fleet_processes WHERE process IN (
        SELECT process FROM fleet_processes WHERE seen_at < clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO fleet_processes AS known
    (process, kind, host, pid, version, stages, seen_at, rss_bytes, log_level, doing)
VALUES (:process, :kind, :host, :pid, :version, :stages, clock_timestamp(), :rss_bytes, :log_level, (:doing::text)::jsonb)
ON CONFLICT (process) DO UPDATE SET
    stages = excluded.stages, seen_at = excluded.seen_at, rss_bytes = excluded.rss_bytes, log_level = excluded.log_level,
    doing = excluded.doing;

-- name: is_gone(process)!
-- Says that a process has ended in good order.
UPDATE fleet_processes SET ended_at = clock_timestamp(), seen_at = clock_timestamp() WHERE process = :process;
