"""One trace from the caller's request to the projection, as a collector of OpenTelemetry gets it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import aiohttp
import pytest

from infra.auth import issue_token, signing_key
from infra.bench.otlp_collector import Collector, Seen, collecting
from infra.local.organizations import BIRCH
from infra.local.processes import free_port
from infra.local.stack import ALL, API, Stack
from infra.settings import Settings
from streams.jobs.events import JobId
from streams.jobs.facts import job_requested
from streams.jobs.stages import RUN_TOPICS
from tests.acceptance.customer import Customer
from tests.acceptance.running import running
from tests.waiting import wait_for

# As a collector is told of them: OTLP's numbers of the kinds.
_INTERNAL, _SERVER, _CLIENT, _PRODUCER, _CONSUMER = range(1, 6)
_CALLER = "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of the test's own."""
    with collecting() as one:
        yield one


@pytest.fixture
def worker_port() -> int:
    """Where the worker answers."""
    return free_port()


@pytest.fixture
async def customer(
    collector: Collector, database_url: str, redis_url: str, worker_port: int
) -> AsyncIterator[Customer]:
    """A customer of the pipeline in two processes, on the session's servers; callers decide what is traced."""
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        broker_url=redis_url,
        generation_concurrency=5,
        retry_base_s=0.2,
        otlp_endpoint=collector.url,
        trace_share=0,
        trace_statements=1,
    )
    # Its /metrics have the exemplars.
    variables = {"TEAMFIT_WORKER_PORT": str(worker_port)}
    with running(Stack(settings, llm_latency_s=0.05, parts=(ALL, API), variables=lambda _part: variables)) as stack:
        async with aiohttp.ClientSession(stack.api_url) as http:
            yield Customer(stack, http)


async def test_a_worker_that_is_killed_leaves_its_job_in_the_trace(
    collector: Collector, database_url: str, redis_url: str
) -> None:
    """Another takes the delivery over: below the same parent, on to the end; the caller's stays the one root."""
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        broker_url=f"{redis_url}?lease=2s",
        generation_concurrency=5,
        otlp_endpoint=collector.url,
        trace_share=0,
        trace_statements=1,
    )
    with running(Stack(settings, llm_latency_s=2.0, parts=(ALL, API))) as stack:
        await through_a_kill(stack, collector)


async def through_a_kill(stack: Stack, collector: Collector) -> None:
    """The worker is killed while the LLM writes; the next one goes on in the same trace."""
    trace = uuid4().hex
    async with aiohttp.ClientSession(stack.api_url) as http:
        customer = Customer(stack, http)
        status, accepted = await customer.post(headers={"traceparent": f"00-{trace}-{_CALLER}-01"})
        assert status == 202

        async def begun() -> bool:
            job = await customer.job(accepted["job_id"])
            sent = [one for one in collector.of(trace) if one.name == "send job-accepted"]
            return bool(job["status"] == "processing" and sent)

        await wait_for(begun, deadline_s=60, what="the LLM to be asked, and the spans before that to be kept")
        stack.kill(ALL)
        await asyncio.to_thread(stack.start, ALL)
        assert (await customer.ended_job(accepted["job_id"], deadline_s=60))["status"] == "completed"

    def whole() -> list[Seen]:
        spans = collector.of(trace)
        assert "process job-accepted" in [one.name for one in spans]
        return spans

    spans = await wait_for(whole, deadline_s=60, what="the spans of the worker that took over")
    (accepting,) = [one for one in spans if one.name == "send job-accepted"]
    # The span of the worker that was killed had not ended, so it is told to no one.
    assert {one.parent for one in spans if one.name == "process job-accepted"} == {accepting.id}
    assert [one.kind for one in spans if one.parent == _CALLER] == [_SERVER]


async def test_one_trace_through_everything(customer: Customer, collector: Collector, worker_port: int) -> None:
    """From the caller's request to the projection, through tries and a replay; and none where nobody wants one."""
    trace = await from_the_request_to_the_projection(customer, collector)
    await _joined_to_logs_and_metrics(customer, collector, trace, worker_port)
    await through_tries_and_a_replay(customer, collector)
    await _none_unless_it_is_sampled(customer, collector)


# Stages that nothing follows from end in any order, so the last fact's batches are waited for, each.
_BATCHES = frozenset(
    {
        "batch Admissions.admit",
        "batch Attempts.save",
        "batch Settlements.settle",
        "batch Projection.project",
        "batch Facts._are_listening",
    }
)


async def _trace_of(
    collector: Collector, trace: str, *, ends: int = 1, names_in_it: frozenset[str] = frozenset()
) -> list[Seen]:
    """Return a trace when its last event has been projected, every span with its parent and each of the names in it."""

    def whole() -> list[Seen]:
        spans = collector.of(trace)
        names = [one.name for one in spans]
        assert names.count("send job-events") >= 2 * ends, names  # JobStarted, and how it ended
        assert names_in_it <= set(names), names
        told = {one.id for one in spans if one.name in {"send job-requests", "send job-events"}}
        # Nothing follows from it there, so its batches stand for it: below it, or linked to it.
        projected = {span for one in spans if one.name == "batch Projection.project" for _, span in one.links}
        assert told <= projected, names
        known = {one.id for one in spans} | {_CALLER}
        assert [one for one in spans if one.parent not in known] == []
        return spans

    return list(await wait_for(whole, deadline_s=60, what=f"the trace {trace}"))


async def from_the_request_to_the_projection(customer: Customer, collector: Collector, *, broker: str = "redis") -> str:
    """One root below the caller's span, and each span below the one that led to it. Return the trace."""
    trace = uuid4().hex
    status, accepted = await customer.post(headers={"traceparent": f"00-{trace}-{_CALLER}-01"})
    assert status == 202
    await customer.ended_job(accepted["job_id"])
    spans = await _trace_of(collector, trace, names_in_it=_BATCHES)

    by_id = {one.id: one for one in spans}

    def below(name: str) -> set[str]:
        return {by_id[one.parent].name for one in spans if one.name == name and one.parent != _CALLER}

    (root,) = [one for one in spans if one.parent == _CALLER]
    assert (root.kind, root.service) == (_SERVER, "teamfit-api")
    assert root.attributes["http.route"] == "/api/activities/generate-custom"
    assert below("send job-requests") == {root.name}
    way = [topics[0] for topics in RUN_TOPICS.values()]
    assert [below(f"process {topic}") for topic in way] == [{f"send {topic}"} for topic in way]
    assert [below(f"send {after}") for after in way[1:]] == [{f"process {before}"} for before in way[:-1]]
    assert below("wait for a slot") == {"process job-accepted"}
    assert below("send job-events") == {"process job-accepted"}
    assert below("batch Projection.project") <= {"send job-requests", "send job-events"}
    assert below("batch Attempts.save") == {"process job-accepted"}
    (chat,) = [one for one in spans if "gen_ai.operation.name" in one.attributes]
    assert by_id[chat.parent].name == "process job-accepted"
    assert chat.attributes["gen_ai.usage.input_tokens"] > 0
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert not any("prompt" in name or "messages" in name for name in chat.attributes)
    assert any(one.parent == chat.id and one.kind == _CLIENT for one in spans), "the HTTP call"
    assert {"postgresql"} <= {one.attributes.get("db.system") or one.attributes.get("db.system.name") for one in spans}
    batches = [one for one in spans if one.name.startswith("batch ")]
    assert {one.attributes["messaging.system"] for one in spans if "messaging.system" in one.attributes} == {broker}
    assert {by_id[one.parent].kind for one in batches} == {_CONSUMER, _PRODUCER}
    assert all((trace, one.parent) in one.links for one in batches)
    return trace


async def _joined_to_logs_and_metrics(customer: Customer, collector: Collector, trace: str, worker_port: int) -> None:
    """A line of the log names the span that it was written in; a histogram has the call's span as an exemplar."""
    lines = [json.loads(one) for one in (customer.stack.folder / "api.log").read_text().splitlines() if trace in one]
    (accepted,) = [one for one in lines if one["event"] == "request.accepted"]
    spans = {one.id: one for one in collector.of(trace)}
    assert (accepted["trace_id"], spans[accepted["span_id"]].service) == (trace, "teamfit-api")
    wanted = {"Accept": "application/openmetrics-text"}
    async with customer.http.get(f"http://127.0.0.1:{worker_port}/metrics", headers=wanted) as answer:
        told = await answer.text()
    (line,) = [one for one in told.splitlines() if trace in one]
    assert line.startswith("teamfit_llm_call_seconds_bucket")
    (span,) = re.findall(r'span_id="(\w+)"', line)
    assert spans[span].name.startswith("chat ")


async def through_tries_and_a_replay(customer: Customer, collector: Collector) -> None:
    """A retry, a failure and its replay stay in one trace; the replay's span names what failed."""
    trace = uuid4().hex
    control = f"{str(customer.stack.settings.openai_base_url).removesuffix('/v1')}/control"
    await _set(customer, control, mode="rubbish", count=3)
    status, accepted = await customer.post(headers={"traceparent": f"00-{trace}-{_CALLER}-01"})
    assert status == 202
    job_id = accepted["job_id"]
    assert (await customer.ended_job(job_id))["status"] == "failed"

    def tries() -> list[Seen]:
        found = [one for one in collector.of(trace) if one.name == "process job-accepted"]
        assert [one.attributes["teamfit.attempt"] for one in found] == [1, 2, 3]
        assert {one.attributes["teamfit.job.run"] for one in found} == {1}
        return found

    failed = await wait_for(tries, deadline_s=60, what="three tries")
    assert len({one.parent for one in failed}) == 1
    assert all(one.attributes["error.type"] for one in failed)

    await _replay(customer, trace)

    def replayed() -> Seen:
        spans = collector.of(trace)
        assert {1, 2} == {one.attributes["teamfit.job.run"] for one in spans if one.name == "process job-accepted"}
        replays = [one for one in spans if one.name == "replay"]
        assert len(replays) == 1
        return replays[0]

    replay = await wait_for(replayed, deadline_s=60, what="the replay")
    assert replay.links == [(trace, failed[0].parent)]
    spans = await _trace_of(collector, trace)
    below = [one.name for one in spans if one.parent == replay.id]
    assert [name for name in below if not name.startswith("batch ")] == ["process job-requests"]
    # The projection has looked up whose job it is, and folded the request, maybe together with others.
    linked = {one.name for one in spans if (trace, replay.id) in one.links}
    assert {"batch Ownership._read", "batch Projection.project"} <= linked


async def _set(customer: Customer, control: str, **order: object) -> None:
    async with customer.http.put(control, json=order) as answer:
        assert answer.status == 200, await answer.text()


async def _replay(customer: Customer, trace: str) -> None:
    """Have an operator replay what failed in a trace."""
    token = issue_token(signing_key(customer.stack.settings), organization_id="ops", scopes=["operator"])
    headers = {"Authorization": f"Bearer {token}"}
    plans = "/api/ops/replay/plans"

    async def planned() -> str:
        async with customer.http.post(plans, json={"trace_id": trace}, headers=headers) as answer:
            plan = await answer.json()
            assert (answer.status, plan["effects"]["reruns"]) == (201, 1), plan
            return str(plan["id"])

    plan = await wait_for(planned, deadline_s=60, what="the failed event")
    async with customer.http.post(f"{plans}/{plan}/apply", json={"rate": 1000}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def _none_unless_it_is_sampled(customer: Customer, collector: Collector) -> None:
    """With a share of nothing, nothing of such a job is exported."""
    job = JobId(uuid4())
    event = job_requested(
        job_id=job, organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements="a walk", at=datetime.now(UTC)
    )
    await customer.xadd("event", json.dumps(event.model_dump(mode="json", exclude_none=True)))
    await customer.ended_job(job)
    assert collector.of(job.hex) == []
