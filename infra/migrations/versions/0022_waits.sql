-- When an attempt's run came into the line, and when it was released: where its time has gone, after its row in
-- `dispatch_runs` is gone. NULL for attempts that were begun before it was kept.
ALTER TABLE generation_attempts ADD COLUMN entered_at timestamptz, ADD COLUMN released_at timestamptz;
