"""Two endpoints come and go by chance, each time in another way; a budget may end meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from pydantic import TypeAdapter

from infra.bench.books import Call, Price, balance
from infra.errors import DependencyDown, Permanent, TeamfitError
from infra.local.llm.misbehaviour import Line
from streams.jobs.events import JobAccepted
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, Starter, accepted, hold_is_due
from tests.integration.generation.test_endpoints import listed, two
from tests.waiting import wait_for

__all__ = ["listed", "two"]  # fixtures, and what they need

pytestmark = pytest.mark.usefixtures("team")

_JOBS = 40
_MODEL = "teamfit-offline-composer"
_PRICE = Price(input=150_000, output=600_000)
# Some 1,500 micro-units are reserved for a call, and a fifth of that is spent: it is used up in the middle.
_ENOUGH_FOR_HALF = 8_000
_WAYS = (
    {"mode": "ok"},
    {"mode": "ok", "latency": 0.1},
    {"mode": "503"},
    {"mode": "500"},
    {"mode": "429", "retry_after": 0.2},
    {"mode": "reset"},
    {"mode": "cut"},
    {"mode": "rubbish"},
    {"mode": "no_stream"},
    {"mode": "stream_without_usage"},
)


@asynccontextmanager
async def flapping(endpoints: Sequence[Endpoint], chance: random.Random) -> AsyncIterator[None]:
    """Let the endpoints come and go for as long as this lasts; at its end both are back."""

    async def flap() -> None:
        while True:
            for endpoint in endpoints:
                await endpoint.tell(**chance.choice(_WAYS))
            await asyncio.sleep(chance.uniform(0.02, 0.2))

    task = asyncio.create_task(flap())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        for endpoint in endpoints:
            await endpoint.tell("ok")


@asynccontextmanager
async def impatient(stages: Sequence[StageUnderTest]) -> AsyncIterator[None]:
    """Let no hold wait for long before it probes."""

    async def hasten() -> None:
        while True:
            with suppress(DependencyDown):  # a worker writes a hold in this moment
                await hold_is_due(*stages)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(hasten())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def end(stage: StageUnderTest, event: JobAccepted) -> bool:
    """Deliver a run again and again until it is completed; return whether it was, or was given up for its budget."""

    async def taken() -> str:
        try:
            await stage.handle(event, entry=f"job-accepted/0/{event.job_id}")
        except Permanent as error:
            return error.code
        except TeamfitError:
            return ""
        return "completed"

    said = await wait_for(taken, deadline_s=90, what="the run to end")
    assert said in {"completed", "budget_exceeded"}
    return said == "completed"


async def invoice(*endpoints: Endpoint) -> list[Line]:
    """Return what the endpoints bill."""
    lines: list[Line] = []
    async with aiohttp.ClientSession() as session:
        for endpoint in endpoints:
            async with session.get(f"http://127.0.0.1:{endpoint.port}/control/invoice") as answer:
                lines += TypeAdapter(list[Line]).validate_json(await answer.read())
    return lines


@pytest.mark.parametrize("budget", [None, _ENOUGH_FOR_HALF])
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_comes_and_goes_each_job_has_one_answer_and_the_books_are_right(
    start_stage: Starter,
    two: str,
    endpoint: Endpoint,
    other_endpoint: Endpoint,
    database: Pool,
    seed: int,
    budget: int | None,
) -> None:
    """No run has two calls at once, none is saved twice, no token is lost, and a hard budget is kept."""
    await database.execute(
        "INSERT INTO llm_prices (model, holds_from, input_price, output_price, currency)"
        " VALUES ($1, '2000-01-01', $2, $3, 'USD')",
        *(_MODEL, _PRICE.input, _PRICE.output),
    )
    await database.execute(
        "INSERT INTO subscriptions (organization_id, plan, status, monthly_quota, budget, budget_kind)"
        " VALUES ('org-1', 'team', 'active', 1000, $1, 'hard')",
        budget,
    )
    stages = [await start_stage(llm_endpoints=two, max_completion_tokens=2_000) for _ in range(2)]
    events = [accepted(requirements=f"An hour outdoors, invoice line {number}.") for number in range(_JOBS)]
    numbers = {event.job_id: number for number, event in enumerate(events)}
    ends = [end(stages[at % 2], event) for at, event in enumerate(events)]
    async with impatient(stages):
        async with flapping((endpoint, other_endpoint), random.Random(seed)):
            ended = await asyncio.gather(*ends[: _JOBS // 2])
        ended += await asyncio.gather(*ends[_JOBS // 2 :])

    async def nothing_in_flight() -> bool:
        return not (await endpoint.busy() or await other_endpoint.busy())

    await wait_for(nothing_in_flight, what="the last calls to end")
    rows = await database.fetch("SELECT * FROM generation_attempts ORDER BY started_at")
    assert not [row for row in rows if row["state"] == "started"]
    assert len([row for row in rows if row["state"] == "saved"]) == sum(ended)
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 3 * sum(ended)
    last: dict[object, object] = {}
    for row in rows:
        assert row["job_id"] not in last or last[row["job_id"]] <= row["started_at"], "two calls of one run at once"
        last[row["job_id"]] = row["finished_at"]
    calls = [
        Call(
            numbers[row["job_id"]],
            *(row[name] for name in ("maybe_billed", "prompt_tokens", "completion_tokens", "cost")),
        )
        for row in rows
    ]
    assert balance(calls, await invoice(endpoint, other_endpoint), _PRICE).differences == []
    spent = await database.fetchval("SELECT sum(cost)::bigint FROM llm_usage")
    assert spent == sum(call.cost or 0 for call in calls)
    if budget is None:
        assert all(ended)
    else:
        assert spent <= budget
        assert not all(ended)
