-- `compared_from`: each fact that was archived since then has its delivery. What is older came before the endpoint, or its delivery
-- was deleted: by retention, or with all else that a customer wanted to be erased. Of what was deleted before this revision nothing
-- is known, so endpoints are compared from now on, and from a little before, for what the broker loses meanwhile.
ALTER TABLE webhook_endpoints ADD COLUMN compared_from timestamptz;
UPDATE webhook_endpoints SET compared_from = greatest(created_at, now() - interval '1 hour');
ALTER TABLE webhook_endpoints ALTER COLUMN compared_from SET DEFAULT clock_timestamp(), ALTER COLUMN compared_from SET NOT NULL;
