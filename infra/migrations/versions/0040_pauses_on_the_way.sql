-- An organization that is paused in a stage after quota may have no run under way: else those that wait there would hold slots
-- of the window, which others could have.
CREATE OR REPLACE FUNCTION dispatch_terms(whose text) RETURNS TABLE (weight double precision, most integer)
LANGUAGE sql STABLE AS $$
    SELECT
        greatest(0.001, least(1000, coalesce(
            given.weight::float8, shares.weight * CASE WHEN given.priority THEN 4 ELSE 1 END,
            CASE WHEN given.priority THEN 4 ELSE 1 END
        ))),
        CASE WHEN EXISTS (
            SELECT FROM fleet_controls AS control
            WHERE control.kind = 'pause' AND control.subject <> 'quota' AND control.organization_id = whose
                AND (control.expires_at IS NULL OR control.expires_at > clock_timestamp())
        ) THEN 0 ELSE coalesce(given.max_in_flight::int, shares.max_in_flight, 2147483647) END
    FROM (SELECT whose) AS asked
    LEFT JOIN subscriptions AS given ON given.organization_id = whose
    LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
    LIMIT 1
$$;
