"""Several endpoints: while one is away the jobs go to the others, and nothing is asked for twice."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.errors import DependencyDown, Permanent, Postponed
from infra.operations.llm import endpoints
from streams.delivery.deliveries import Delivery
from tests.integration.generation.conftest import (
    Endpoint,
    Pool,
    StageUnderTest,
    Starter,
    accepted,
    hold_is_due,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("team")

_MODEL = "teamfit-offline-composer"


def listed(path: Path, *endpoints: Mapping[str, object], rules: object = ()) -> str:
    """Write a file of endpoints; return its path."""
    path.write_text(
        json.dumps({"endpoint": [{"model": _MODEL, "key": "k", **one} for one in endpoints], "rule": rules})
    )
    return str(path)


@pytest.fixture
def two(tmp_path: Path, endpoint: Endpoint, other_endpoint: Endpoint) -> str:
    """A file with two endpoints of equal weight."""
    return listed(
        tmp_path / "two.json",
        {"name": "first", "base_url": endpoint.base_url},
        {"name": "second", "base_url": other_endpoint.base_url},
    )


async def made(database: Pool, state: str = "saved") -> dict[str, int]:
    """Return how many attempts each endpoint has on record."""
    rows = await database.fetch(
        "SELECT endpoint, count(*) AS attempts FROM generation_attempts WHERE state = $1 GROUP BY 1", state
    )
    return {row["endpoint"]: row["attempts"] for row in rows}


async def process(stage: StageUnderTest, number: int) -> None:
    """Take so many jobs through the stage."""
    one = stage.wrapped()
    events = [accepted() for _ in range(number)]
    deliveries = [Delivery("job-accepted", event.key, event.encode()) for event in events]
    assert all(await asyncio.gather(*(one.process(delivery) for delivery in deliveries)))


async def answered(endpoint: Endpoint) -> int:
    """Return how many calls the endpoint has answered."""
    return int((await endpoint.calls())["answered"])


@pytest.mark.parametrize(("weights", "shares"), [((1, 1), (30, 30)), ((2, 1), (40, 20)), ((1, 0), (60, 0))])
async def test_weights_share_the_jobs_out(
    start_stage: Starter,
    tmp_path: Path,
    endpoint: Endpoint,
    other_endpoint: Endpoint,
    database: Pool,
    weights: tuple[float, float],
    shares: tuple[int, int],
) -> None:
    """Each endpoint gets its part of the jobs, exactly; without a weight, none while the others work."""
    file = listed(
        tmp_path / "two.toml",
        {"name": "first", "base_url": endpoint.base_url, "weight": weights[0]},
        {"name": "second", "base_url": other_endpoint.base_url, "weight": weights[1]},
    )
    await process(await start_stage(llm_endpoints=file), 60)
    counted = await made(database)
    assert (counted.get("first", 0), counted.get("second", 0)) == shares


@pytest.mark.parametrize(
    "how", [{"mode": "503"}, {"mode": "429", "retry_after": 600}, {"mode": "401"}, {"mode": "reset"}]
)
async def test_jobs_go_on_at_the_other_while_one_is_away(
    start_stage: Starter, two: str, endpoint: Endpoint, other_endpoint: Endpoint, database: Pool, how: dict[str, Any]
) -> None:
    """Two workers complete all jobs by the endpoint that works; each job is generated once, each call is on record."""
    stages = [await start_stage(llm_endpoints=two) for _ in range(2)]
    await endpoint.tell(**how)
    await asyncio.gather(*(process(stage, 60) for stage in stages))

    assert await made(database) == {"second": 120}
    assert await answered(other_endpoint) == 120
    assert await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'") == 120
    probes = await database.fetchval("SELECT coalesce(sum(calls), 0) FROM llm_probes")
    at_first = await database.fetchval("SELECT count(*) FROM generation_attempts WHERE endpoint = 'first'")
    received = (await endpoint.calls())["received"]
    # A refusal to say how it is asked is a call of the same attempt.
    assert at_first + probes <= received
    assert not await database.fetchval("SELECT count(*) FROM scheduled_events")
    assert not await database.fetchval("SELECT count(*) FROM failed_events")


async def test_one_that_nobody_can_reach_is_passed_over(
    start_stage: Starter, tmp_path: Path, other_endpoint: Endpoint, database: Pool
) -> None:
    """Nothing listens there: no call is on record, and the jobs complete elsewhere."""
    file = listed(
        tmp_path / "two.json",
        {"name": "nowhere", "base_url": "http://127.0.0.1:1/v1"},
        {"name": "second", "base_url": other_endpoint.base_url},
    )
    await process(await start_stage(llm_endpoints=file), 20)
    assert await made(database) == {"second": 20}
    assert not await made(database, "failed")


async def test_one_probe_of_the_fleet_brings_it_back(
    start_stage: Starter, two: str, endpoint: Endpoint, database: Pool
) -> None:
    """Jobs do not wait for the probe of one that is away; one worker asks; then it gets its share again."""
    stages = [await start_stage(llm_endpoints=two) for _ in range(3)]
    await endpoint.tell("503")
    await process(stages[0], 10)
    await endpoint.tell("slow")
    asked = (await endpoint.calls())["received"]
    await hold_is_due(*stages)
    await asyncio.gather(*(process(stage, 20) for stage in stages))
    await wait_for(endpoint.busy, what="the probe")
    assert (await endpoint.calls())["received"] == asked + 1
    assert await made(database) == {"second": 70}


async def test_it_gets_its_share_again_after_the_probe(
    start_stage: Starter, two: str, endpoint: Endpoint, database: Pool
) -> None:
    """A probe that is answered ends the hold."""
    stage = await start_stage(llm_endpoints=two)
    await endpoint.tell("503")
    await process(stage, 10)
    await endpoint.tell("ok")
    await hold_is_due(stage)
    await process(stage, 1)

    async def works() -> bool:
        return not stage.line.is_away

    await wait_for(works, what="the probe")
    await process(stage, 20)
    assert (await made(database))["first"] >= 9


async def test_all_away_holds_the_stage(
    start_stage: Starter, two: str, endpoint: Endpoint, other_endpoint: Endpoint
) -> None:
    """As with one endpoint: nobody fails of it."""
    stage = await start_stage(llm_endpoints=two)
    for one in (endpoint, other_endpoint):
        await one.tell("503")
    with pytest.raises(DependencyDown):
        await stage.handle(accepted())


_HERE = {"regions": ["eu"]}
_CHEAP = {"dearest_input_price": 100, "dearest_output_price": 400}
_PLAIN = {"forms": ["prompt"]}


@pytest.mark.parametrize("rule", [_HERE, _CHEAP, _PLAIN, {"forms": ["json_object"]}])
async def test_a_rule_keeps_jobs_from_another_endpoint(
    start_stage: Starter, tmp_path: Path, endpoint: Endpoint, other_endpoint: Endpoint, database: Pool, rule: object
) -> None:
    """An organization's jobs wait outside the worker for an endpoint that they may go to; others' jobs go on."""
    form = "prompt" if rule == _PLAIN else "json_object"
    allowed = {"region": "eu", "input_price": 100, "output_price": 400, "currency": "EUR", "form": form}
    file = listed(
        tmp_path / "two.json",
        {"name": "first", "base_url": endpoint.base_url, **allowed},
        {"name": "second", "base_url": other_endpoint.base_url, "weight": 100, "region": "us"},
        rules=[{"organizations": ["org-1"], **dict(rule)}],  # type: ignore[call-overload]
    )
    stage = await start_stage(llm_endpoints=file)
    await process(stage, 5)
    assert (await made(database)).keys() | (await made(database, "failed")).keys() == {"first"}
    await endpoint.tell("503")
    with pytest.raises(Postponed):
        await stage.handle(accepted())
    await stage.handle(accepted(organization_id="org-2", team_id="team-2"))
    assert (await made(database))["second"] == 1


async def test_a_context_that_is_too_short_is_passed_over(
    start_stage: Starter, tmp_path: Path, endpoint: Endpoint, other_endpoint: Endpoint, database: Pool
) -> None:
    """A long wish goes where it fits, and is too long where it fits nowhere."""
    short = {"context_tokens": 8_000}
    file = listed(
        tmp_path / "two.json",
        {"name": "first", "base_url": endpoint.base_url, "weight": 100, **short},
        {"name": "second", "base_url": other_endpoint.base_url, "context_tokens": 9_000},
    )
    stage = await start_stage(llm_endpoints=file)
    await stage.handle(accepted(requirements="a remote hour. " * 200))
    assert await made(database) == {"second": 1}
    with pytest.raises(Permanent) as refused:
        await stage.handle(accepted(requirements="a remote hour. " * 650))
    assert refused.value.code == "llm_prompt_too_long"


async def test_operators_see_how_each_endpoint_does(
    start_stage: Starter, two: str, endpoint: Endpoint, other_endpoint: Endpoint, database: Pool
) -> None:
    """State, calls, errors, latency, tokens and cost of each; without a price there is no cost."""
    stage = await start_stage(llm_endpoints=two)
    await process(stage, 10)
    await endpoint.tell("429", retry_after=600)
    await process(stage, 10)
    await stage.generation._route.close()
    first, second = sorted(await endpoints(stage.database, 1), key=lambda one: one.endpoint == other_endpoint.base_url)
    assert first.closed_for
    assert not second.closed_for
    assert first.failed == first.refused == first.calls - 5 > 0
    assert (second.calls, second.failed, second.held) == (15, 0, None)
    assert second.prompt_tokens > 0 < second.completion_tokens
    assert second.seconds_per_call is not None
    assert second.cost is None
    await database.execute(
        "INSERT INTO llm_prices (model, holds_from, input_price, output_price, currency)"
        " VALUES ($1, '2020-01-01', 1000000, 2000000, 'USD')",
        second.model,
    )
    costs = [(one.cost, one.prompt_tokens + 2 * one.completion_tokens) for one in await endpoints(stage.database, 1)]
    assert [cost for cost, _ in costs] == [expected for _, expected in costs]


async def test_operators_see_why_one_is_held(start_stage: Starter, two: str, endpoint: Endpoint) -> None:
    """In a sentence."""
    stage = await start_stage(llm_endpoints=two)
    await endpoint.tell("401")
    await process(stage, 10)
    await stage.generation._route.close()
    held = {one.endpoint: one.held for one in await endpoints(stage.database, 1)}
    assert "key" in (held[endpoint.base_url] or "")
