"""Periodic tasks: an operator has one run now, by each face, and sees how it went."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from infra.actions import acting_as
from infra.errors import DependencyDown, Refused
from infra.operations.schedule import periodic_tasks, run_task
from infra.postgres import Database
from producers.schedule.periodic import PERIODIC, Standing, Tasks
from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool

_OPERATOR = bearer("ops", "operator")


@pytest.fixture
async def own(database_url: str) -> AsyncIterator[Database]:
    """A database of the test's own."""
    opened = Database(database_url, size=4)
    yield opened
    await opened.close()


async def standing(database: Database, name: str) -> Standing:
    """Return how a task stands."""
    return next(one for one in await periodic_tasks(database) if one.name == name)


async def _survive(_part: str, work: Callable[[], Awaitable[object]]) -> str | None:
    try:
        await work()
    except (DependencyDown, ValueError) as error:
        return type(error).__name__
    return None


async def test_a_task_runs_when_it_is_wanted_once(own: Database, database: Pool) -> None:
    """Wanted twice it runs once; while it runs it is left alone; afterwards its times and its error are there."""
    begun, go_on, runs = asyncio.Event(), asyncio.Event(), 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        begun.set()
        await go_on.wait()
        raise ValueError

    tasks = Tasks(own, _survive, {"retention": {"retention.delete_old": work}})
    await tasks.run_wanted()
    assert (runs, (await standing(own, "retention")).state) == (0, "never")
    with acting_as("ann", "cli"):
        assert "begins" in await run_task(own, "retention", reason="the disk is full")
        assert (await run_task(own, "retention"))["by"] == "ann"
    assert (await standing(own, "retention")).state == "wanted"
    running = asyncio.create_task(tasks.run_wanted())
    await begun.wait()
    assert (await standing(own, "retention")).state == "running"
    with pytest.raises(Refused, match="it runs since") as refused:
        await run_task(own, "retention")
    assert refused.value.code == "task_running"
    await tasks.run("retention")  # its time has come, and it is running
    go_on.set()
    await running
    await tasks.run_wanted()
    seen = await standing(own, "retention")
    assert (runs, seen.state, seen.error, seen.wanted_by) == (1, "failed", "ValueError", None)
    assert None not in (seen.started_at, seen.ended_at, seen.next_at)
    logged = await database.fetch(
        "SELECT outcome, reason FROM operator_actions WHERE action = 'schedule.run' ORDER BY at"
    )
    assert [tuple(one) for one in logged] == [("done", "the disk is full"), ("done", None), ("refused", None)]


async def test_a_task_whose_process_died_may_run_again(own: Database, database: Pool) -> None:
    """It was begun and never ended: after an hour nobody takes it for running."""
    await database.execute("INSERT INTO periodic_tasks (name, started_at) VALUES ('retention', now())")
    with pytest.raises(Refused):
        await run_task(own, "retention")
    await database.execute("UPDATE periodic_tasks SET started_at = now() - interval '2 hours'")
    assert "begins" in await run_task(own, "retention")


async def test_each_face_runs_one(own: Database, database: Pool, database_url: str, teamfit: Run) -> None:
    """By the API and by the command (the console has a table of routes); an unknown one is refused, and logged."""
    async with serving(api_settings(database_url=database_url)) as http:
        assert await _asked(http, "counts") == 200
        assert await _asked(http, "lottery") == 404
        async with http.get("/api/ops/schedule/tasks", headers=_OPERATOR) as answer:
            told = {one["name"]: one["state"] for one in (await answer.json())["tasks"]}
    assert told == {one.name: "wanted" if one.name == "counts" else "never" for one in PERIODIC}
    said = [
        await teamfit("schedule", *words)
        for words in (["run", "budgets"], ["run", "lottery"], ["tasks"], ["tasks", "--json"])
    ]
    assert [one.exit_code for one in said] == [0, 1, 0, 0]
    assert "wanted by" in said[2].stdout
    assert (await standing(own, "budgets")).state == "wanted"
    rows = await database.fetch(
        "SELECT face, target, outcome FROM operator_actions WHERE action = 'schedule.run' ORDER BY at"
    )
    assert [tuple(one) for one in rows] == [
        ("api", "task counts", "done"),
        ("api", "task lottery", "refused"),
        ("cli", "task budgets", "done"),
        ("cli", "task lottery", "refused"),
    ]


async def _asked(http: aiohttp.ClientSession, task: str) -> int:
    async with http.post("/api/ops/schedule/run", json={"task": task}, headers=_OPERATOR) as answer:
        return answer.status
