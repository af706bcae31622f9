-- When a gate was closed and a record was kept: what lies in the future was written before the clock was set back.
ALTER TABLE llm_gate ADD COLUMN closed_at timestamptz NOT NULL DEFAULT clock_timestamp();
CREATE INDEX scheduled_events_created_at ON scheduled_events (created_at);
