-- name: knows_organization(organization_id)$
-- Whether there is an organization, or was: jobs of it are there.
SELECT EXISTS (SELECT FROM organizations WHERE id = :organization_id)
    OR EXISTS (SELECT FROM customization_jobs WHERE organization_id = :organization_id);

-- name: owner_of_team(team_id)^
-- Whose team it is, or was; no row: none is known.
(SELECT organization_id FROM teams WHERE id = :team_id)
UNION ALL
(SELECT organization_id FROM customization_jobs WHERE team_id = :team_id ORDER BY team_id, created_at LIMIT 1)
LIMIT 1;

-- name: organizations_near(name)^
-- The IDs around a name in their order, as it is written and in small letters.
SELECT ARRAY(
    SELECT near.id FROM (VALUES (:name::text), (lower(:name::text))) AS wanted (name)
    CROSS JOIN LATERAL (
        (SELECT id FROM organizations WHERE id >= wanted.name ORDER BY id LIMIT 50)
        UNION ALL
        (SELECT id FROM organizations WHERE id < wanted.name ORDER BY id DESC LIMIT 50)
    ) AS near
) AS names;

-- name: teams_near(name)^
-- The same of teams.
SELECT ARRAY(
    SELECT near.id FROM (VALUES (:name::text), (lower(:name::text))) AS wanted (name)
    CROSS JOIN LATERAL (
        (SELECT id FROM teams WHERE id >= wanted.name ORDER BY id LIMIT 50)
        UNION ALL
        (SELECT id FROM teams WHERE id < wanted.name ORDER BY id DESC LIMIT 50)
    ) AS near
) AS names;
