-- A clock that was set back by an hour had refused every request for an hour.
-- Takes `wanted` requests from an organization's bucket, or as many as are in it; it fills evenly. Whoever comes at the same time
-- waits for the transaction, so together they get no more. `wait`: seconds until another request is in it, or, where one is,
-- until it is full.
CREATE OR REPLACE FUNCTION intake_take(whose text, wanted integer)
RETURNS TABLE (per_minute integer, granted integer, remaining integer, wait double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    most integer;
    lacks double precision;  -- seconds until it is full
    free integer;
    taken integer;
BEGIN
    SELECT terms.per_minute INTO most FROM intake_terms(whose) AS terms;
    IF most = 0 THEN
        RETURN QUERY SELECT 0, 0, 0, 60::double precision;
        RETURN;
    END IF;
    INSERT INTO intake_rates (organization_id, full_at) VALUES (whose, '-infinity') ON CONFLICT DO NOTHING;
    -- The time is read when the row is locked. One that is further off than a bucket takes to fill was written before the clock was
    -- set back, and says nothing: then the bucket is full, else nobody would be let in for as long as the clock was ahead.
    SELECT CASE WHEN rate.full_at = '-infinity' OR rate.full_at > clock_timestamp() + interval '61 seconds' THEN 0 ELSE
        greatest(0, least(60, extract(epoch FROM rate.full_at - clock_timestamp())::float8))
    END INTO lacks FROM intake_rates AS rate WHERE rate.organization_id = whose FOR UPDATE;
    free := floor(most * (1 - lacks / 60) + 0.0001);
    taken := least(wanted, free);
    IF taken > 0 THEN
        lacks := lacks + taken * 60.0::float8 / most;
        UPDATE intake_rates AS rate SET full_at = clock_timestamp() + make_interval(secs => lacks)
        WHERE rate.organization_id = whose;
    END IF;
    free := free - taken;
    RETURN QUERY SELECT most, taken, free,
        CASE WHEN free > 0 THEN lacks ELSE greatest(0, lacks - 60 + 60.0::float8 / most) END;
END
$$;
