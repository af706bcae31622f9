-- Whether the request of a replayed run was seen in the archive after it was sent. Until then the plan is its only trace.
ALTER TABLE replay_plan_items ADD COLUMN arrived boolean NOT NULL DEFAULT false;
CREATE INDEX replay_plan_items_not_arrived ON replay_plan_items (job_id, next_run)
WHERE action = 'rerun' AND sent_at IS NOT NULL AND NOT arrived;
