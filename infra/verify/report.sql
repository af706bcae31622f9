-- name: forget_old(keep)!
-- Deletes what checks of long ago have found.
DELETE FROM verify_reports WHERE at < clock_timestamp() - :keep::interval;

-- name: note(at, settled, ok, violated)!
-- Notes what a check has found. Two of one moment have found the same.
INSERT INTO verify_reports (at, settled, ok, violated) VALUES (:at, :settled, :ok, (:violated::text)::jsonb)
ON CONFLICT (at) DO NOTHING;
