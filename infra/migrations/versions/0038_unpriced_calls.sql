-- The calls that have no price, by model: the console's page of the LLM counts them, and a price that is set looks for them. Without it
-- every call on record was read for that. A call that has a price is not in it. If it is there already it stays: on a large database it
-- can be made beforehand, CONCURRENTLY, while everything runs.
CREATE INDEX IF NOT EXISTS generation_attempts_unpriced ON generation_attempts ((coalesce(model, '')), started_at)
WHERE state <> 'started' AND cost IS NULL;
