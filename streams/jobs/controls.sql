-- name: in_force()
-- What operators want of the fleet now, and the closed gates of LLM endpoints: whoever waits for one asks again when it is gone.
SELECT kind, subject, organization_id, value, reason, set_by, set_at, expires_at,
    extract(epoch FROM expires_at - clock_timestamp())::float8 AS ends_in_s
FROM fleet_controls WHERE expires_at IS NULL OR expires_at > clock_timestamp()
UNION ALL
SELECT 'gate', endpoint, '', NULL, reason, '', closed_at, closed_until,
    extract(epoch FROM closed_until - clock_timestamp())::float8
FROM llm_gate WHERE closed_until > clock_timestamp() AND closed_at <= clock_timestamp();
