-- What an organization's calls may cost in a UTC month, in micro-units of the currency that all prices have. `hard`: no run is
-- admitted and no call begun beyond it; `soft`: reaching it is told. NULL: as its plan has it; without that, no budget.
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS budget bigint;
ALTER TABLE subscriptions ADD COLUMN IF NOT EXISTS budget_kind text;
ALTER TABLE plan_shares ADD COLUMN budget bigint CHECK (budget >= 0);
ALTER TABLE plan_shares ADD COLUMN budget_kind text CHECK (budget_kind IN ('hard', 'soft'));

-- `asked_model`: what the endpoint is asked for, which its answer may call otherwise. `reserved`: the most that the call may cost,
-- where a budget is set; it counts until the call's true cost is known. It goes with the row: after a kill it stands until the
-- run is taken over, and one that nobody takes over counts as spent when its time is over.
ALTER TABLE generation_attempts ADD COLUMN asked_model text, ADD COLUMN reserved bigint;
CREATE INDEX generation_attempts_reserved ON generation_attempts (organization_id)
WHERE state = 'started' AND reserved IS NOT NULL;

-- The marks of a month's budget that were told, each once.
CREATE TABLE budget_marks (
    organization_id text NOT NULL,
    period text NOT NULL,
    percent integer NOT NULL,
    budget bigint NOT NULL,
    cost bigint NOT NULL,
    reached_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, period, percent)
);

-- A model's name without the date that ends it: gpt-4o-mini-2024-07-18, claude-x-20250219, claude-x@20250219.
CREATE FUNCTION llm_base_model(of_model text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(of_model, '[-@]20[0-9]{2}(-[01][0-9]-[0-3][0-9]|[01][0-9][0-3][0-9])$', '')
$$;

-- Every model's price at a time.
CREATE FUNCTION llm_prices_at(began timestamptz) RETURNS TABLE (model text, input_price bigint, output_price bigint)
LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (priced.model) priced.model, priced.input_price, priced.output_price
    FROM llm_prices AS priced
    WHERE priced.holds_from <= began
    ORDER BY priced.model, priced.holds_from DESC
$$;

-- The price of an answer's model: its own, or that of its name without the date, or that of the model that was asked for.
CREATE FUNCTION llm_price_of(of_model text, asked text, began timestamptz)
RETURNS TABLE (input_price bigint, output_price bigint)
LANGUAGE sql STABLE AS $$
    SELECT held.input_price, held.output_price
    FROM llm_prices_at(began) AS held
    JOIN (VALUES (1, of_model), (2, llm_base_model(of_model)), (3, asked), (4, llm_base_model(asked)))
        AS name (place, model) USING (model)
    ORDER BY name.place
    LIMIT 1
$$;

-- The dearest price that a call may have which asks for this model: of all dates of its name. NULLs: none has a price.
CREATE FUNCTION llm_dearest_of(asked text, began timestamptz) RETURNS TABLE (input_price bigint, output_price bigint)
LANGUAGE sql STABLE AS $$
    SELECT max(held.input_price), max(held.output_price)
    FROM llm_prices_at(began) AS held
    WHERE llm_base_model(held.model) = llm_base_model(asked)
$$;

-- The most that a call may cost, before it is made; NULL: its model has no price.
CREATE FUNCTION llm_most_cost(asked text, began timestamptz, prompt bigint, most bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT ceil((
        prompt::numeric * held.input_price + most::numeric * greatest(held.input_price, held.output_price)
    ) / 1000000)::bigint
    FROM llm_dearest_of(asked, began) AS held
$$;

-- What a call has cost, rounded up, by the prices of the time at which it began. What is not known of its tokens counts as a full
-- answer at the dearer of the two prices. Where its answer's model is not known, the dearest counts that the model which was
-- asked for may have had, or without that, the dearest of all. NULL: no price.
CREATE FUNCTION llm_cost(
    of_model text, asked text, began timestamptz, prompt integer, completion integer, unknown boolean, most integer
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
        SELECT
            coalesce(own.input_price, family.input_price, everyone.input_price) AS input_price,
            coalesce(own.output_price, family.output_price, everyone.output_price) AS output_price
        FROM (SELECT) AS nothing
        LEFT JOIN llm_price_of(of_model, asked, began) AS own ON of_model IS NOT NULL
        LEFT JOIN llm_dearest_of(asked, began) AS family ON of_model IS NULL
        LEFT JOIN LATERAL (
            SELECT max(held.input_price) AS input_price, max(held.output_price) AS output_price
            FROM llm_prices_at(began) AS held
        ) AS everyone ON of_model IS NULL
    ) AS held
$$;

CREATE OR REPLACE FUNCTION price_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.cost := llm_cost(
        NEW.model, NEW.asked_model, NEW.started_at, NEW.prompt_tokens, NEW.completion_tokens, NEW.maybe_billed, NEW.most_tokens
    );
    RETURN NEW;
END $$;
DROP FUNCTION llm_cost(text, timestamptz, integer, integer, boolean, integer);

-- An organization's budget of a month: what it is, what is spent of it, and what calls under way hold. NULL: it has none.
CREATE FUNCTION budget_of(whose text, month text)
RETURNS TABLE (budget bigint, kind text, spent bigint, reserved bigint)
LANGUAGE sql STABLE AS $$
    SELECT
        terms.budget,
        terms.kind,
        coalesce((SELECT total.cost FROM llm_usage AS total WHERE total.organization_id = whose AND total.period = month), 0)
            + held.overdue,
        held.under_way
    FROM (
        SELECT
            coalesce(given.budget, shares.budget) AS budget,
            coalesce(CASE WHEN given.budget IS NULL THEN shares.budget_kind ELSE given.budget_kind END, 'hard') AS kind
        FROM subscriptions AS given
        LEFT JOIN plan_shares AS shares ON shares.plan = given.plan
        WHERE given.organization_id = whose
        LIMIT 1
    ) AS terms
    CROSS JOIN LATERAL (
        SELECT
            coalesce(sum(call.reserved) FILTER (WHERE call.deadline <= clock_timestamp()), 0)::bigint AS overdue,
            coalesce(sum(call.reserved) FILTER (WHERE call.deadline > clock_timestamp()), 0)::bigint AS under_way
        FROM generation_attempts AS call
        WHERE call.organization_id = whose AND call.state = 'started' AND call.reserved IS NOT NULL
            AND to_char(call.started_at AT TIME ZONE 'UTC', 'YYYY-MM') = month
    ) AS held
    WHERE terms.budget IS NOT NULL
$$;
