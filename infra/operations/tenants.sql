-- name: insert_organization(id, name, trust_score)!
-- A new organization; one that is there already stays as it is.
INSERT INTO organizations (id, name, trust_score) VALUES (:id, :name, :trust_score)
ON CONFLICT (id) DO NOTHING;

-- name: insert_subscription(id, plan, status, monthly_quota, priority, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind)!
-- Its subscription; one that is there already stays as it is.
INSERT INTO subscriptions
    (organization_id, plan, status, monthly_quota, priority, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind)
VALUES (
    :id, :plan, :status, :monthly_quota, :priority, :weight, :max_in_flight, :requests_per_minute, :max_waiting, :budget, :budget_kind
)
ON CONFLICT (organization_id) DO NOTHING;

-- name: update_organization(id, name, trust_score)!
-- Whatever of it is given.
UPDATE organizations SET name = coalesce(:name, name), trust_score = coalesce(:trust_score, trust_score) WHERE id = :id;

-- name: update_subscription(id, plan, status, monthly_quota, priority, weight, max_in_flight, requests_per_minute, max_waiting, budget, budget_kind, as_plan)!
-- Whatever of it is given. With `as_plan`, what is not given of its share is its plan's.
UPDATE subscriptions
SET plan = coalesce(:plan, plan),
    status = coalesce(:status, status),
    monthly_quota = coalesce(:monthly_quota, monthly_quota),
    priority = coalesce(:priority, priority),
    weight = coalesce(:weight, CASE WHEN NOT :as_plan THEN weight END),
    max_in_flight = coalesce(:max_in_flight, CASE WHEN NOT :as_plan THEN max_in_flight END),
    requests_per_minute = coalesce(:requests_per_minute, CASE WHEN NOT :as_plan THEN requests_per_minute END),
    max_waiting = coalesce(:max_waiting, CASE WHEN NOT :as_plan THEN max_waiting END),
    budget = coalesce(:budget, CASE WHEN NOT :as_plan THEN budget END),
    budget_kind = coalesce(:budget_kind, CASE WHEN NOT :as_plan THEN budget_kind END)
WHERE organization_id = :id;

-- name: organizations(id, name, after, limit)
-- Organizations with their subscriptions: one, or a page of those whose ID or name has a text in it, after an ID.
SELECT organizations.id, name, trust_score, plan, status, monthly_quota, priority,
    subscriptions.weight, subscriptions.max_in_flight, subscriptions.requests_per_minute, subscriptions.max_waiting,
    subscriptions.budget, subscriptions.budget_kind,
    terms.weight AS share, nullif(terms.most, 2147483647) AS cap,
    (SELECT count(*) FROM teams WHERE teams.organization_id = organizations.id) AS teams,
    coalesce(line.waiting, 0) AS waiting, coalesce(line.in_flight, 0) AS in_flight
FROM organizations LEFT JOIN subscriptions ON subscriptions.organization_id = organizations.id
LEFT JOIN dispatch_organizations AS line ON line.organization_id = organizations.id
CROSS JOIN LATERAL dispatch_terms(organizations.id) AS terms
WHERE (CAST(:id AS text) IS NULL OR organizations.id = :id)
    AND (CAST(:after AS text) IS NULL OR organizations.id > :after)
    AND (
        CAST(:name AS text) IS NULL
        OR strpos(lower(organizations.id), lower(:name)) > 0 OR strpos(lower(organizations.name), lower(:name)) > 0
    )
ORDER BY organizations.id
LIMIT :limit;

-- name: insert_team(id, organization_id, name, size, description)!
-- A new team; one that is there already stays as it is.
INSERT INTO teams (id, organization_id, name, size, description)
VALUES (:id, :organization_id, :name, :size, :description)
ON CONFLICT (id) DO NOTHING;

-- name: teams(id, organization_id)
-- Teams: one, those of an organization, or all.
SELECT id, organization_id, name, size, description FROM teams
WHERE (CAST(:id AS text) IS NULL OR id = :id)
    AND (CAST(:organization_id AS text) IS NULL OR organization_id = :organization_id)
ORDER BY organization_id, id;
