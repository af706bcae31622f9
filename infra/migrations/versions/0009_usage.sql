-- What a call cost is known or unknown. Counts that nobody can have meant, and the zeros that stood for a missing `usage`,
-- become unknown; the trigger takes them out of `llm_usage`. No prompt is empty, and no saved answer is.
UPDATE generation_attempts
SET
    prompt_tokens = CASE WHEN prompt_tokens BETWEEN 1 AND 10000000 THEN prompt_tokens END,
    completion_tokens = CASE
        WHEN completion_tokens BETWEEN (state = 'saved')::int AND 10000000 THEN completion_tokens
    END,
    maybe_billed = true
WHERE prompt_tokens NOT BETWEEN 1 AND 10000000
    OR completion_tokens NOT BETWEEN (state = 'saved')::int AND 10000000;

UPDATE customized_activities
SET
    prompt_tokens = CASE WHEN prompt_tokens BETWEEN 1 AND 10000000 THEN prompt_tokens END,
    completion_tokens = CASE WHEN completion_tokens BETWEEN 1 AND 10000000 THEN completion_tokens END
WHERE prompt_tokens NOT BETWEEN 1 AND 10000000 OR completion_tokens NOT BETWEEN 1 AND 10000000;
