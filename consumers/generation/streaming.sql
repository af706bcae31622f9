-- name: streams(endpoint, model)$
-- Whether an endpoint's answers are read as streams; NULL: not known.
SELECT streams FROM llm_streams WHERE endpoint = :endpoint AND model = :model;

-- name: begin_trial(endpoint, model, lease)$
-- Lets one call of the fleet find it out, for as long as it may take; true for the one that has the turn.
INSERT INTO llm_streams AS known (endpoint, model, trial_until)
VALUES (:endpoint, :model, clock_timestamp() + :lease::interval)
ON CONFLICT (endpoint, model) DO UPDATE SET trial_until = excluded.trial_until
WHERE known.streams IS NULL AND (
    known.trial_until IS NULL OR known.trial_until <= clock_timestamp()
    -- A turn longer than any was taken by a clock that has been set back since.
    OR known.trial_until > clock_timestamp() + :lease::interval + interval '1 second'
)
RETURNING true;

-- name: end_trial(endpoint, model)!
-- Gives the turn back; nothing was found out.
UPDATE llm_streams SET trial_until = NULL WHERE endpoint = :endpoint AND model = :model;

-- name: learned_streams(endpoint, model, streams, why)!
-- Tells the fleet what was found.
INSERT INTO llm_streams (endpoint, model, streams, why, learned_at)
VALUES (:endpoint, :model, :streams, :why, clock_timestamp())
ON CONFLICT (endpoint, model) DO UPDATE SET
    streams = excluded.streams, why = excluded.why, learned_at = excluded.learned_at, trial_until = NULL;
