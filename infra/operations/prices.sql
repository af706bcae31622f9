-- name: prices()
-- Every price, each model's newest first, and whether it holds now.
SELECT
    model, holds_from, input_price, output_price, currency,
    holds_from = max(holds_from) FILTER (WHERE holds_from <= now()) OVER (PARTITION BY model) IS TRUE AS holds
FROM llm_prices
ORDER BY model, holds_from DESC;

-- name: other_currency(currency)$
-- A currency that other prices have.
SELECT min(currency) FROM llm_prices WHERE currency <> :currency;

-- name: set_price(model, holds_from, input_price, output_price, currency)!
-- A price from a time on; one of the same time is replaced.
INSERT INTO llm_prices (model, holds_from, input_price, output_price, currency)
VALUES (:model, :holds_from, :input_price, :output_price, :currency)
ON CONFLICT (model, holds_from) DO UPDATE
SET input_price = excluded.input_price, output_price = excluded.output_price, currency = excluded.currency;

-- name: spent(organization_id)
-- What an organization's calls have cost, by month, the newest first.
SELECT
    period, calls, prompt_tokens, completion_tokens, maybe_billed_calls, cost, unpriced_calls,
    (SELECT min(currency) FROM llm_prices) AS currency
FROM llm_usage WHERE organization_id = :organization_id ORDER BY period DESC;
