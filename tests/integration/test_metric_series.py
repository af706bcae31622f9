"""How many series Prometheus has to keep, with one customer and with ten thousand."""

from tests.api_server import api_settings, serving
from tests.conftest import Pool
from tests.integration.test_gauges import scrape

# Each organization has a job that runs, one that waits, one that failed, and a webhook that fails.
_CUSTOMERS = """
WITH o AS (SELECT 'customer-' || n AS id FROM generate_series($1::int, $2::int) AS n),
organization AS (INSERT INTO organizations (id, name, trust_score) SELECT id, id, 0.9 FROM o),
job AS (
    INSERT INTO customization_jobs (job_id, organization_id, status, run, created_at, updated_at)
    SELECT gen_random_uuid(), id, status, 1, now(), now()
    FROM o CROSS JOIN unnest(ARRAY['pending', 'processing', 'failed']) AS status
)
INSERT INTO webhook_endpoints (id, organization_id, url, types, secret, failing_since)
SELECT gen_random_uuid(), id, 'https://example.com/' || id, '{}', 's', now() FROM o
"""


async def test_ten_thousand_organizations_make_no_more_series_than_one(
    database: Pool, database_url: str, redis_url: str
) -> None:
    """No label names a customer, nor anything of which each of them has its own."""
    series = []
    for first, last in ((1, 1), (2, 10_000)):
        await database.execute(_CUSTOMERS, first, last)
        async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as api:
            gauges = await scrape(api)
        assert gauges["teamfit_source_up", frozenset({("source", "postgres")})] == 1
        series.append(set(gauges))
    assert series[1] == series[0]
    assert len(series[0]) < 1_000
    assert "customer-" not in str(series)
