-- name: long_transactions()
-- Clients that have been in one transaction for over two seconds, and for whom each waits.
SELECT
    pid,
    state,
    coalesce(wait_event_type || ' ' || wait_event, 'waits for nothing') AS wait,
    extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds,
    pg_blocking_pids(pid) AS behind,
    query
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - interval '2 seconds'
ORDER BY xact_start;

-- name: waiting()
-- What waits for its time, by topic and reason.
SELECT
    topic,
    left(reason, 120) AS reason,
    count(*) AS records,
    extract(epoch FROM clock_timestamp() - min(created_at))::float AS since_s,
    extract(epoch FROM min(due_at) - clock_timestamp())::float AS due_s
FROM scheduled_events
GROUP BY 1, 2
ORDER BY 1, 2;
