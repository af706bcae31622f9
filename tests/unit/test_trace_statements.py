"""SQL and HTTP calls have spans in a share of the traced jobs: in all of a job's processes, or in none."""

import json
import subprocess
import sys
from uuid import UUID, uuid4

import pytest

# A process of its own: what is instrumented stays so. It prints which of the jobs have a span of a client.
_PROGRAM = """
import json
import sys
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from infra import tracing
from infra.settings import Settings

share, statements, to_llm = json.loads(sys.argv[1])
tracing.start(
    Settings(
        _env_file=None,
        otlp_endpoint="http://127.0.0.1:1",
        trace_share=share,
        trace_statements=statements,
        trace_to_llm=to_llm,
    ),
    "quota",
)

class Event:
    def __init__(self, job):
        self.traceparent = f"00-{job}-00f067aa0ba902b7-01"

whole, below_chat = [], []
for job in json.load(sys.stdin):
    with tracing.processing("quota", "job-requests", "1-0", 1, Event(job)):
        if is_instrumentation_enabled():
            whole.append(job)
        with tracing.chat("a-model", "llm", None):
            if is_instrumentation_enabled():
                below_chat.append(job)
        here = tracing.here()
    with tracing.batch("a-batch", [here]):
        assert is_instrumentation_enabled() is (job in whole)
        assert tracing.here() is not None
    with tracing.batch("a-look", [None, here], looks_up=True):
        assert is_instrumentation_enabled() is (job in whole)
        assert (tracing.here() is not None) is (job in whole)
    assert is_instrumentation_enabled()
print(json.dumps([whole, below_chat]))
"""


def _traced(share: float, statements: float, jobs: list[UUID], *, to_llm: bool = False) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps([share, statements, to_llm])],
        input=json.dumps([job.hex for job in jobs]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [list(one) for one in json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[[")))]


@pytest.mark.parametrize("statements", [0.0, 1.0])
def test_none_and_all(statements: float) -> None:
    """What a caller has sampled is whole, or has our spans alone."""
    jobs = [uuid4() for _ in range(20)]
    assert _traced(0.0, statements, jobs)[0] == [job.hex for job in jobs if statements]


def test_the_share_is_one_of_the_jobs_that_are_traced() -> None:
    """Those that a small share traces are not all of them whole: other digits of the trace decide. Twice the same."""
    # As a share of a hundredth picks them.
    jobs = [UUID(int=(uuid4().int >> 64 << 64) + uuid4().int % (2**64 // 100)) for _ in range(2_000)]
    whole, below_chat = _traced(0.01, 0.25, jobs)
    assert 400 < len(whole) < 600
    assert below_chat == whole
    assert _traced(1.0, 0.25, jobs)[0] == whole


def test_a_gateway_that_is_told_of_traces_is_told_of_all() -> None:
    """The call to the LLM has the client's span, which carries the trace; other calls do not."""
    jobs = [uuid4() for _ in range(3)]
    assert _traced(1.0, 0.0, jobs, to_llm=True) == [[], [job.hex for job in jobs]]


_BESIDES = """
import asyncio
import json
import sys
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from infra import tracing
from infra.settings import Settings
from streams.delivery.batching import Batcher

tracing.start(Settings(_env_file=None, otlp_endpoint="http://127.0.0.1:1", trace_share=1, trace_statements=1), "quota")
tracing.only_in_tries()

class Event:
    def __init__(self, flags):
        self.traceparent = f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"

async def run(items):
    return [is_instrumentation_enabled()] * len(items)

async def told():
    batches = Batcher(run, max_size=10, timeout_s=5)
    yield is_instrumentation_enabled()
    yield await asyncio.create_task(run([1]))
    yield await batches.submit(1)
    for flags in ("01", "00"):
        with tracing.processing("quota", "job-requests", "1-0", 1, Event(flags)):
            yield is_instrumentation_enabled()
            yield await batches.submit(1)
    yield is_instrumentation_enabled()

async def main():
    print([one if isinstance(one, bool) else one[0] async for one in told()])

asyncio.run(main())
"""


def test_what_a_worker_does_besides_has_no_spans() -> None:
    """Neither its timers nor the batches of what is not sampled: in a try that is sampled, clients make spans."""
    done = subprocess.run([sys.executable, "-c", _BESIDES], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[0] == str([False] * 3 + [True, True] + [False] * 3), done.stderr


_HOOKS = """
import asyncio
import aiohttp
from aiohttp import web
from infra import tracing
from infra.settings import Settings
from tests.served import served

begun = []

async def begin(*_):
    begun.append(1)

async def main():
    app = web.Application()

    async def answer(_):
        return web.Response()

    app.router.add_get("/", answer)
    hooks = aiohttp.TraceConfig()
    hooks.on_request_start.append(begin)
    tracing.only_in_tries()
    async with served(app) as address, aiohttp.ClientSession(trace_configs=[hooks]) as http:
        await http.get(address)
        quiet = len(begun)
        with tracing.processing("generation", "job-accepted", "1-0", 1, object()):
            await http.get(address)
        print(quiet, len(begun))

known = {"otlp_endpoint": "http://127.0.0.1:1", "trace_share": 1, "trace_statements": 1}
tracing.start(Settings(_env_file=None, **known), "generation")
asyncio.run(main())
"""


def test_a_call_without_spans_prepares_nothing_for_hooks() -> None:
    """The client asks at each call which hooks there are: none where no span would be made."""
    done = subprocess.run([sys.executable, "-c", _HOOKS], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[:1] == ["0 1"], done.stderr
