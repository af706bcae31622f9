-- Where organizations want to be told of their events. `secret_before` signs too until its time is over. `failing_since`: the first
-- failure after the last success. A disabled endpoint is sent nothing, and what is for it waits.
CREATE TABLE webhook_endpoints (
    id uuid PRIMARY KEY,
    organization_id text NOT NULL,
    url text NOT NULL,
    types text[] NOT NULL,
    secret text NOT NULL,
    secret_before text,
    secret_before_until timestamptz,
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_because text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((disabled_at IS NULL) = (disabled_because IS NULL)),
    CHECK ((secret_before IS NULL) = (secret_before_until IS NULL))
);
CREATE INDEX webhook_endpoints_organization ON webhook_endpoints (organization_id, created_at);

-- One row for each endpoint and event. `event`: the fact as it was published; NULL of a test. `due_at`: the next try; while one is
-- under way, when another process may take it over. `attempts`: tries whose end is known.
CREATE TABLE webhook_deliveries (
    endpoint_id uuid NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    event_id text NOT NULL,
    type text NOT NULL,
    job_id uuid,
    event bytea,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    last_attempt_at timestamptz,
    last_status integer,
    last_error text,
    delivered_at timestamptz,
    given_up_at timestamptz,
    PRIMARY KEY (endpoint_id, event_id),
    CHECK (delivered_at IS NULL OR given_up_at IS NULL)
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (endpoint_id, due_at)
WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (endpoint_id, created_at);
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at);

-- How far the archive was compared with the deliveries: what the broker lost is found there.
CREATE TABLE webhook_progress (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    sequence bigint NOT NULL
);
