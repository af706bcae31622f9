-- name: set_price(model, input_price, output_price)!
-- A price that holds from long before the first call.
INSERT INTO llm_prices (model, holds_from, input_price, output_price, currency)
VALUES (:model, '2000-01-01T00:00:00Z', :input_price, :output_price, 'USD');

-- name: ended()$
-- How many jobs have ended in the read model.
SELECT count(*) FROM customization_jobs WHERE status IN ('completed', 'failed', 'cancelled');

-- name: under_way()$
-- How many calls have not ended on record.
SELECT count(*) FROM generation_attempts WHERE state = 'started';

-- name: calls()
-- Every call on record, with the number that its job's prompt names.
SELECT
    substring(job.requirements FROM 'invoice line (\d+)')::int AS number,
    call.maybe_billed, call.prompt_tokens, call.completion_tokens, call.cost
FROM generation_attempts AS call
LEFT JOIN customization_jobs AS job USING (job_id);

-- name: months()
-- The running totals of all months and organizations.
SELECT
    sum(calls)::bigint AS calls, sum(maybe_billed_calls)::bigint AS unknown_calls,
    sum(prompt_tokens)::bigint AS prompt_tokens, sum(completion_tokens)::bigint AS completion_tokens,
    sum(cost)::bigint AS cost, sum(unpriced_calls)::bigint AS unpriced_calls
FROM llm_usage;
