"""Where nothing follows from an event, its batch stands for it in the trace, and what fails has a span of its own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from infra import tracing
from streams.delivery.batching import Batcher

_SENDERS = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 4)]

# A process of its own: what is instrumented stays so.
_PROGRAM = """
import asyncio
import json
from opentelemetry import trace
from infra import tracing
from infra.bench.otlp_collector import collecting
from infra.settings import Settings
from tests.unit.test_trace_batches import taken

with collecting() as collector:
    tracing.start(Settings(_env_file=None, otlp_endpoint=collector.url, trace_share=1), "projection")
    asyncio.run(taken())
    trace.get_tracer_provider().force_flush()
    print(json.dumps([[one.name, one.parent, one.links, one.attributes] for one in collector.spans]))
"""


class Event:
    """What a stage reads: it says which span sent it."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent


async def taken() -> None:
    """Take three events in one batch; then one that fails, one again, one not sampled, and one that no span sent."""

    async def fold(items: Sequence[str]) -> Sequence[None]:
        return [None] * len(items)

    batches = Batcher(fold, max_size=10, timeout_s=5, name="fold")

    async def take(parent: str | None, attempt: int = 1, *, fails: bool = False) -> None:
        event = Event(parent)
        with tracing.taking("projection", "job-events", "1-0", attempt, event) as given:
            assert given is event or attempt > 1
            if fails:
                raise ValueError(parent)
            await batches.submit(str(parent))

    await asyncio.gather(*map(take, _SENDERS))
    with pytest.raises(ValueError, match="00-"):
        await take(_SENDERS[0], fails=True)
    await take(_SENDERS[1], attempt=2)
    await take(_SENDERS[2][:-1] + "0")
    with pytest.raises(ValueError, match="00-"):
        await take(_SENDERS[2][:-1] + "0", fails=True)
    await take(None)
    with pytest.raises(ValueError, match="None"):
        await take(None, fails=True)


def test_one_span_for_a_batch_and_one_for_each_try_that_failed_or_is_repeated() -> None:
    """The batch is below the first sender and linked to all; tries are numbered, and below what sent their event.

    An event that no span has sent leaves none, unless it fails.
    """
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    spans = json.loads(done.stdout.splitlines()[-1])
    first, second, third = ([one.split("-")[1], one.split("-")[2]] for one in _SENDERS)
    named: dict[str, list[Any]] = {}
    for name, parent, links, attributes in spans:
        named.setdefault(name, []).append((parent, links, attributes))
    together, repeated = sorted(named["batch fold"], key=lambda one: -len(one[1]))
    assert together[:2] == (first[1], [first, second, third])
    assert together[2]["messaging.batch.message_count"] == 3
    unsent, fails, retried = sorted(named["process job-events"], key=lambda one: (one[2]["teamfit.attempt"], one[0]))
    assert (unsent[0], unsent[2]["error.type"]) == ("", "ValueError")
    assert (fails[0], fails[2]["error.type"], fails[2]["teamfit.attempt"]) == (first[1], "ValueError", 1)
    assert (retried[0], retried[2]["teamfit.attempt"]) == (second[1], 2)
    assert retried[2]["messaging.consumer.group.name"] == "projection"
    assert repeated[1][0][0] == second[0]
    assert len(spans) == 5
