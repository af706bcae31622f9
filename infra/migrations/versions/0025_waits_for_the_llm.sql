-- When a run began to wait until the LLM's limits have room, and in which round of the line that was:
-- [{"entered_at", "released_at", "began_at"}, …]. Copied to its next attempt, as the row here goes with the run.
ALTER TABLE dispatch_runs ADD COLUMN paced jsonb NOT NULL DEFAULT '[]';
-- And from when until when its endpoint took no calls before it was begun.
ALTER TABLE generation_attempts
    ADD COLUMN paced jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN held_from timestamptz,
    ADD COLUMN held_until timestamptz;
