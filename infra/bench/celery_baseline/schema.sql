-- The tables as the Celery task knew them.
CREATE TABLE subscriptions (organization_id text PRIMARY KEY, monthly_quota integer NOT NULL);
CREATE TABLE quota_usage (organization_id text PRIMARY KEY, charged integer NOT NULL DEFAULT 0);
CREATE TABLE customization_jobs (
    job_id uuid PRIMARY KEY,
    organization_id text NOT NULL,
    requirements text NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    error_message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE TABLE customized_activities (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL REFERENCES customization_jobs (job_id),
    title text NOT NULL,
    description text NOT NULL
);
