"""Who is to blame for a call that fails, through the whole stage: an endpoint answers as the cases say."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import web

from infra.errors import DependencyDown, Permanent, Postponed, Transient
from infra.local.llm.composer import compose
from tests.integration.generation.conftest import Pool, Starter, accepted, eventually, hold_is_due
from tests.served import served
from tests.waiting import wait_for

_CASES = {
    path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parents[2] / "cases").glob("*/*.json"))
}

Answer: TypeAlias = tuple[int, dict[str, str], object]
# What becomes of a request, given its body; None: it is answered well.
Script: TypeAlias = Callable[[dict[str, Any]], Answer | None]


@dataclass
class Scripted:
    """An endpoint that answers by a script and remembers what it was asked. A probe's answer waits for `meanwhile`."""

    url: str = ""
    script: Script = lambda _: None
    meanwhile: Callable[[], Awaitable[None]] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        if self.meanwhile is not None and is_probe(body):
            await self.meanwhile()
        refusal = self.script(body)
        if refusal is None:
            return web.json_response(_completion(body))
        status, headers, content = refusal
        if isinstance(content, str):
            return web.Response(status=status, headers=headers, text=content)
        return web.json_response(content, status=status, headers=headers)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The requests that were made for jobs."""
        return [body for body in self.asked if not is_probe(body)]


def is_probe(body: dict[str, Any]) -> bool:
    """Whether a request holds no customer's words."""
    return "<data>" not in body["messages"][-1]["content"]


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps({"activities": compose(body["messages"][-1]["content"])})
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 30, "completion_tokens": 300, "total_tokens": 330}
    return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def always(name: str) -> Script:
    """Answer every request as the case says."""
    case = _CASES[name]
    return lambda _: (case["status"], case["headers"], case["body"])


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """An endpoint of the test's own."""
    endpoint, app = Scripted(), web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    async with served(app) as address:
        endpoint.url = f"{address}/v1"
        yield endpoint


_HELD = {
    "200-error-body": "rate limit",
    "400-key-invalid-as-list": "the key is wrong",
    "402-no-credit": "has no credit",
    "403-one-prompt": "blocked",
    "429-billing-not-active": "has no credit",
    "429-retry-delay-in-body": "takes no calls for 4",
    "503-loading-no-retry-after": "fails",
}


@pytest.mark.parametrize("name", _HELD)
async def test_what_everybody_meets_holds_and_fails_no_job(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str, name: str
) -> None:
    """The stage says in one sentence whose fault it is; nothing fails, nothing is billed, all complete when it ends."""
    stage = await start_stage(openai_base_url=scripted.url)
    scripted.script = always(name)
    events = [accepted(), accepted()]
    for event in events:
        with pytest.raises(DependencyDown, match=_HELD[name]):
            await stage.handle(event)
    assert len(scripted.jobs) == 1
    assert not await database.fetchval("SELECT bool_or(maybe_billed) FROM generation_attempts")
    if name == "429-retry-delay-in-body":
        wait = await database.fetchval("SELECT extract(epoch FROM closed_until - closed_at) FROM llm_gate")
        assert 45 < wait <= 47
        return
    scripted.script = lambda _: None
    for event in events:
        assert await eventually(stage, event)


_PAGE_413 = "<html><head><title>413 Request Entity Too Large</title></head><body>nginx</body></html>"
_SORRY = {"choices": [{"message": {"content": "I'm sorry, I can't help with that."}, "finish_reason": "stop"}]}
_FILTERED = {"choices": [{"message": {}, "content_filter_results": {"hate": {"filtered": True}}}]}


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, _CASES["403-one-prompt"]["body"], "llm_content_filter"),
        (200, {"error": "Content violates our usage policies"}, "llm_content_filter"),
        (200, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}, "llm_content_filter"),
        (400, {"error": {"code": "1301", "message": "x"}}, "llm_content_filter"),
        (200, _FILTERED, "llm_content_filter"),
        (200, _SORRY, "llm_refusal"),
        (200, "I'm sorry, I can't help with that.", "llm_refusal"),
        (413, _PAGE_413, "llm_prompt_too_long"),
        # OpenRouter's speaks of credits, which once held everybody.
        (403, {"error": {"message": 'Your input was flagged for "x". No credits were charged.'}}, "llm_content_filter"),
        # OpenAI's 429 that no minute has room for.
        (
            429,
            {"error": {"message": "Request too large for m on tokens per min", "type": "tokens"}},
            "llm_prompt_too_long",
        ),
    ],
)
async def test_a_refused_prompt_fails_alone_after_one_call(
    start_stage: Starter, scripted: Scripted, team: str, status: int, body: object, code: str
) -> None:
    """What is about one prompt is its own, in whatever form it comes; the next job completes, and nobody is held."""
    stage = await start_stage(openai_base_url=scripted.url)
    scripted.script = lambda asked: (status, {}, body) if not is_probe(asked) and len(scripted.jobs) == 1 else None
    with pytest.raises(Permanent) as raised:
        await stage.handle(accepted())
    assert raised.value.code == code
    assert len(scripted.jobs) == 1
    assert await stage.handle(accepted())


def _native(text: str) -> Answer:
    """Answer as Ollama itself does."""
    return 200, {}, {"message": {"content": text}, "done": True, "prompt_eval_count": 10, "eval_count": 20}


async def test_another_apis_prose_holds_with_the_address_to_set_and_is_counted(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str
) -> None:
    """It ignores the form, so every job would fail; the call was paid for."""
    stage = await start_stage(openai_base_url=scripted.url)
    scripted.script = lambda _: _native("Here are some ideas.")
    event = accepted()
    for _ in range(2):
        with pytest.raises(DependencyDown, match="11434/v1"):
            await stage.handle(event)
    assert len(scripted.jobs) == 1
    row = await database.fetchrow("SELECT error_code, prompt_tokens, completion_tokens FROM generation_attempts")
    assert row is not None
    assert tuple(row) == ("llm_misconfigured", 10, 20)
    scripted.script = lambda _: None
    assert await eventually(stage, event)


async def test_another_apis_answer_that_is_wrong_for_one_prompt_holds_nobody(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str
) -> None:
    """A harmless question is answered with JSON: it is this job's own, and fails the second time."""
    stage = await start_stage(openai_base_url=scripted.url)
    good = json.dumps({"activities": compose("a remote hour for 8 people")})
    scripted.script = lambda asked: _native("{}" if is_probe(asked) else "Five of them: …")
    odd = accepted()
    with pytest.raises(Postponed):
        await stage.handle(odd)
    with pytest.raises(Permanent) as raised:
        await stage.handle(odd)
    assert raised.value.code == "llm_bad_request"
    scripted.script = lambda _: _native(good)
    assert await stage.handle(accepted())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Could not process: 'our API key is invalid'", "type": "invalid_request_error"}}),
        (401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}),
        (402, {"error": {"message": "requires more credits, or fewer max_tokens", "code": 402}}),
        (404, {"error": {"message": "The model does not exist", "code": "model_not_found"}}),
    ],
)
async def test_words_about_the_account_hold_nobody_while_others_are_answered(
    start_stage: Starter, scripted: Scripted, team: str, *, status: int, body: dict[str, Any]
) -> None:
    """An endpoint may quote the prompt: the job that gets such an answer waits alone, and fails the second time."""
    stage = await start_stage(openai_base_url=scripted.url)
    assert await stage.handle(accepted())
    quoted, refused = accepted(), True
    scripted.script = lambda asked: (status, {}, body) if refused and not is_probe(asked) else None
    before = len(scripted.jobs)
    with pytest.raises(Postponed):
        await stage.handle(quoted)
    with pytest.raises(Permanent) as raised:
        await stage.handle(quoted)
    assert raised.value.code == "llm_bad_request"
    assert len(scripted.jobs) == before + 2
    refused = False
    assert await stage.handle(accepted())


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "no", "code": "a\0b", "param": 7}}, "llm_bad_request"),
        (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "str type expected"}]}, "llm_bad_request"),
        (418, "", "llm_bad_request"),
        (413, "", "llm_prompt_too_long"),
    ],
)
async def test_an_unknown_refusal_is_decided_by_the_neighbours(
    start_stage: Starter, scripted: Scripted, team: str, status: int, body: object, code: str
) -> None:
    """To one prompt, while a harmless one is answered: its job fails. To all: the stage is held."""
    stage = await start_stage(openai_base_url=scripted.url)
    assert await stage.handle(accepted())
    scripted.script = lambda asked: None if is_probe(asked) else (status, {}, body)
    with pytest.raises(Permanent) as raised:
        await stage.handle(accepted())
    assert raised.value.code == code
    scripted.script = lambda _: (status, {}, body)
    event = accepted()
    with pytest.raises(DependencyDown, match="refuses every prompt"):
        await stage.handle(event)
    scripted.script = lambda _: None
    assert await eventually(stage, event)


async def test_a_held_endpoint_is_probed_once_by_the_fleet_and_never_with_a_job(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str
) -> None:
    """However often jobs come again: one call for a job, a probe before all wait, and one a wait, ever more rarely."""
    workers = [await start_stage(openai_base_url=scripted.url) for _ in range(2)]
    scripted.script = always("503-loading-no-retry-after")
    jobs = [accepted() for _ in range(6)]
    for probes in range(4):
        began = await database.fetchval("SELECT clock_timestamp()")
        for number, job in enumerate(jobs):
            with pytest.raises(DependencyDown, match=r"fails \(503"):
                await workers[number % 2].handle(job)
        held = await database.fetchrow("SELECT probes, next_probe_at FROM llm_holds")
        assert held is not None
        assert held["probes"] == probes
        assert held["next_probe_at"] - began >= timedelta(seconds=0.5 * 2**probes)
        await hold_is_due(*workers)
    assert (len(scripted.jobs), len(scripted.asked)) == (1, 5)
    scripted.script = lambda _: None
    for number, job in enumerate(jobs):
        assert await eventually(workers[number % 2], job)
    assert await database.fetchval("SELECT count(*) FROM job_outcomes WHERE outcome = 'completed'") == len(jobs)


@pytest.mark.parametrize("name", ["503-loading-no-retry-after", "402-no-credit"])
async def test_calls_that_begin_while_it_is_probed_are_no_reason_to_probe_again(
    start_stage: Starter, scripted: Scripted, team: str, name: str
) -> None:
    """Jobs begin during the probe, and until all know of the hold: it is one piece of evidence for all of them."""
    stage = await start_stage(openai_base_url=scripted.url)
    await stage.handle(accepted())  # the form is known, so that no call waits for another's
    scripted.script = always(name)
    jobs = [accepted() for _ in range(40)]
    under_way: list[asyncio.Task[object]] = []
    made = len(scripted.jobs)

    async def begin_others() -> None:
        """Begin calls, until as many as half of the jobs have been refused while the probe waits for its answer."""
        for job in jobs[1:]:
            under_way.append(asyncio.create_task(stage.handle(job)))
            await asyncio.sleep(0)
        await wait_for(lambda: len(scripted.jobs) - made > len(jobs) // 2, what="calls during the probe")

    scripted.meanwhile = begin_others
    with pytest.raises(DependencyDown):
        await stage.handle(jobs[0])
    ends = await asyncio.gather(*under_way, return_exceptions=True)
    assert all(isinstance(end, DependencyDown) for end in ends)
    assert len(scripted.asked) - len(scripted.jobs) == 1


@pytest.mark.parametrize("ahead", ["1 hour", "40 days"])
async def test_a_hold_whose_probe_a_wrong_clock_named_is_probed_at_once(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str, ahead: str
) -> None:
    """Postgres' clock was ahead when a probe failed, and was set back: the fleet does not stand still for as long."""
    stage = await start_stage(openai_base_url=scripted.url)
    scripted.script = always("503-loading-no-retry-after")
    event = accepted(team_id=team)
    with pytest.raises(DependencyDown):
        await stage.handle(event)
    await database.execute(
        "UPDATE llm_holds SET next_probe_at = now() + $1::text::interval, probe_set_at = now() + $1::text::interval",
        ahead,
    )
    scripted.script = lambda _: None
    other = await start_stage(openai_base_url=scripted.url)
    assert await other.handle(event)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, ""),
        (424, ""),
        # OpenAI's: an outage that comes as a refusal, now to one and then to another.
        (400, {"error": {"message": "Selected model is at capacity. Please try a different model.", "code": None}}),
    ],
)
async def test_a_job_that_the_endpoint_fails_alone_is_tried_as_often_as_any(
    start_stage: Starter, scripted: Scripted, team: str, status: int, body: object
) -> None:
    """The first failure is the endpoint's; the next one, with others answered in between, is an attempt of the job."""
    stage = await start_stage(openai_base_url=scripted.url)
    assert await stage.handle(accepted())
    poison, others = accepted(team_id=team), [accepted() for _ in range(3)]
    is_poison = iter([True, False, True, False, True])
    scripted.script = lambda asked: (status, {}, body) if not is_probe(asked) and next(is_poison) else None
    with pytest.raises(Postponed, match="it answers others"):
        await stage.handle(poison)
    assert await stage.handle(others[0])
    with pytest.raises(Transient) as raised:
        await stage.handle(poison)
    assert raised.value.code == "llm_server_error"
    assert await stage.handle(others[1])  # it holds nobody


@pytest.mark.parametrize("answer", [(200, {}, ""), (502, {}, "<html>"), (500, {}, "{}"), (529, {}, "")])
async def test_wishes_that_an_endpoint_fails_at_hold_no_other(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str, answer: Answer
) -> None:
    """However many of one organization's wishes it fails at, in whatever order: the others' jobs complete at once."""
    stage = await start_stage(openai_base_url=scripted.url)
    scripted.script = lambda body: answer if "XBADX" in str(body) else None
    for _ in range(4):
        with pytest.raises(Postponed, match="it answers others"):
            await stage.handle(accepted(requirements="XBADX"))
        assert await stage.handle(accepted(organization_id="org-2", team_id="team-2"))
    assert not await database.fetchval("SELECT count(*) FROM llm_holds")


async def test_while_others_are_answered_a_failure_holds_nobody(
    start_stage: Starter, scripted: Scripted, team: str
) -> None:
    """A call that fails after a later one was answered waits alone; no attempt is spent."""
    stage = await start_stage(openai_base_url=scripted.url)
    assert await stage.handle(accepted())
    evidence = stage.line._endpoint._evidence

    def script(_: dict[str, Any]) -> Answer | None:
        evidence.succeeded(evidence.clock())
        return 429, {}, {"error": {"message": "Too many concurrent requests"}}

    scripted.script = script
    event = accepted()
    for _ in range(2):
        with pytest.raises(Postponed):
            await stage.handle(event)


def refuses_names(*names: str) -> Script:
    """Refuse requests that hold one of these fields, by name."""

    def script(body: dict[str, Any]) -> Answer | None:
        for name in names:
            if name in body:
                message = f"Unrecognized request argument supplied: {name}"
                return 400, {}, {"error": {"message": message, "type": "invalid_request_error", "param": name}}
        return None

    return script


def llama_cpp(body: dict[str, Any]) -> Answer | None:
    """Answer as `llama-cpp-python` does: 500 to a schema that is not where it looks for it."""
    response_format = body.get("response_format", {})
    return (500, {}, "Internal Server Error") if response_format.get("type") == "json_schema" else None


def deepseek(body: dict[str, Any]) -> Answer | None:
    """Refuse a schema in words alone."""
    response_format = body.get("response_format", {})
    if response_format.get("type") == "json_schema":
        return 400, {}, {"error": {"message": "This response_format type is unavailable now"}}
    return None


def mistral(body: dict[str, Any]) -> Answer | None:
    """Refuse a parameter in the shape of a validation error."""
    return always("422-max-completion-tokens")(body) if "max_completion_tokens" in body else None


def nameless(body: dict[str, Any]) -> Answer | None:
    """Refuse everything but the plainest request, without a word."""
    return (400, {}, "") if "response_format" in body or "max_completion_tokens" in body else None


@pytest.mark.parametrize(
    ("script", "form", "answer_limit"),
    [
        (lambda _: None, "json_schema", "max_completion_tokens"),
        (mistral, "json_schema", "max_tokens"),
        (refuses_names("max_completion_tokens", "max_tokens"), "json_schema", "none"),
        (refuses_names("response_format"), "prompt", "max_completion_tokens"),
        (refuses_names("response_format", "max_completion_tokens"), "prompt", "max_tokens"),
        (llama_cpp, "json_object_with_schema", "max_tokens"),
        (deepseek, "json_object_with_schema", "max_completion_tokens"),
        (nameless, "prompt", "max_tokens"),
    ],
)
async def test_how_an_endpoint_is_asked_is_learned_once_for_the_fleet(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str, script: Script, form: str, answer_limit: str
) -> None:
    """The first job completes in its first attempt, other workers ask rightly at once, and also after a restart."""
    scripted.script = script
    stage = await start_stage(openai_base_url=scripted.url)
    assert await stage.handle(accepted())
    row = await database.fetchrow("SELECT form, answer_limit FROM llm_dialects WHERE learned_at IS NOT NULL")
    assert row is not None
    assert (row["form"], row["answer_limit"]) == (form, answer_limit)
    extra = len(scripted.asked) - 1
    assert extra <= 7
    other = await start_stage(openai_base_url=scripted.url)
    assert all(await asyncio.gather(*(one.handle(accepted()) for one in (stage, other, stage, other))))
    assert len(scripted.asked) == 1 + extra + 4
    states = await database.fetch("SELECT attempt, state, maybe_billed FROM generation_attempts")
    assert {tuple(state) for state in states} == {(1, "saved", False)}


async def test_jobs_that_begin_together_do_not_all_ask_in_vain(
    start_stage: Starter, scripted: Scripted, team: str
) -> None:
    """Of forty jobs of two workers on a new endpoint one finds out; a few may join in, and no more."""
    scripted.script = refuses_names("response_format")
    workers = [await start_stage(openai_base_url=scripted.url) for _ in range(2)]
    assert all(await asyncio.gather(*(workers[number % 2].handle(accepted()) for number in range(40))))
    assert sum("response_format" in body for body in scripted.asked) <= 8


async def test_another_model_is_learned_anew_and_a_setting_overrides(
    start_stage: Starter, scripted: Scripted, database: Pool, team: str
) -> None:
    """What is known belongs to an endpoint, a model and a setting."""
    scripted.script = deepseek
    for overrides in ({}, {"model": "another"}, {"completion_format": "prompt"}):
        stage = await start_stage(openai_base_url=scripted.url, **overrides)
        assert await stage.handle(accepted())
    rows = await database.fetch("SELECT model, completion_format, form FROM llm_dialects ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [
        ("another", "auto", "json_object_with_schema"),
        ("gpt-4o-mini", "auto", "json_object_with_schema"),
        ("gpt-4o-mini", "prompt", "prompt"),
    ]


async def test_an_address_without_a_scheme_is_named(start_stage: Starter, database: Pool, team: str) -> None:
    """Nothing is sent, so nothing is billed and no attempt is left; the operator reads which address is wrong."""
    stage = await start_stage(openai_base_url=_CASES["base-url-no-scheme"]["environment"]["OPENAI_BASE_URL"])
    with pytest.raises(DependencyDown, match="ollama:11434/v1"):
        await stage.handle(accepted())
    assert await database.fetchval("SELECT count(*) FROM generation_attempts") == 0


async def test_a_key_is_sent_without_its_line_break(start_stage: Starter, scripted: Scripted, team: str) -> None:
    """Keys come from files that end in one."""
    key = _CASES["key-newline"]["environment"]["OPENAI_API_KEY"]
    stage = await start_stage(openai_base_url=scripted.url, openai_api_key=key)
    assert await stage.handle(accepted())


async def test_a_query_of_the_base_url_goes_with_each_call(start_stage: Starter, team: str) -> None:
    """Azure's dated interface asks for `api-version` there, and for the key in a header of its own."""
    seen: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((str(request.rel_url), request.headers.get("api-key")))
        return web.json_response(_completion(await request.json()))

    app = web.Application()
    app.router.add_post("/openai/deployments/d/chat/completions", answer)
    async with served(app) as address:
        stage = await start_stage(openai_base_url=f"{address}/openai/deployments/d?api-version=2024-10-21")
        assert await stage.handle(accepted())
    assert seen == [("/openai/deployments/d/chat/completions?api-version=2024-10-21", "test")]
