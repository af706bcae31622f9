"""Whom the trace is told to when traces are on: no server outside, unless a setting says so."""

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
    settings = Settings(_env_file=None, otlp_endpoint=collector.url, trace_share=1, trace_to_llm=sys.argv[1] == "yes")
    tracing.start(settings, "generation")
    asyncio.run(main())
"""


@pytest.mark.parametrize(("setting", "told"), [("no", [False, False, False]), ("yes", [False, True, False])])
def test_only_the_llm_is_told_and_only_if_it_is_wanted(setting: str, told: list[bool]) -> None:
    """A call before, to, and after the LLM."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, setting], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines()[0] == str(told), done.stderr
