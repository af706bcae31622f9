-- name: take_one(organization_id)^
-- Takes a request from an organization's bucket, if one is in it.
SELECT per_minute, granted, remaining, wait FROM intake_take_one(:organization_id);

-- name: take_each(organization_ids, wanted)
-- The same for several, in the order given, with the room that each has for waiting runs. Nothing is taken, nor locked, where
-- nothing is wanted.
SELECT asked.organization_id, intake_room(asked.organization_id) AS room, taken.per_minute, coalesce(taken.granted, 0) AS granted
FROM unnest(:organization_ids::text[], :wanted::int[]) AS asked (organization_id, wanted)
LEFT JOIN LATERAL intake_take(asked.organization_id, asked.wanted) AS taken ON asked.wanted > 0;
