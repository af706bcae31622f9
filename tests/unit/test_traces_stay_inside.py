"""What leaves the process when traces are on: no server outside hears of one, and no error's text is in a span."""

import ast
import subprocess
import sys

import pytest

# A process of its own: what is instrumented stays so.
_PROGRAM = """
import asyncio
import sys
import aiohttp
from aiohttp import web
from infra import tracing
from infra.settings import Settings
from infra.bench.otlp_collector import collecting
from tests.served import served

async def main():
    told = []

    async def note(request):
        told.append("traceparent" in request.headers)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", note)
    async with served(app) as address, aiohttp.ClientSession() as http:
        with tracing.processing("generation", "job-accepted", "1-0", 1, object()):
            await http.post(address)
            with tracing.chat("a-model", "llm", None):
                await http.post(address)
            await http.post(address)
    print(told)

with collecting() as collector:
    known = {"otlp_endpoint": collector.url, "trace_share": 1, "trace_statements": float(sys.argv[2])}
    tracing.start(Settings(_env_file=None, trace_to_llm=sys.argv[1] == "yes", **known), "generation")
    asyncio.run(main())
"""


@pytest.mark.parametrize("statements", ["0", "1"])
@pytest.mark.parametrize(("setting", "told"), [("no", [False, False, False]), ("yes", [False, True, False])])
def test_only_the_llm_is_told_and_only_if_it_is_wanted(setting: str, told: list[bool], statements: str) -> None:
    """A call before, to, and after the LLM, whether or not other calls have spans."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, setting, statements], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines()[0] == str(told), done.stderr


_FAILS = """
import asyncio
import aiohttp
from opentelemetry import trace
from infra import tracing
from infra.bench.otlp_collector import collecting
from infra.local.processes import free_port
from infra.settings import Settings

async def refused():
    async with aiohttp.ClientSession() as http:
        await http.get(f"http://127.0.0.1:{free_port()}")

def raised():
    with trace.get_tracer("of an instrumentation").start_as_current_span("query"):
        raise ValueError("words of a customer")

with collecting() as collector:
    sent, take = [], collector.take

    def keep(body):
        sent.append(body)
        take(body)

    collector.take = keep
    known = {"otlp_endpoint": collector.url, "trace_share": 1, "trace_statements": 1}
    tracing.start(Settings(_env_file=None, **known), "generation")
    for fail in (lambda: asyncio.run(refused()), raised):
        try:
            with tracing.processing("generation", "job-accepted", "1-0", 1, object()):
                fail()
        except (aiohttp.ClientError, ValueError):
            pass
    trace.get_tracer_provider().force_flush()
    print([words in body for words in (b"Cannot connect", b"words of", b"Traceback") for body in sent])
    print(sorted((one.name, one.attributes.get("error.type")) for one in collector.spans))
"""


def test_what_fails_is_told_by_its_type_alone() -> None:
    """Neither our spans nor those of an instrumentation hold an error's text or stack."""
    done = subprocess.run([sys.executable, "-c", _FAILS], capture_output=True, text=True, check=False, timeout=120)
    found, spans = done.stdout.splitlines()
    assert set(ast.literal_eval(found)) == {False}, done.stderr
    kinds = dict(ast.literal_eval(spans))
    assert kinds["query"] == "ValueError"
    assert "ClientConnectorError" in kinds["GET"]
