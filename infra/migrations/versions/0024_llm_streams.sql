-- Whether the answers of an endpoint and model are read as streams, as some worker has found. While `streams` is NULL that is
-- unknown, and until `trial_until` one call is finding out.
CREATE TABLE llm_streams (
    endpoint text NOT NULL,
    model text NOT NULL,
    streams boolean,
    why text NOT NULL DEFAULT '',
    learned_at timestamptz,
    trial_until timestamptz,
    PRIMARY KEY (endpoint, model)
);
