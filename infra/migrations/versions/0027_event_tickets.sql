-- Tickets for the event stream of one job, each until it is used. Only their hashes: whoever reads the table opens no stream.
CREATE TABLE event_tickets (
    secret_hash bytea PRIMARY KEY,
    job_id uuid NOT NULL,
    organization_id text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ON event_tickets (expires_at);
