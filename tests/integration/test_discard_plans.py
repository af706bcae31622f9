"""Many failed events are discarded by a plan: its set is frozen, and a kill loses and doubles none."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.replay_scene import Scene, open_scene
from tests.waiting import wait_for

_BECAUSE = ("--because", "known, and mended", "--yes")


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """Two customers."""
    async with open_scene(database, database_url) as opened:
        await opened.organization("birch")
        yield opened


async def plan_of(teamfit: Run, *options: object) -> dict[str, Any]:
    """Make a plan and return it."""
    made = await teamfit("discard", "plan", *options, "--json")
    assert made.exit_code == 0, made.output
    plan: dict[str, Any] = json.loads(made.stdout)
    return plan


async def states(database: Pool) -> Counter[str]:
    """Return how many failed events are in each state."""
    return Counter(row["state"] for row in await database.fetch("SELECT state FROM failed_events"))


async def test_a_plan_discards_what_it_showed_and_nothing_else(teamfit: Run, scene: Scene, database: Pool) -> None:
    """Other organizations' events, and those that come after the plan was made, stay open."""
    for organization in ("acme", "acme", "birch"):
        await scene.failed_generation(organization)
    shown = await teamfit("discard", "plan", "--organization", "acme")
    assert "Failed events: 2, about 2 jobs" in shown.stdout
    plan = await plan_of(teamfit, "--organization", "acme")
    assert plan["effects"] == {
        "events": 2,
        "jobs": 2,
        "kinds": [{"stage": "generation", "error_type": "Permanent", "events": 2}],
        "organizations": [{"organization_id": "acme", "events": 2, "jobs": 2}],
    }
    await scene.failed_generation("acme")
    refused = await teamfit("discard", "apply", plan["id"], "--because", "x", answer="n\n")
    assert (refused.exit_code, await states(database)) == (1, Counter(open=4))
    for _ in range(2):
        applied = await teamfit("discard", "apply", plan["id"], *_BECAUSE)
        assert applied.exit_code == 0, applied.output
    assert await states(database) == Counter(open=2, discarded=2)
    why = await database.fetch("SELECT DISTINCT discarded_because FROM failed_events WHERE state = 'discarded'")
    assert [row[0] for row in why] == ["known, and mended"]
    lines = await database.fetch("SELECT action, reason, effects FROM operator_actions ORDER BY at")
    assert [row["action"] for row in lines] == ["discard.plan", "discard.plan", "discard.apply", "failed.discard"]
    assert json.loads(lines[3]["effects"]) == {"positions": "1 to 2", "discarded": 2, "changed": 0}
    status = await teamfit("discard", "status", plan["id"], "--events", "9")
    assert "State: finished, 2 of 2 failed events discarded, 0 left" in status.stdout
    listed = json.loads((await teamfit("discard", "list", "--json")).stdout)
    assert [(one["state"], one["events"]) for one in listed] == [("finished", 2), ("planned", 2)]


async def test_only_the_chosen_ones_are_frozen(teamfit: Run, scene: Scene, database: Pool) -> None:
    """A list of IDs narrows the filter; one that the filter does not find is left out."""
    chosen = [await scene.failed_event_of(await scene.failed_generation()) for _ in range(2)]
    other = await scene.failed_event_of(await scene.failed_generation("birch"))
    await scene.failed_generation()
    plan = await plan_of(teamfit, *chosen, other, "--organization", "acme")
    assert plan["total"] == 2
    items = await database.fetch("SELECT failed_event_id FROM discard_plan_items")
    assert {row["failed_event_id"] for row in items} == set(chosen)


async def test_what_changed_meanwhile_stays_as_it_is(teamfit: Run, scene: Scene, database: Pool) -> None:
    """One that has failed again and one that was dealt with are told apart from those that are discarded."""
    events = [await scene.failed_event_of(await scene.failed_generation()) for _ in range(3)]
    plan = await plan_of(teamfit)
    await database.execute("UPDATE failed_events SET occurrences = occurrences + 1 WHERE id = $1", events[0])
    assert (await teamfit("failed", "discard", events[1], "--because", "alone", "--yes")).exit_code == 0
    said = await teamfit("discard", "apply", plan["id"], *_BECAUSE)
    assert "1 of 3 failed events are discarded, 2 had changed, 0 are left" in said.stdout
    rows = await database.fetch("SELECT failed_event_id, result FROM discard_plan_items")
    assert {row["failed_event_id"]: row["result"] for row in rows} == {
        events[0]: "changed",
        events[1]: "changed",
        events[2]: "discarded",
    }
    because = await database.fetchval("SELECT discarded_because FROM failed_events WHERE id = $1", events[1])
    assert because == "alone"


async def test_a_plan_that_is_no_more_what_it_was_is_refused(teamfit: Run, scene: Scene, database: Pool) -> None:
    """Unknown, aborted, and a set that somebody has changed by hand: nothing is discarded."""
    for _ in range(2):
        await scene.failed_generation()
    unknown = await teamfit("discard", "apply", uuid4(), *_BECAUSE)
    assert (unknown.exit_code, "not found" in unknown.stderr) == (1, True)
    plan = await plan_of(teamfit)
    await database.execute("DELETE FROM discard_plan_items WHERE position = 1")
    changed = await teamfit("discard", "apply", plan["id"], *_BECAUSE)
    assert (changed.exit_code, "not the one that was shown" in changed.stderr) == (1, True)
    aborted = await plan_of(teamfit)
    assert "is aborted" in (await teamfit("discard", "abort", aborted["id"])).stdout
    refused = await teamfit("discard", "apply", aborted["id"], *_BECAUSE)
    assert (refused.exit_code, "was aborted" in refused.stderr) == (1, True)
    assert await states(database) == Counter(open=2)
    empty = await teamfit("discard", "plan", "--organization", "birch")
    assert (empty.exit_code, "nothing to discard" in empty.stdout) == (0, True)


async def test_the_api_does_the_same(scene: Scene, database: Pool, database_url: str) -> None:
    """Plan, look, apply until it is finished, list, abort; refusals name the field."""
    for _ in range(3):
        await scene.failed_generation()
    route, headers = "/api/ops/discard/plans", bearer("ops", "operator")
    async with serving(api_settings(database_url=database_url)) as http:

        async def ask(method: str, path: str = "", body: object = None) -> tuple[int, Any]:
            async with http.request(method, route + path, json=body, headers=headers) as answer:
                return answer.status, await answer.json()

        status, plan = await ask("POST", body={"organization_id": "acme", "stage": "generation"})
        assert (status, plan["effects"]["events"], plan["total"], plan["discarded"]) == (201, 3, 3, 0)
        path = f"/{plan['id']}"
        assert [one["result"] for one in (await ask("GET", path))[1]["items"]] == [None] * 3
        for wrong, field in (({}, "because"), ({"because": ""}, "because"), ({"because": "x", "rate": 0}, "rate")):
            status, problem = await ask("POST", f"{path}/apply", wrong)
            assert (status, problem["errors"][0]["field"]) == (422, field)
        status, plan = await ask("POST", f"{path}/apply", {"because": "known"})
        assert (status, plan["state"], plan["discarded"], plan["reason"]) == (200, "finished", 3, "known")
        assert (await ask("POST", f"{path}/abort"))[1]["state"] == "finished"
        assert [one["id"] for one in (await ask("GET"))[1]] == [plan["id"]]
        assert (await ask("POST", f"/{uuid4()}/apply", {"because": "x"}))[0] == 404
    assert await states(database) == Counter(discarded=3)


async def test_whoever_applies_it_may_be_killed(teamfit: Run, scene: Scene, database: Pool) -> None:
    """The next one goes on where it stopped; each event is discarded, and noted so, once."""
    await database.execute(
        "INSERT INTO failed_events (id, topic, stage, reason, error_type, error_message, attempts, first_failed_at, "
        "last_failed_at) SELECT gen_random_uuid(), 'job-requests', 'quota', 'given_up', 'Permanent', 'no', 1, now(), "
        "now() FROM generate_series(1, 40)"
    )
    plan = await plan_of(teamfit)
    command = [sys.executable, "-m", "infra.cli", "discard", "apply", plan["id"], "--rate", "20/s", *_BECAUSE]

    async def begun() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM discard_plan_items WHERE result IS NOT NULL"))

    applier = await asyncio.create_subprocess_exec(*command, env=dict(os.environ))
    try:
        await wait_for(begun, deadline_s=60, what="a first batch")
        busy = await teamfit("discard", "apply", plan["id"], *_BECAUSE)
        assert (busy.exit_code, "somebody else is applying it" in busy.stderr) == (1, True)
    finally:
        applier.send_signal(signal.SIGKILL)
        await applier.wait()
    assert (await states(database))["open"] > 0

    async def goes_on() -> bool:
        return (await teamfit("discard", "apply", plan["id"], *_BECAUSE)).exit_code == 0

    await wait_for(goes_on, deadline_s=60, what="Postgres to notice that the applier is gone")
    assert await states(database) == Counter(discarded=40)
    assert await database.fetchval("SELECT array_agg(DISTINCT result) FROM discard_plan_items") == ["discarded"]
