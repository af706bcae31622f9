-- name: begin(name)!
-- Notes that a periodic task runs, and that it is wanted no more.
INSERT INTO periodic_tasks AS known (name, started_at) VALUES (:name, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET started_at = excluded.started_at, ended_at = NULL, wanted_at = NULL, wanted_by = NULL;

-- name: end(name, error)!
-- Notes that it has run, and by which error it failed.
UPDATE periodic_tasks SET ended_at = clock_timestamp(), error = :error WHERE name = :name;

-- name: ran(name, error)!
-- Notes that a task of every few seconds has run.
INSERT INTO periodic_tasks AS known (name, started_at, ended_at, error)
VALUES (:name, clock_timestamp(), clock_timestamp(), :error)
ON CONFLICT (name) DO UPDATE SET
    started_at = excluded.started_at, ended_at = excluded.ended_at, error = excluded.error;

-- name: wanted(names)
-- The tasks that an operator wants now.
SELECT name FROM periodic_tasks WHERE wanted_at IS NOT NULL AND name = ANY(:names::text[]) ORDER BY wanted_at;

-- name: standings()
-- How each task ran last.
SELECT name, started_at, ended_at, error, wanted_at, wanted_by FROM periodic_tasks;

-- name: lock(name, longest)^
-- Makes a task's row, locks it and returns it.
INSERT INTO periodic_tasks AS known (name) VALUES (:name)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING started_at, ended_at, wanted_at, wanted_by, clock_timestamp() - started_at < :longest::interval AS lately;

-- name: want(name, who)!
-- Has the schedule worker that leads run a task now.
UPDATE periodic_tasks SET wanted_at = clock_timestamp(), wanted_by = :who WHERE name = :name;
