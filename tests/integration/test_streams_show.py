"""Operators look at entries from the terminal; a topic or group that is none is named, with those that are."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.api_server import api_settings, bearer, serving
from tests.commands import Run


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """A plain client of the server that the commands are told of."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def show(teamfit: Run) -> Run:
    """Runs `teamfit streams show`."""
    return partial(teamfit, "streams", "show")


async def test_entries_are_shown_page_by_page(redis: Any, show: Run) -> None:
    """What is no text moves no cursor, and a long event is cut."""
    for event in (b"\x1b[2J\x00", b"\xff\xfe", b"x" * 5_000):
        await redis.xadd("job-requests", {"key": "k", "event": event, "h:source": "a test"})
    await redis.xgroup_create("job-requests", "quota", "0")
    await redis.xreadgroup("quota", "w1", {"job-requests": ">"}, count=2)
    said = await show("job-requests", "--limit", "2")
    assert said.exit_code == 0, said.output
    assert "2 shown." in said.stdout
    assert not {"\x1b", "\x00"} & set(said.stdout)
    cursor = said.stdout.split("--cursor ")[1].split()[0]
    rest = json.loads((await show("job-requests", "--cursor", cursor, "--json")).stdout)
    (last,) = rest["entries"]
    assert (last["key"], last["size"], len(last["event"]), last["headers"]) == ("k", 5_000, 4_001, {"source": "a test"})
    pending = json.loads((await show("job-requests", "--group", "quota", "--json")).stdout)
    assert [(one["consumer"], one["deliveries"]) for one in pending["entries"]] == [("w1", 1), ("w1", 1)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("jobs",), "job-requests"),
        (("job-requests", "--group", "nobody"), "quota"),
        (("job-requests", "--cursor", "here"), "leave it out"),
    ],
)
async def test_what_is_none_is_named_with_the_fix(redis: Any, show: Run, words: tuple[str, ...], says: str) -> None:
    """And nothing is made of it in the broker."""
    said = await show(*words)
    assert said.exit_code != 0
    assert says in said.output
    assert "Traceback" not in said.output
    assert await redis.dbsize() == 0


async def test_operators_look_by_the_api(redis: Any, redis_url: str, database_url: str) -> None:
    """As from the terminal; customers may not."""
    await redis.xadd("job-requests", {"key": "k", "event": b"<b>\xff", **{f"h:{one}": "x" for one in range(60)}})
    await redis.xgroup_create("job-requests", "quota", "0")
    await redis.xreadgroup("quota", "w1", {"job-requests": ">"})
    async with serving(api_settings(database_url=database_url, broker_url=redis_url)) as http:

        async def asked(query: str, **headers: str) -> tuple[int, Any]:
            async with http.get(f"/api/ops/streams/{query}", headers=headers) as answer:
                return answer.status, await answer.json()

        operator = bearer("ops", "operator")
        pages = {}
        for query in ("job-requests", "job-requests?group=quota"):
            status, page = await asked(query, **operator)
            (one,) = page["entries"]
            assert (status, one["event"], len(one["headers"]), page["next"]) == (200, "<b>\\xff", 50, None)
            pages[query] = one
        one = pages["job-requests?group=quota"]
        assert (one["consumer"], one["deliveries"]) == ("w1", 1)
        for query in ("nothing", "job-requests?group=nobody", "job-requests?cursor=x", "job-requests?limit=101"):
            assert (await asked(query, **operator))[0] == 422
        assert (await asked("job-requests", **bearer("acme")))[0] == 403
        assert (await asked("job-requests"))[0] == 401
