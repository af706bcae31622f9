"""What an endpoint answers with status 200, from its bytes to Postgres and the event: replayed cases, and made ones."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.generation.answer import read
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.no_completion import NoCompletion
from infra.errors import DependencyDown, Permanent, Postponed, Transient
from infra.local.llm.composer import compose
from streams.jobs.events import JobAccepted, JobCompleted, parse_event
from tests.hostile import HOSTILE_BYTES, HOSTILE_NUMBERS, HOSTILE_TEXTS
from tests.integration.generation.conftest import Pool, StageUnderTest, Starter, accepted, end_hold
from tests.served import served

_CASES = Path(__file__).parents[2] / "cases" / "llm"
_ACTIVITIES: list[dict[str, Any]] = [dict(one) for one in compose("a remote hour for 8 people")]
_GOOD = json.dumps({"activities": _ACTIVITIES})
_NO_MATERIALS = json.dumps({"activities": [one | {"materials": None} for one in _ACTIVITIES]})


@dataclass
class Replay:
    """An endpoint that gives each call the same answer, or the one that belongs to its wish."""

    base_url: str = ""
    body: bytes = b""
    bodies: dict[str, bytes] = field(default_factory=dict)
    calls: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        wish = re.search(r"wish [0-9]+", await request.text())
        body = self.bodies.get(wish[0], self.body) if wish else self.body
        return web.Response(body=body, content_type="application/json")


@pytest.fixture
async def replay() -> AsyncIterator[Replay]:
    """An endpoint of the test's own that says what it is told to."""
    replay, app = Replay(), web.Application()
    app.router.add_post("/v1/chat/completions", replay.answer)
    async with served(app) as address:
        replay.base_url = f"{address}/v1"
        yield replay


@pytest.fixture
async def replayed(start_stage: Starter, replay: Replay, team: str) -> StageUnderTest:
    """A stage that calls the replaying endpoint."""
    return await start_stage(openai_base_url=replay.base_url, max_tokens_per_job=0)


async def _told(stage: StageUnderTest, event: JobAccepted) -> JobCompleted:
    """Handle an event twice, and return the fact, which is the same both times."""
    facts = [await stage.handle(event) for _ in range(2)]
    assert facts[0] == facts[1]
    fact = parse_event(facts[0][0].value)
    assert isinstance(fact, JobCompleted)
    return fact


async def _saved(database: Pool, event: JobAccepted) -> tuple[Any, ...]:
    """Return model, counts and doubt of the job's one call; they stand beside the activities too."""
    row = await database.fetchrow(
        "SELECT model, prompt_tokens, completion_tokens, maybe_billed FROM generation_attempts WHERE job_id = $1",
        event.job_id,
    )
    beside = await database.fetch(
        "SELECT model, prompt_tokens, completion_tokens FROM customized_activities WHERE job_id = $1", event.job_id
    )
    assert row is not None
    assert [tuple(one) for one in beside] == [tuple(row)[:3]] * 3
    return tuple(row)


@pytest.mark.parametrize(
    ("case", "counts", "maybe_billed"),
    [
        ("fenced", (10, 20), False),
        ("think-block", (10, 20), False),
        ("content-as-parts", (10, 20), False),
        ("materials-null", (10, 20), False),
        ("usage-missing", (None, None), True),
        ("usage-negative", (1151, None), True),
        ("usage-null-field", (12, 333), False),
    ],
)
async def test_a_case_completes_after_one_call(
    replayed: StageUnderTest,
    replay: Replay,
    database: Pool,
    case: str,
    counts: tuple[int | None, int | None],
    *,
    maybe_billed: bool,
) -> None:
    """Its activities are saved, and what it cost is in Postgres and in the event, known or unknown."""
    replay.body = _body_of(case)
    event = accepted()
    fact = await _told(replayed, event)
    assert replay.calls == 1
    saved = await _saved(database, event)
    assert (saved[1:3], saved[3]) == (counts, maybe_billed)
    assert (fact.data.prompt_tokens, fact.data.completion_tokens) == counts
    assert fact.data.model == saved[0] == ("gpt-4o-mini" if case == "usage-null-field" else "m")
    total = await database.fetchrow("SELECT calls, prompt_tokens, completion_tokens, maybe_billed_calls FROM llm_usage")
    assert total is not None
    assert tuple(total) == (1, counts[0] or 0, counts[1] or 0, int(maybe_billed))


@pytest.mark.parametrize(
    ("case", "errors", "code"),
    [
        ("finish-max-tokens-upper", Permanent, "llm_truncated"),
        ("200-error-body", (Transient, DependencyDown), "llm_rate_limited"),
    ],
)
async def test_a_case_without_activities(
    replayed: StageUnderTest,
    replay: Replay,
    database: Pool,
    case: str,
    errors: type[Exception] | tuple[type[Exception], ...],
    code: str,
) -> None:
    """One call was made, and it is on record for what it was."""
    replay.body = _body_of(case)
    with pytest.raises(errors):
        await replayed.handle(accepted())
    assert replay.calls == 1
    row = await database.fetchrow("SELECT error_code, maybe_billed, completion_tokens FROM generation_attempts")
    assert row is not None
    assert tuple(row) == (code, False, 4000 if code == "llm_truncated" else None)


def _body_of(case: str) -> bytes:
    text = (_CASES / f"{case}.json").read_text()
    texts = {"@GOOD@": _GOOD, "@GOOD with materials: null@": _NO_MATERIALS}
    for place, answer in texts.items():
        text = text.replace(place, json.dumps(answer)[1:-1])
    return orjson.dumps(orjson.loads(text)["body"])


async def test_a_call_of_unknown_cost_counts_as_a_full_answer(
    start_stage: Starter, replay: Replay, database: Pool, team: str
) -> None:
    """What is known of a call counts as such, and the rest as the longest answer that was allowed."""
    stage = await start_stage(openai_base_url=replay.base_url, max_tokens_per_job=1_000, max_completion_tokens=500)
    replay.body = _whole("two of them", usage={"prompt_tokens": 7})
    event = accepted()
    for _ in range(2):
        with pytest.raises(Transient):
            await stage.handle(event)
    with pytest.raises(Permanent, match="has used 1014 tokens of 1000"):
        await stage.handle(event)


_COUNTS = st.sampled_from([None, -35, 0, 2**31 - 1, 2**63, 1e30, "12", True]) | st.integers(1, 5_000)
_USAGES = st.none() | st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), _COUNTS, max_size=3
)
_PACKINGS = {
    "plain": "{}",
    "fence": "```json\n{}\n```",
    "think": "<think>two, {{or}} three</think>\n{}",
    "text": "Sure, here you are: {} Enjoy!",
    "bytes": "{}<|im_end|>",
}
_HOLDERS: dict[str, Callable[[str], object]] = {
    "content": lambda text: {"content": text},
    "parts": lambda text: {"content": [{"type": "text", "text": text}]},
    "reasoning": lambda text: {"content": "", "reasoning_content": text},
    "tool": lambda text: {"content": None, "tool_calls": [{"function": {"arguments": text}}]},
}
_SHAPES: dict[str, Callable[[object], str]] = {
    "object": lambda activities: json.dumps({"activities": activities}),
    "list": json.dumps,
    "wrapped": lambda activities: json.dumps({"result": {"activities": activities}}),
    "string": lambda activities: json.dumps(json.dumps({"activities": activities})),
}
_TITLES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(str.strip)


def _whole(text: object, *, usage: object, model: object = "m", finish_reason: object = "stop") -> bytes:
    message = text if isinstance(text, dict) else {"content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"model": model, "choices": [choice], "usage": usage}).encode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=_TITLES,
    shape=st.sampled_from(sorted(_SHAPES)),
    packing=st.sampled_from(sorted(_PACKINGS)),
    holder=st.sampled_from(sorted(_HOLDERS)),
    usage=_USAGES,
    model=st.sampled_from(["m", None, "", 7, "x" * 300, "nul \0 and \ud800", "models/m-1"]),
    finish_reason=st.sampled_from(["stop", "STOP", None, "end_turn", "tool_calls", 7]),
)
async def test_whatever_is_saved_is_what_was_answered_and_is_told(
    replayed: StageUnderTest,
    replay: Replay,
    database: Pool,
    title: str,
    shape: str,
    packing: str,
    holder: str,
    usage: dict[str, object] | None,
    model: object,
    finish_reason: object,
) -> None:
    """Packing changes nothing in the activities; an unknown count is never zero; the event says what Postgres has."""
    activities = [_ACTIVITIES[0] | {"title": title}, *_ACTIVITIES[1:]]
    text = _PACKINGS[packing].format(_SHAPES[shape](activities))
    replay.body = _whole(_HOLDERS[holder](text), usage=usage, model=model, finish_reason=finish_reason)
    calls, event = replay.calls, accepted()
    fact = await _told(replayed, event)
    assert replay.calls == calls + 1
    rows = await database.fetch(
        "SELECT title, steps, materials FROM customized_activities WHERE job_id = $1 ORDER BY position", event.job_id
    )
    assert [row["title"] for row in rows] == [one["title"].strip() for one in activities]
    assert [orjson.loads(row["steps"]) for row in rows] == [one["steps"] for one in activities]
    saved = await _saved(database, event)
    assert (fact.data.model, fact.data.prompt_tokens, fact.data.completion_tokens) == saved[:3]
    assert 0 not in saved[1:3]
    assert saved[3] or saved[2] is not None
    assert len(saved[0]) <= 200


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.sampled_from([_GOOD, _GOOD[:200], json.dumps({"activities": _ACTIVITIES[:2]}), "No.", "", None]),
    usage=_USAGES,
    finish_reason=st.sampled_from(["length", "MAX_TOKENS", "SAFETY", "content_filter", "OTHER", "refusal"]),
)
async def test_an_answer_that_did_not_end_well_is_never_saved(
    replayed: StageUnderTest,
    replay: Replay,
    database: Pool,
    text: str | None,
    usage: dict[str, object] | None,
    finish_reason: str,
) -> None:
    """It has its own outcome whatever it holds, and its cost is on record, known or unknown."""
    replay.body = _whole(text, usage=usage, finish_reason=finish_reason)
    event = accepted()
    with pytest.raises((Permanent, Transient)):
        await replayed.handle(event)
    row = await database.fetchrow("SELECT * FROM generation_attempts WHERE job_id = $1", event.job_id)
    assert row is not None
    assert row["state"] == "failed"
    assert row["maybe_billed"] or row["completion_tokens"] is not None
    assert await database.fetchval("SELECT count(*) FROM customized_activities WHERE job_id = $1", event.job_id) == 0


def _hostile() -> Iterator[tuple[str, bytes]]:
    """Yield bodies with a hostile value, and the field that stands for it where it is content."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20}
    for text in HOSTILE_TEXTS:
        for name, value in {"title": text, "objective": text, "materials": [text], "steps": [text]}.items():
            activities = [_ACTIVITIES[0] | {name: value}, *_ACTIVITIES[1:]]
            yield name, _whole(json.dumps({"activities": activities}), usage=usage)
        yield "", _whole(_GOOD, usage={"prompt_tokens": text}, model=text, finish_reason=text)
        yield "", _whole(text, usage=usage)
    for number in HOSTILE_NUMBERS:
        activities = [_ACTIVITIES[0] | {"duration_minutes": number}, *_ACTIVITIES[1:]]
        yield "duration_minutes", _whole(json.dumps({"activities": activities}), usage=usage)
        counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), number)
        yield "", _whole(_GOOD, usage=counts, model=number, finish_reason=number)
    yield from (("", body) for body in HOSTILE_BYTES)


async def test_hostile_values_are_saved_or_refused_by_field(
    replayed: StageUnderTest, replay: Replay, database: Pool
) -> None:
    """Each of them is a saved answer or a failure of one call that names the field; a good job then completes."""
    replay.body = _whole(_GOOD, usage={"prompt_tokens": 10, "completion_tokens": 20})
    assert await replayed.handle(accepted())
    answers = {f"wish {number}": answer for number, answer in enumerate(_hostile())}
    replay.bodies = {wish: body for wish, (_, body) in answers.items()}
    refused: list[tuple[str, str]] = []

    async def ask(wish: str) -> None:
        event = accepted(requirements=wish)
        try:
            await _told(replayed, event)
            await _saved(database, event)
        except (Transient, Permanent, Postponed, DependencyDown) as error:
            refused.append((answers[wish][0], str(error)))

    # A body that is no completion is the endpoint's fault; a probe shows that it answers others.
    alone = [wish for wish, body in replay.bodies.items() if not _is_completion(body)]
    await asyncio.gather(*(ask(wish) for wish in answers.keys() - alone))
    for wish in alone:
        await ask(wish)
        await end_hold(replayed)
    assert all(name in message and len(message) < 400 for name, message in refused)
    codes = await database.fetch("SELECT DISTINCT coalesce(error_code, state) AS code FROM generation_attempts")
    assert {row["code"] for row in codes} == {"llm_invalid_output", "llm_server_error", "saved"}
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == len(answers) + 1
    assert await replayed.handle(accepted())


def _is_completion(body: bytes) -> bool:
    try:
        read(body, fallback_model="m")
    except NoCompletion:
        return False
    except LlmFailure:
        pass
    return True
