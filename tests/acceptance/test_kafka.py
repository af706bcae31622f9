"""The same pipeline on Kafka: only the broker's URL differs."""

from collections.abc import Iterator

import aiohttp
import pytest

from infra.local.instructions import instructions
from infra.local.stack import Stack
from infra.settings import Settings
from tests.acceptance.customer import Customer
from tests.acceptance.running import running
from tests.conformance.brokers import tansu


@pytest.fixture(scope="module")
def on_kafka() -> Iterator[Stack]:
    """The pipeline on a Kafka-compatible broker, whose first join of a group waits half a minute."""
    with tansu() as broker:
        settings = Settings(_env_file=None, broker_url=broker.url(), generation_concurrency=25)
        with running(Stack(settings, llm_latency_s=0.2, durable=False)) as stack:
            yield stack


async def test_a_job_by_kafka_ends_with_three_activities_or_a_reason(on_kafka: Stack) -> None:
    """Requests, refusals and their stages work unchanged when `BROKER_URL` is `kafka://…`."""
    async with aiohttp.ClientSession(on_kafka.api_url) as http:
        customer = Customer(on_kafka, http)
        await customer.gets_three_activities()
        status, problem = await customer.post(team_id="unknown-team")
        assert (status, problem["code"]) == (404, "team_not_found")
        await customer.gets_three_activities()


def test_what_up_prints_on_kafka_works_there(on_kafka: Stack) -> None:
    """Requests go over HTTP; nobody is told to send an entry with redis-cli."""
    printed = instructions(on_kafka, "…")
    assert "curl -sS" in printed
    assert "redis-cli" not in printed
