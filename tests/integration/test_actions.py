"""The log of actions: every action of an operator, by whichever face, and every refusal."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from infra.actions import Act, acting, acting_as
from infra.errors import Refused
from infra.operations.actions import ActionFilter, find_actions
from infra.postgres import Database
from tests.api_server import api_settings, bearer, serving
from tests.commands import Run
from tests.conftest import Pool
from tests.integration.replay_scene import Scene, open_scene


@pytest.fixture
async def scene(database: Pool, database_url: str) -> AsyncIterator[Scene]:
    """The pipeline's tables and the code of its stages."""
    async with open_scene(database, database_url) as opened:
        yield opened


async def _logged(pool: Pool) -> list[dict[str, Any]]:
    rows = await pool.fetch("SELECT * FROM operator_actions ORDER BY at, id")
    return [{**row, "effects": json.loads(row["effects"])} for row in rows]


async def test_every_command_that_changes_something_is_logged(scene: Scene, database: Pool, teamfit: Run) -> None:
    """Each has one row with who, what, to what and why; what only looks has none."""
    ended, live, set_aside = [await scene.failed_generation() for _ in range(3)]
    await scene.admit(live)
    plan = await scene.plan(job_id=ended.job_id)
    await database.execute("DELETE FROM operator_actions")
    await database.execute("UPDATE quota_usage SET charged = charged + 3")
    event = await scene.failed_event_of(set_aside)
    commands: list[tuple[str, str, str, str | None]] = [
        ("organization add ash --plan team", "organization.add", "organization ash", None),
        ("organization set acme --quota 60", "organization.set", "organization acme", None),
        ("team add oaks --organization acme", "team.add", "team oaks", None),
        ("plan set team --weight 2", "plan.set", "plan of subscriptions team", None),
        ("plan forget team", "plan.forget", "plan of subscriptions team", None),
        ("llm prices set m 1 2", "llm.price", "model m", None),
        ("llm dialect forget --yes", "llm.dialect.forget", "endpoint (all)", None),
        ("quota repair acme --yes", "quota.repair", "organization acme", None),
        (f"replay apply {plan.id} --rate 1000/s --yes", "replay.apply", f"plan {plan.id}", None),
        (f"replay abort {plan.id}", "replay.abort", f"plan {plan.id}", None),
        (f"failed discard {event} --because old --yes", "failed.discard", f"failed event {event}", "old"),
        ("erase --organization acme --yes", "erase", "organization acme", None),
    ]
    for look in ("actions list", "organization list", "failed list", f"replay status {plan.id}", "quota show acme"):
        assert (await teamfit(*look.split())).exit_code == 0, look
    assert await _logged(database) == []
    for line, _, _, _ in commands:
        done = await teamfit(*line.split())
        assert done.exit_code == 0, (line, done.output)
    rows = await _logged(database)
    assert [(one["action"], one["target"], one["reason"]) for one in rows] == [tuple(one[1:]) for one in commands]
    assert {(one["face"], one["outcome"], one["actor"]) for one in rows} == {("cli", "done", "ann")}
    changed = next(one for one in rows if one["action"] == "organization.set")
    assert changed["effects"] == {"before": {"monthly_quota": 50}, "after": {"monthly_quota": 60}}
    listed = json.loads((await teamfit("actions", "list", "--action", "plan.", "--json")).stdout)
    assert [one["action"] for one in listed["actions"]] == ["plan.forget", "plan.set"]
    assert "no action fits" in (await teamfit("actions", "list", "--outcome", "refused")).stdout.lower()


async def test_a_refusal_is_logged_and_nothing_else_is(database: Pool, teamfit: Run) -> None:
    """A job that nobody knows, a plan that is none: the log says who wanted what, and why not."""
    job, plan = uuid4(), uuid4()
    assert (await teamfit("job", "cancel", job, "--because", "a mistake", "--yes")).exit_code == 1
    assert (await teamfit("replay", "abort", plan)).exit_code == 1
    assert (await teamfit("plan", "forget", "gold")).exit_code == 1
    rows = await _logged(database)
    assert [(one["action"], one["target"], one["outcome"]) for one in rows] == [
        ("job.cancel", f"job {job}", "refused"),
        ("replay.abort", f"plan {plan}", "refused"),
        ("plan.forget", "plan of subscriptions gold", "refused"),
    ]
    assert rows[0]["reason"] == "a mistake"
    assert "not found" in rows[0]["why"]


async def test_the_row_is_of_the_transaction_that_acts(database: Pool, database_url: str) -> None:
    """What rolls back leaves no row; what commits has one, with the effects that were found on the way."""
    books = Database(database_url, size=2)

    async def fail(act: Act, failure: Exception) -> None:
        async with acting(books, act) as connection:
            await connection.execute("INSERT INTO plan_shares (plan) VALUES ('gold')")
            raise failure

    for failure in (RuntimeError("the process died here"), asyncpg.DataError("a bug")):
        with pytest.raises(type(failure)):
            await fail(Act("test", "one"), failure)
    assert await _logged(database) == []
    with acting_as("ann", "console"), pytest.raises(Refused):
        await fail(Act("test", "two", "because"), Refused("invalid_request", "no"))
    assert await database.fetchval("SELECT count(*) FROM plan_shares") == 0
    act = Act("test", "three\0")
    async with acting(books, act) as connection:
        await connection.execute("INSERT INTO plan_shares (plan) VALUES ('gold')")
        act.effects = {"plans": 1, "named": "a\0b"}
    refused, done = await _logged(database)
    assert (refused["actor"], refused["face"], refused["why"]) == ("ann", "console", "no")
    assert (done["actor"], done["target"], done["effects"]) == ("unknown", "three�", {"plans": 1, "named": "a�b"})
    await books.close()


async def test_pages_have_every_action_once(database: Pool, database_url: str) -> None:
    """However many share a moment, each stands on one page."""
    books = Database(database_url, size=1)
    await database.execute(
        "INSERT INTO operator_actions (at, actor, face, action, target, outcome) "
        "SELECT '2031-04-01', 'ann', 'cli', 'test', n::text, 'done' FROM generate_series(1, 25) AS n"
    )
    seen, cursor = [], None
    while True:
        page = await find_actions(books, ActionFilter(actor="ann"), limit=7, cursor=cursor)
        seen += [one.target for one in page.actions]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(map(int, seen)) == list(range(1, 26))
    await books.close()


async def test_the_api_logs_what_operators_do_and_who_may_not(
    scene: Scene, database: Pool, database_url: str, redis_url: str
) -> None:
    """A plan by the API, and a try without the scope; a stranger without a token fills no log."""
    await scene.failed_generation()
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as http:
        operator, viewer = bearer("ops", "operator"), bearer("ops", "viewer")
        async with http.post("/api/ops/replay/plans", json={}, headers=operator) as answer:
            assert answer.status == 201
        for headers, status in ((viewer, 403), ({}, 401), (bearer("acme"), 403)):
            async with http.post("/api/ops/replay/plans", json={}, headers=headers) as answer:
                assert answer.status == status
            async with http.get("/api/ops/actions", headers=headers) as answer:
                assert answer.status == status
        async with http.get("/api/ops/actions?limit=2", headers=operator) as answer:
            log = await answer.json()
    assert [(one["action"], one["target"], one["outcome"]) for one in log["actions"]] == [
        ("request", "POST /api/ops/replay/plans", "refused")
    ] * 2
    assert log["next"]
    first, *_ = await _logged(database)
    assert (first["action"], first["face"]) == ("replay.plan", "api")
