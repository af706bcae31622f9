"""Answers are read while they are written: what a waiting person sees, what it costs, and when it is left alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from infra.errors import DependencyDown, Postponed
from streams.jobs.events import JobCompleted, JobProgressed, JobStarted, parse_event
from tests.integration.generation.conftest import Endpoint, Pool, StageUnderTest, Starter, accepted
from tests.served import served
from tests.unit.generation.streams import DONE, PIECES, TOLD, USAGE, chunk, event, sent, usual
from tests.unit.generation.test_packing import ACTIVITIES, GOOD, body
from tests.waiting import wait_for

# Longer than what is not worth telling of.
_SLOW_S = 4.0


def facts_of(stage: StageUnderTest) -> list[JobStarted | JobProgressed]:
    """Return what was published before the jobs' ends."""
    facts = [parse_event(one.value) for one in stage.published.records]
    return [one for one in facts if isinstance(one, JobStarted | JobProgressed)]


def progress_of(stage: StageUnderTest) -> list[JobProgressed]:
    """Return what was told of activities."""
    return [one for one in facts_of(stage) if isinstance(one, JobProgressed)]


async def learned(database: Pool) -> tuple[bool | None, str] | None:
    """Return whether the endpoint's streams are read, and why."""
    row = await database.fetchrow("SELECT streams, why, trial_until FROM llm_streams")
    assert row is None or row["trial_until"] is None, "the turn to find out was not given back"
    return (row["streams"], row["why"]) if row else None


class Provider:
    """An endpoint that answers in a test's own way. `asked` holds the requests."""

    def __init__(self, answer: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.url = ""
        self._answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        call = orjson.loads(await request.read())
        self.asked.append(call)
        return await self._answer(request, call)


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Provider]:
    """Serve such an endpoint."""
    provider, app = Provider(answer), web.Application()
    app.router.add_post("/v1/chat/completions", provider.handle)
    async with served(app) as address:
        provider.url = f"{address}/v1"
        yield provider


async def in_events(request: web.Request, *parts: str, is_cut: bool = False, ends: bool = True) -> web.StreamResponse:
    """Answer with these parts of a stream; one that is cut loses its connection after them."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for part in parts:
        await response.write(part.encode())
        await asyncio.sleep(0.01)
    if is_cut:
        assert request.transport is not None
        request.transport.abort()
    elif ends:
        await response.write_eof()
    return response


async def test_each_activity_is_told_while_the_next_is_written(stage: StageUnderTest, endpoint: Endpoint) -> None:
    """The first is told during the call, all three before its end, with title and number; they are saved as three."""
    await endpoint.tell("ok", latency=_SLOW_S)
    event = accepted()
    handling = asyncio.create_task(stage.handle(event))
    await wait_for(lambda: progress_of(stage), what="the first activity to be told")
    assert not handling.done()
    (completed,) = await handling
    told = progress_of(stage)
    assert [(one.data.step, one.data.number, one.data.attempt) for one in told] == [
        ("activity", number, 1) for number in (1, 2, 3)
    ]
    assert isinstance(facts_of(stage)[0], JobStarted)
    assert len({one.id for one in told}) == 3
    assert {one.run for one in told} == {event.run}
    assert isinstance(parse_event(completed.value), JobCompleted)
    assert (await endpoint.calls())["received"] == 1


async def test_titles_and_cost_are_those_that_are_saved(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """What was told is what the customer gets, and the tokens are the provider's own count."""
    await endpoint.tell("ok", latency=_SLOW_S)
    await stage.handle(accepted())
    rows = await database.fetch("SELECT title FROM customized_activities ORDER BY position")
    assert [one.data.title for one in progress_of(stage)] == [row["title"] for row in rows]
    attempt = await database.fetchrow("SELECT * FROM generation_attempts")
    calls = await endpoint.calls()
    assert attempt is not None
    assert (attempt["prompt_tokens"], attempt["completion_tokens"], attempt["maybe_billed"]) == (
        *(calls["prompt_tokens"], calls["completion_tokens"]),
        False,
    )
    assert await learned(database) == (True, "it was taken at once")


async def test_a_quick_answer_is_told_as_a_whole_alone(stage: StageUnderTest, database: Pool) -> None:
    """Whoever has it within two seconds has not begun to wait: no facts are added to the stream."""
    await stage.handle(accepted())
    assert progress_of(stage) == []
    assert await learned(database) == (True, "it was taken at once")


async def test_a_retry_tells_again_under_its_own_attempt(
    stage: StageUnderTest, endpoint: Endpoint, database: Pool
) -> None:
    """An attempt that failed in the middle has told of what it wrote; the next tells of its own three."""
    await endpoint.tell("cut", count=1, latency=_SLOW_S)
    event = accepted()
    with pytest.raises((Postponed, DependencyDown)):
        await stage.handle(event)
    await endpoint.tell("ok", latency=_SLOW_S)
    await stage.handle(event)
    first, second = ([one.data.number for one in progress_of(stage) if one.data.attempt == at] for at in (1, 2))
    assert first == [1, 2, 3][: len(first)]
    assert len(first) < 3
    assert second == [1, 2, 3]
    assert len({one.id for one in progress_of(stage)}) == len(first) + 3
    states = await database.fetch("SELECT state, error_code, maybe_billed FROM generation_attempts ORDER BY attempt")
    assert [tuple(row) for row in states] == [("failed", "llm_connection_lost", True), ("saved", None, False)]
    assert await database.fetchval("SELECT count(*) FROM customized_activities") == 3


async def test_a_broker_that_is_away_holds_no_answer_up(stage: StageUnderTest, endpoint: Endpoint) -> None:
    """What could not be told is lost, and the job is completed."""
    await endpoint.tell("ok", latency=_SLOW_S)
    handling = asyncio.create_task(stage.handle(accepted()))
    await wait_for(lambda: facts_of(stage), what="JobStarted")
    stage.published.error = DependencyDown("broker", "it is away")
    (completed,) = await handling
    assert isinstance(parse_event(completed.value), JobCompleted)
    assert progress_of(stage) == []


async def test_the_setting_turns_it_off(start_stage: Starter, endpoint: Endpoint, database: Pool, team: str) -> None:
    """Nothing is told and nothing is learned."""
    assert team
    stage = await start_stage(llm_stream=False)
    await endpoint.tell("ok", latency=_SLOW_S)
    await stage.handle(accepted())
    assert progress_of(stage) == []
    assert await learned(database) is None


_REFUSED = {"error": {"message": "Extra inputs are not permitted", "type": "invalid_request_error"}}
_NAMED = {"error": {"message": "stream_options: this model cannot stream", "param": "stream_options", "type": "x"}}
_UNVERIFIED = {
    "error": {
        "message": "Your organization must be verified to stream this model. Please go to the settings and verify it.",
        "type": "invalid_request_error",
        "param": "stream",
        "code": "unsupported_value",
    }
}


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, _UNVERIFIED),
        (403, _UNVERIFIED),
        (400, _NAMED),
        (400, _REFUSED),
        (405, _REFUSED),
        (422, _NAMED),
        (422, _REFUSED),
        (501, _NAMED),
        (500, _NAMED),
    ],
)
async def test_an_endpoint_that_refuses_streams_is_asked_whole(
    start_stage: Starter, database: Pool, team: str, status: int, refusal: dict[str, Any]
) -> None:
    """The refused call costs nothing, the job is completed by the same attempt, and no other call streams."""
    assert team

    async def answer(_: web.Request, call: dict[str, Any]) -> web.Response:
        if "stream" in call:
            return web.json_response(refusal, status=status)
        return web.Response(body=body({"content": GOOD}), content_type="application/json")

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        await stage.handle(accepted())
        await stage.handle(accepted())
    assert [("stream" in call) for call in provider.asked] == [True, False, False]
    assert await database.fetchval("SELECT array_agg(state) FROM generation_attempts") == ["saved", "saved"]
    streams, why = await learned(database) or (None, "")
    assert streams is False
    assert "refused" in why


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([body({"content": GOOD}).decode()], "it answered whole, though it was asked for a stream"),
        ([sent(*usual())], "its stream states no usage"),
        ([sent(*usual(), done=False)], "its stream states no usage"),
        ([sent(*usual(), {**chunk({}), "choices": [], "usage": None})], "its stream states no usage"),
    ],
)
async def test_an_endpoint_whose_count_would_be_lost_is_asked_whole(
    start_stage: Starter, database: Pool, team: str, parts: list[str], why: str
) -> None:
    """One call finds it out, while all others ask whole; what it has cost is unknown if its stream did not say."""
    assert team

    async def answer(request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        if "stream" in call:
            return await in_events(request, *parts)
        return web.Response(body=body({"content": GOOD}), content_type="application/json")

    async with serving(answer) as provider:
        stages = [await start_stage(openai_base_url=provider.url) for _ in range(2)]
        await stages[0].handle(accepted())
        await asyncio.gather(*(one.handle(accepted()) for one in stages * 4))
    assert [call for call in provider.asked if "stream" in call] == provider.asked[:1]
    assert provider.asked[0]["stream_options"] == {"include_usage": True}
    assert await learned(database) == (False, why)
    unknown = await database.fetchval("SELECT count(*) FROM generation_attempts WHERE maybe_billed")
    assert unknown == ("usage" in why)


async def test_while_it_is_unknown_one_call_of_the_fleet_streams(
    start_stage: Starter, database: Pool, team: str
) -> None:
    """The others do not wait for it: they ask whole, so that at most one call's cost can be missing."""
    assert team
    is_found = asyncio.Event()

    async def answer(request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        if "stream" in call:
            await is_found.wait()
            return await in_events(request, sent(*usual(), {**chunk({}), "choices": [], "usage": USAGE}))
        return web.Response(body=body({"content": GOOD}), content_type="application/json")

    async with serving(answer) as provider:
        stages = [await start_stage(openai_base_url=provider.url) for _ in range(3)]
        jobs = [asyncio.create_task(stages[at % 3].handle(accepted())) for at in range(9)]
        await wait_for(lambda: sum(job.done() for job in jobs) == 8, what="all but one job to be completed")
        is_found.set()
        await asyncio.gather(*jobs)
        assert sum("stream" in call for call in provider.asked) == 1
        await stages[0].handle(accepted())
    assert await learned(database) == (True, "it was taken at once")


@pytest.mark.parametrize("name", TOLD)
async def test_streams_of_all_providers_are_saved(start_stage: Starter, database: Pool, team: str, name: str) -> None:
    """On the wire, too: three activities, the cost, and the stream is kept."""
    assert team
    text = TOLD[name]()

    async def answer(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await in_events(
            request, *(text[at : at + len(text) // 9 + 1] for at in range(0, len(text), len(text) // 9 + 1))
        )

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        await stage.handle(accepted())
    titles = await database.fetch("SELECT title, prompt_tokens FROM customized_activities ORDER BY position")
    assert [tuple(row) for row in titles] == [(one["title"], USAGE["prompt_tokens"]) for one in ACTIVITIES]
    assert await learned(database) == (True, "it was taken at once")


_HALF = sent(*usual(PIECES[: len(PIECES) // 2])[:-1], done=False)
_FAULT = {"error": {"message": "The server is overloaded", "code": 503}}


@pytest.mark.parametrize(
    ("parts", "is_cut", "code"),
    [
        ([_HALF], True, "llm_connection_lost"),
        ([_HALF], False, "llm_connection_lost"),
        ([_HALF, DONE], False, "llm_invalid_output"),
        ([_HALF, event(_FAULT)], False, "llm_server_error"),
        ([_HALF, event({**chunk({"content": ""}, "error"), **_FAULT})], False, "llm_server_error"),
        (
            [sent(*usual([GOOD[:200]])[:-1], chunk({}, "length"), {**chunk({}), "choices": [], "usage": USAGE})],
            False,
            "llm_truncated",
        ),
        ([": nothing else\n\n"], False, "llm_server_error"),
    ],
)
async def test_a_stream_that_fails_is_judged_as_a_whole_answer_is(
    start_stage: Starter, database: Pool, team: str, parts: list[str], is_cut: bool, code: str
) -> None:
    """A cut is a lost connection, an error in the middle what it says; what was written may have to be paid for."""
    assert team

    async def answer(request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        if "stream" in call:
            return await in_events(request, *parts, is_cut=is_cut)
        return web.Response(body=body({"content": GOOD}), content_type="application/json")

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one, the evidence decides; the record says it all
            await stage.handle(accepted())
    row = await database.fetchrow("SELECT error_code, maybe_billed, completion_tokens FROM generation_attempts")
    assert row is not None
    is_known = code == "llm_truncated"
    assert tuple(row) == (code, not is_known, USAGE["completion_tokens"] if is_known else None)
    assert (await learned(database) or (None,))[0] in {None, is_known, False}


async def test_a_connection_lost_after_the_answer_loses_nothing(
    start_stage: Starter, database: Pool, team: str
) -> None:
    """All was said, the cost too: only the last frame is missing."""
    assert team
    whole = sent(*usual(), {**chunk({}), "choices": [], "usage": USAGE}, done=False)

    async def answer(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return await in_events(request, whole, is_cut=True)

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        await stage.handle(accepted())
    assert await database.fetchval("SELECT maybe_billed FROM generation_attempts") is False


async def test_a_server_that_neither_ends_nor_closes_holds_no_slot(
    start_stage: Starter, database: Pool, team: str
) -> None:
    """It has said how its answer ended and what it cost: the answer is saved, once, and nothing is paid for twice."""
    assert team
    is_saved = asyncio.Event()

    async def answer(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        said = sent(*usual(), {**chunk({}), "choices": [], "usage": USAGE}, done=False)
        response = await in_events(request, said, ends=False)
        await is_saved.wait()
        return response

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url, generation_timeout_s=60)
        (completed,) = await stage.handle(accepted())
        is_saved.set()
        assert len(provider.asked) == 1
    assert isinstance(parse_event(completed.value), JobCompleted)
    assert await database.fetchval("SELECT count(*) FROM generation_attempts WHERE NOT maybe_billed") == 1
    assert await learned(database) == (True, "it was taken at once")


async def test_what_follows_the_last_event_holds_no_answer_up(start_stage: Starter, database: Pool, team: str) -> None:
    """A server that leaves its stream open after `[DONE]` is not waited for; one that ends it keeps its connection."""
    assert team
    is_saved = asyncio.Event()
    ports: set[object] = set()

    async def answer(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        response = await in_events(request, sent(*usual(), {**chunk({}), "choices": [], "usage": USAGE}), ends=False)
        if len(ports) == 1 and not is_saved.is_set():
            await is_saved.wait()
        await response.write_eof()
        return response

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        await stage.handle(accepted())
        is_saved.set()
        await wait_for(lambda: not stage.line._llm._endings, what="the stream to end")
        await stage.handle(accepted())
    assert len(ports) == 1
    assert await database.fetchval("SELECT count(*) FROM generation_attempts WHERE state = 'saved'") == 2


async def test_streams_that_break_off_one_after_the_other_are_given_up(
    start_stage: Starter, database: Pool, team: str
) -> None:
    """A gateway that ends each stream, and lets whole answers through, does not fail every job for ever."""
    assert team

    whole = sent(*usual(), {**chunk({}), "choices": [], "usage": USAGE})
    breaks = False

    async def answer(request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        if "stream" in call:
            return await in_events(request, _HALF if breaks else whole)
        return web.Response(body=body({"content": GOOD}), content_type="application/json")

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        await stage.handle(accepted())
        breaks = True
        for _ in range(5):
            assert await learned(database) == (True, "it was taken at once")
            with pytest.raises(Postponed):
                await stage.handle(accepted())
        asked = len(provider.asked)
        await stage.handle(accepted())
    assert not any("stream" in call for call in provider.asked[asked:])
    assert await learned(database) == (False, "its streams broke off, one after the other")


async def test_whoever_answers_quickly_is_asked_for_whole_answers(start_stage: Starter, team: str) -> None:
    """With many calls under way nothing of such an answer would be told; streams are read again when it gets slow."""
    assert team
    takes_s = [0.0]

    async def answer(request: web.Request, call: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(takes_s[-1])
        if "stream" in call:
            return await in_events(request, sent(*usual(), {**chunk({}), "choices": [], "usage": USAGE}))
        return web.Response(body=body({"content": GOOD}), content_type="application/json")

    async with serving(answer) as provider:
        stage = await start_stage(openai_base_url=provider.url)
        for _ in range(21):
            await stage.handle(accepted())
        takes_s.append(2.1)
        await asyncio.gather(*(stage.handle(accepted()) for _ in range(24)))
        await asyncio.gather(*(stage.handle(accepted()) for _ in range(12)))
    streams = ["stream" in call for call in provider.asked]
    assert (streams[:21], streams[21:45], streams[45:]) == ([True] * 21, [True] * 9 + [False] * 15, [True] * 12)
