-- name: dialect(endpoint, model, completion_format)^
-- How the endpoint is asked, if some worker has learned it.
SELECT form, answer_limit, takes_system FROM llm_dialects
WHERE endpoint = :endpoint AND model = :model AND completion_format = :completion_format AND learned_at IS NOT NULL;

-- name: begin_learning(endpoint, model, completion_format, lease)$
-- Gives one worker the turn to learn, for as long as its lease; true for the one that has it.
INSERT INTO llm_dialects AS known (endpoint, model, completion_format, learner_until)
VALUES (:endpoint, :model, :completion_format, clock_timestamp() + :lease::interval)
ON CONFLICT (endpoint, model, completion_format) DO UPDATE SET learner_until = excluded.learner_until
WHERE known.learned_at IS NULL AND (
    known.learner_until IS NULL OR known.learner_until <= clock_timestamp()
    -- A turn longer than any was taken by a clock that has been set back since.
    OR known.learner_until > clock_timestamp() + :lease::interval + interval '1 second'
)
RETURNING true;

-- name: end_learning(endpoint, model, completion_format)!
-- Gives the turn back, whatever was learned.
UPDATE llm_dialects SET learner_until = NULL
WHERE endpoint = :endpoint AND model = :model AND completion_format = :completion_format;

-- name: learned(endpoint, model, completion_format, form, answer_limit, takes_system, why)!
-- Tells the fleet how the endpoint is asked from now on.
INSERT INTO llm_dialects (endpoint, model, completion_format, form, answer_limit, takes_system, why, learned_at)
VALUES (:endpoint, :model, :completion_format, :form, :answer_limit, :takes_system, :why, clock_timestamp())
ON CONFLICT (endpoint, model, completion_format) DO UPDATE SET
    form = excluded.form,
    answer_limit = excluded.answer_limit,
    takes_system = excluded.takes_system,
    why = excluded.why,
    learned_at = excluded.learned_at,
    learner_until = NULL;

-- name: dialects()
-- What was learned of every endpoint and model.
SELECT
    known.endpoint, known.model, known.completion_format, known.form, known.answer_limit, known.takes_system,
    told.streams, concat_ws('; ', known.why, CASE WHEN NOT told.streams THEN 'no stream: ' || told.why END) AS why,
    known.learned_at
FROM llm_dialects AS known
LEFT JOIN llm_streams AS told USING (endpoint, model)
WHERE known.learned_at IS NOT NULL ORDER BY known.endpoint, known.model, known.completion_format;

-- name: forget_dialects(endpoint)
-- Forgets what was learned of an endpoint, or of all.
WITH streams AS (DELETE FROM llm_streams WHERE :endpoint::text IS NULL OR endpoint = :endpoint)
DELETE FROM llm_dialects WHERE learned_at IS NOT NULL AND (:endpoint::text IS NULL OR endpoint = :endpoint)
RETURNING endpoint, model, completion_format;

-- name: hold(endpoint, model, credential, blame, code, sentence, wait, cap)^
-- Begins a hold, or begins one again that a probe had ended: then its waits go on from where they were, unless calls have
-- succeeded since. One that stands is left as it is.
INSERT INTO llm_holds AS held (endpoint, model, credential, blame, code, sentence, next_probe_at, probe_set_at)
VALUES (:endpoint, :model, :credential, :blame, :code, :sentence, clock_timestamp() + :wait::interval, clock_timestamp())
ON CONFLICT (endpoint, model, credential) DO UPDATE SET
    blame = excluded.blame,
    code = excluded.code,
    sentence = excluded.sentence,
    held_at = excluded.held_at,
    next_probe_at = clock_timestamp()
        + least(:wait::interval * 2 ^ least(held.probes, 20), greatest(:cap::interval, :wait::interval)),
    probe_set_at = excluded.probe_set_at,
    passed_at = NULL
WHERE held.passed_at IS NOT NULL
RETURNING next_probe_at - clock_timestamp() AS wait;

-- name: held(endpoint, model, credential)^
-- Why the endpoint is held and when its next probe is due, as an attempt's begin reads it; no row: it is not held.
SELECT
    sentence,
    blame,
    CASE WHEN probe_set_at <= clock_timestamp() + interval '1 second' THEN next_probe_at - clock_timestamp() END
        AS next_probe_in
FROM llm_holds
WHERE endpoint = :endpoint AND model = :model AND credential = :credential AND passed_at IS NULL;

-- name: take_probe(endpoint, model, credential, probe_time)$
-- Gives one worker the turn to probe, and no other before it is over; true for the one that has it. A time that was set in
-- the future was set by a clock that has been set back since: then the probe is due.
UPDATE llm_holds SET
    next_probe_at = clock_timestamp() + :probe_time::interval, probe_set_at = clock_timestamp(), probes = probes + 1
WHERE endpoint = :endpoint AND model = :model AND credential = :credential AND passed_at IS NULL
    AND (next_probe_at <= clock_timestamp() OR probe_set_at > clock_timestamp() + interval '1 second')
RETURNING true;

-- name: probe_failed(endpoint, model, credential, blame, code, sentence, wait, cap)$
-- Puts the next probe off, twice as long as the last time, and says what this one has met.
UPDATE llm_holds SET
    blame = :blame,
    code = :code,
    sentence = :sentence,
    next_probe_at = clock_timestamp()
        + least(:wait::interval * 2 ^ least(probes, 20), greatest(:cap::interval, :wait::interval)),
    probe_set_at = clock_timestamp()
WHERE endpoint = :endpoint AND model = :model AND credential = :credential AND passed_at IS NULL
RETURNING next_probe_at - clock_timestamp();

-- name: probe_passed(endpoint, model, credential)!
-- Ends the hold.
UPDATE llm_holds SET passed_at = clock_timestamp()
WHERE endpoint = :endpoint AND model = :model AND credential = :credential AND passed_at IS NULL;

-- name: calls_succeed(endpoint, model, credential)!
-- Lets the next hold begin with a short wait: since the last one, real calls have succeeded.
UPDATE llm_holds SET probes = 0
WHERE endpoint = :endpoint AND model = :model AND credential = :credential AND passed_at IS NOT NULL AND probes > 0;

-- name: holds()
-- Every hold that stands.
SELECT
    endpoint, model, blame, code, sentence, held_at, probes,
    CASE WHEN probe_set_at > clock_timestamp() + interval '1 second' THEN interval '0'
    ELSE greatest(next_probe_at - clock_timestamp(), interval '0') END AS next_probe_in
FROM llm_holds WHERE passed_at IS NULL ORDER BY endpoint, model, credential;

-- name: begin_probe(endpoint, model)$
-- Adds a call that is about to be made for no job to the month's total; what it costs is unknown until it has ended.
INSERT INTO llm_probes AS total (endpoint, model, period, calls, maybe_billed_calls, prompt_tokens, completion_tokens)
VALUES (:endpoint, :model, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM'), 1, 1, 0, 0)
ON CONFLICT (endpoint, model, period) DO UPDATE
SET calls = total.calls + 1, maybe_billed_calls = total.maybe_billed_calls + 1
RETURNING period;

-- name: end_probe(endpoint, model, month, maybe_billed, prompt_tokens, completion_tokens)!
-- Adds what such a call cost, if that is known.
UPDATE llm_probes SET
    maybe_billed_calls = maybe_billed_calls - (NOT :maybe_billed::boolean)::int,
    prompt_tokens = prompt_tokens + :prompt_tokens,
    completion_tokens = completion_tokens + :completion_tokens
WHERE endpoint = :endpoint AND model = :model AND period = :month;
