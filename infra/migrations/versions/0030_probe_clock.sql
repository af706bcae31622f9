-- When the time of a hold's next probe was set: one that was set in the future says nothing, since the clock has been set back. The
-- beginning of the hold does not tell; it may be older than the step.
ALTER TABLE llm_holds ADD COLUMN probe_set_at timestamptz NOT NULL DEFAULT now();
