"""The same pipeline on Kafka: only the broker's URL differs."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from infra.bench.otlp_collector import Collector, collecting
from infra.local.instructions import instructions
from infra.local.organizations import BIRCH
from infra.local.processes import free_port
from infra.local.stack import ALL, API, Stack
from infra.settings import Settings
from producers.blocking import BlockingJobRequests
from producers.client import Request
from tests.acceptance.customer import Customer
from tests.acceptance.running import running
from tests.conformance.brokers import tansu
from tests.integration.test_traces import from_the_request_to_the_projection, through_a_kill, through_tries_and_a_replay
from tests.integration.test_traces_again import impatient, through_a_loss


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """What the pipeline's spans are sent to."""
    with collecting() as one:
        yield one


@pytest.fixture(scope="module")
def on_kafka(collector: Collector) -> Iterator[Stack]:
    """The pipeline on a Kafka-compatible broker, whose first join of a group waits half a minute."""
    with tansu() as broker:
        settings = Settings(
            _env_file=None,
            broker_url=broker.url(),
            generation_concurrency=25,
            retry_base_s=0.2,
            otlp_endpoint=collector.url,
            trace_share=0,
            trace_statements=1,
        )
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


def test_the_client_without_asyncio_asks_waits_and_withdraws_on_kafka(on_kafka: Stack) -> None:
    """The request, its repeat and a cancellation go into the topic; the API tells what became of them."""
    wish = Request(
        organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements="Puzzles", idempotency_key="by-the-client"
    )
    later = replace(wish, idempotency_key="for-later", run_at=datetime.now(UTC) + timedelta(days=1))
    with BlockingJobRequests.connect(
        on_kafka.settings.broker_url, api_url=on_kafka.api_url, token=on_kafka.token(BIRCH.id)
    ) as requests:
        job, repeated, withdrawn = requests.submit_many([wish, wish, later])
        assert job == repeated
        requests.cancel(withdrawn, organization_id=BIRCH.id, reason="It rains")
        assert len(requests.wait(job).activities) == 3
        assert [one.kind for one in requests.follow(job)][-1] == "completed"
        assert requests.wait(withdrawn).error_message == "It rains"


async def test_one_trace_over_kafka(on_kafka: Stack, collector: Collector) -> None:
    """One root and the same parents as on Redis, through tries and a replay too; spans name the broker's kind."""
    async with aiohttp.ClientSession(on_kafka.api_url) as http:
        customer = Customer(on_kafka, http)
        await from_the_request_to_the_projection(customer, collector, broker="kafka")
        await through_tries_and_a_replay(customer, collector)
    systems = {one.attributes["messaging.system"] for one in collector.spans if "messaging.system" in one.attributes}
    assert systems == {"kafka"}


# Faust's own: of a worker that was killed, the broker thinks that it lives for a minute otherwise.
_SHORT_SESSIONS = {"BROKER_SESSION_TIMEOUT": "4", "BROKER_HEARTBEAT_INTERVAL": "1", "BROKER_REBALANCE_TIMEOUT": "4"}


@pytest.mark.timeout(300)  # two joins
async def test_a_worker_that_is_killed_leaves_its_job_in_the_trace_on_kafka(collector: Collector) -> None:
    """The next one reads from the last commit on: below the same parent, on to the end, as on Redis."""
    with tansu() as broker:
        settings = Settings(
            _env_file=None,
            broker_url=broker.url(),
            generation_concurrency=5,
            otlp_endpoint=collector.url,
            trace_share=0,
            trace_statements=1,
        )
        with running(_in_one_worker(settings, llm_latency_s=2.0)) as stack:
            await through_a_kill(stack, collector)


@pytest.mark.timeout(300)  # the same
async def test_a_lost_run_that_is_sent_again_stays_in_its_trace_on_kafka(collector: Collector) -> None:
    """A broker that comes back empty has the request sent again, below the same root."""
    port = free_port()
    with ExitStack() as first, ExitStack() as second:
        broker = first.enter_context(tansu(port))

        async def comes_back_empty() -> None:
            first.close()
            second.enter_context(tansu(port))

        settings = impatient(broker_url=broker.url(), otlp_endpoint=collector.url)
        with running(_in_one_worker(settings, llm_latency_s=0.05)) as stack:
            assert await through_a_loss(stack, collector, comes_back_empty)


def _in_one_worker(settings: Settings, *, llm_latency_s: float) -> Stack:
    return Stack(
        settings,
        llm_latency_s=llm_latency_s,
        durable=False,
        parts=(ALL, API),
        variables=lambda _part: _SHORT_SESSIONS,
    )


def test_what_up_prints_on_kafka_works_there(on_kafka: Stack) -> None:
    """Requests go over HTTP; nobody is told to send an entry with redis-cli."""
    printed = instructions(on_kafka, "…")
    assert "curl -sS" in printed
    assert "redis-cli" not in printed
