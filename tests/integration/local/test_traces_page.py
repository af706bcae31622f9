"""The local stack's own collector shows each trace as a tree of its spans."""

import re
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from typer.testing import CliRunner

from infra.cli import app
from infra.local.instructions import instructions
from infra.local.stack import ALL, API, TRACES, Stack
from infra.local.traces import create_app
from infra.settings import Settings
from tests.acceptance.customer import Customer
from tests.acceptance.running import running
from tests.served import served
from tests.waiting import wait_for

_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def told(*spans: tuple[str, str, str], trace: str = _TRACE, attributes: Mapping[str, str] | None = None) -> bytes:
    """Return what a process tells of spans, each with its ID, its parent's and a name, one after the other in time."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for place, (which, parent, name) in enumerate(spans):
        span = scope.spans.add(
            trace_id=bytes.fromhex(trace),
            span_id=which.encode().ljust(8),
            parent_span_id=parent.encode().ljust(8) if parent else b"",
            name=name,
            start_time_unix_nano=1_000_000 * place,
            end_time_unix_nano=1_000_000 * (place + 2),
        )
        for key, value in (attributes or {}).items():
            span.attributes.add(key=key).value.string_value = value
    body: bytes = request.SerializeToString()
    return body


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A collector of the test's own."""
    async with served(create_app()) as address, aiohttp.ClientSession(address) as session:
        yield session


async def _tell(http: aiohttp.ClientSession, body: bytes, *, status: int = 200) -> None:
    async with http.post("/v1/traces", data=body) as answer:
        assert answer.status == status, await answer.text()


async def _page(http: aiohttp.ClientSession, path: str, *, status: int = 200) -> str:
    async with http.get(path) as answer:
        assert answer.status == status
        return await answer.text()


async def test_each_span_stands_below_its_parent(http: aiohttp.ClientSession) -> None:
    """However they come; one whose parent is unknown stands at the left, and what names itself stands nowhere."""
    await _tell(http, told(("c", "b", "third"), ("a", "", "first"), ("b", "a", "second"), ("d", "gone", "orphan")))
    await _tell(http, told(("x", "y", "circle"), ("y", "x", "circle")))
    page = await _page(http, f"/traces/{_TRACE}")
    found = re.findall(r"padding-left:([\d.]+)em'>([^<]+)<", page)
    assert found == [("0.0", "first"), ("1.2", "second"), ("2.4", "third"), ("0.0", "orphan")]
    assert f'href="/traces/{_TRACE}"' in await _page(http, "/")


async def test_what_it_is_told_is_shown_as_text_and_bounded(http: aiohttp.ClientSession) -> None:
    """Names are escaped, the oldest of too many traces go, and what is no OTLP is refused."""
    assert "None yet" in await _page(http, "/")
    evil = "<script>alert(1)</script>"
    await _tell(http, told(("a", "", evil), attributes={"error.type": evil, "teamfit.job.id": evil}))
    for path in ("/", f"/traces/{_TRACE}"):
        page = await _page(http, path)
        assert "<script" not in page
        assert "&lt;script&gt;" in page
    for number in range(200):
        await _tell(http, told(("a", "", "one"), trace=f"{number:032x}"))
    await _page(http, f"/traces/{_TRACE}", status=404)
    await _tell(http, b"\xff nonsense", status=400)


async def test_a_job_is_seen_in_the_stack_that_traces(database_url: str, redis_url: str) -> None:
    """Its trace is on the page whose address is printed, from the request to the projection."""
    settings = Settings(_env_file=None, database_url=database_url, broker_url=redis_url, generation_concurrency=5)
    with running(Stack(settings, llm_latency_s=0.05, parts=(TRACES, ALL, API))) as stack:
        assert f"Traces      {stack.url_of(TRACES)}  " in instructions(stack, "…")
        async with aiohttp.ClientSession(stack.api_url) as api:
            customer = Customer(stack, api)
            _, accepted = await customer.post()
            await customer.ended_job(accepted["job_id"])
        async with aiohttp.ClientSession(stack.url_of(TRACES)) as http:

            async def seen() -> str:
                row = rf'href="(/traces/\w+)">\w+</a></td><td>[^<]*</td><td>{accepted["job_id"]}<'
                found = re.search(row, await _page(http, "/"))
                assert found is not None
                page = await _page(http, found[1])
                assert "chat gpt-4o-mini" in page
                assert "batch Projection.project" in page
                return page

            await wait_for(seen, deadline_s=60, what="the job's trace")


def test_a_collector_of_ones_own_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started, with the fix."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    said = CliRunner().invoke(app, ["up", "--traces"])
    assert said.exit_code != 0
    assert "leave it out" in said.output
