-- name: add_organization(id, name, trust_score, plan, monthly_quota, priority)!
-- A demo organization with its plan; one that is there already stays as it is.
WITH organization AS (
    INSERT INTO organizations (id, name, trust_score) VALUES (:id, :name, :trust_score)
    ON CONFLICT (id) DO NOTHING
)
INSERT INTO subscriptions (organization_id, plan, status, monthly_quota, priority)
VALUES (:id, :plan, 'active', :monthly_quota, :priority)
ON CONFLICT (organization_id) DO NOTHING;

-- name: add_usage(organization_id, period, charged)!
-- What an organization has used up in a period before the demo begins.
INSERT INTO quota_usage (organization_id, period, charged) VALUES (:organization_id, :period, :charged)
ON CONFLICT (organization_id, period) DO NOTHING;

-- name: add_team(id, organization_id, name, size, description)!
-- An organization's team.
INSERT INTO teams (id, organization_id, name, size, description)
VALUES (:id, :organization_id, :name, :size, :description)
ON CONFLICT (id) DO NOTHING;

-- name: add_material(team_id, title, content)!
-- Something that the team has written about itself, unless it has it already.
INSERT INTO team_materials (team_id, title, content)
SELECT :team_id, :title, :content
WHERE NOT EXISTS (SELECT FROM team_materials WHERE team_id = :team_id AND title = :title);
