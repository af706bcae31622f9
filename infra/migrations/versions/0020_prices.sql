-- What a model's tokens cost, from a time on: micro-units of the currency for a million tokens. A model without a row has no price,
-- which is not the same as 0.
CREATE TABLE llm_prices (
    model text NOT NULL,
    holds_from timestamptz NOT NULL,
    input_price bigint NOT NULL CHECK (input_price BETWEEN 0 AND 1000000000000),
    output_price bigint NOT NULL CHECK (output_price BETWEEN 0 AND 1000000000000),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    PRIMARY KEY (model, holds_from)
);

-- `cost`: micro-units; NULL until the call has ended, and where it has no price. `most_tokens`: what is not known of the call's
-- tokens counts as so many. Calls that were recorded before have no price.
ALTER TABLE generation_attempts ADD COLUMN cost bigint;
ALTER TABLE generation_attempts ADD COLUMN most_tokens integer;
ALTER TABLE llm_usage ADD COLUMN cost bigint NOT NULL DEFAULT 0;
ALTER TABLE llm_usage ADD COLUMN unpriced_calls bigint NOT NULL DEFAULT 0;
UPDATE llm_usage SET unpriced_calls = calls;

-- What a call has cost, rounded up, by the prices of the time at which it began. What is not known of its tokens counts as a full
-- answer at the dearer of the two prices; where nobody knows the model either, at the dearest that it may have had. NULL: no price.
CREATE FUNCTION llm_cost(
    of_model text, began timestamptz, prompt integer, completion integer, unknown boolean, most integer
) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN prompt IS NULL AND completion IS NULL AND NOT unknown THEN 0
        WHEN unknown AND (prompt IS NULL OR completion IS NULL) THEN ceil((
            coalesce(prompt, 0)::numeric * held.input_price + coalesce(completion, 0)::numeric * held.output_price
            + most::numeric * greatest(held.input_price, held.output_price)
        ) / 1000000)
        ELSE ceil((
            coalesce(prompt, 0)::numeric * held.input_price + coalesce(completion, 0)::numeric * held.output_price
        ) / 1000000)
    END::bigint
    FROM (
        SELECT max(latest.input_price) AS input_price, max(latest.output_price) AS output_price
        FROM (
            SELECT DISTINCT ON (priced.model) priced.input_price, priced.output_price
            FROM llm_prices AS priced
            WHERE (of_model IS NULL OR priced.model = of_model) AND priced.holds_from <= began
            ORDER BY priced.model, priced.holds_from DESC
        ) AS latest
    ) AS held
$$;

CREATE FUNCTION price_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.cost := llm_cost(
        NEW.model, NEW.started_at, NEW.prompt_tokens, NEW.completion_tokens, NEW.maybe_billed, NEW.most_tokens
    );
    RETURN NEW;
END $$;
CREATE TRIGGER generation_attempts_price BEFORE UPDATE ON generation_attempts
FOR EACH ROW WHEN (NEW.state <> 'started') EXECUTE FUNCTION price_attempt();

CREATE OR REPLACE FUNCTION count_llm_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO llm_usage AS total
        (organization_id, period, calls, prompt_tokens, completion_tokens, maybe_billed_calls, cost, unpriced_calls)
    SELECT
        organization_id,
        to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM'),
        sum(sign),
        sum(sign * coalesce(prompt_tokens, 0)),
        sum(sign * coalesce(completion_tokens, 0)),
        sum(sign * maybe_billed::int),
        sum(sign * coalesce(cost, 0)),
        sum(sign * (cost IS NULL)::int)
    FROM (SELECT 1 AS sign, * FROM after_update UNION ALL SELECT -1, * FROM before_update) AS change
    WHERE state <> 'started' AND organization_id IS NOT NULL
    GROUP BY 1, 2
    -- A total that does not change is not locked either.
    HAVING (sum(sign), sum(sign * coalesce(prompt_tokens, 0)), sum(sign * coalesce(completion_tokens, 0)),
        sum(sign * maybe_billed::int), sum(sign * coalesce(cost, 0)), sum(sign * (cost IS NULL)::int)) <> (0, 0, 0, 0, 0, 0)
    ORDER BY 1, 2
    ON CONFLICT (organization_id, period) DO UPDATE SET
        calls = total.calls + excluded.calls,
        prompt_tokens = total.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = total.completion_tokens + excluded.completion_tokens,
        maybe_billed_calls = total.maybe_billed_calls + excluded.maybe_billed_calls,
        cost = total.cost + excluded.cost,
        unpriced_calls = total.unpriced_calls + excluded.unpriced_calls;
    RETURN NULL;
END $$;
