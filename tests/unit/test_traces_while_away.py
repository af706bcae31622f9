"""A collector that is away: it is asked ever more seldom, the log says so once, and a process ends at once."""

import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from infra.trace_export import WhileItAnswers


class _Collector(SpanExporter):
    answers = SpanExportResult.SUCCESS
    asked = 0

    def __init__(self, looks: Callable[[], None] = lambda: None) -> None:
        self.looks = looks

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
        self.looks()
        return self.answers


def test_it_is_asked_ever_more_seldom_until_it_answers() -> None:
    """Batches in between are dropped; what comes after it has answered is sent."""
    now, collector = [0.0], _Collector()
    exporter = WhileItAnswers(collector, seconds=lambda: now[0])
    assert exporter.export([]) is SpanExportResult.SUCCESS
    collector.answers = SpanExportResult.FAILURE
    times = []
    with capture_logs() as lines:
        while now[0] < 2_000:
            before = collector.asked
            assert exporter.export([]) is SpanExportResult.FAILURE
            if collector.asked > before:
                times.append(now[0])
            now[0] += 1
    assert [later - sooner for sooner, later in pairwise(times)] == [
        *(10, 20, 40, 80, 160),
        *[300] * (len(times) - 6),
    ]
    assert [one["event"] for one in lines] == ["traces.dropped"]
    collector.answers, now[0] = SpanExportResult.SUCCESS, now[0] + 300
    with capture_logs() as lines:
        assert [exporter.export([]) for _ in range(2)] == [SpanExportResult.SUCCESS] * 2
    assert [one["event"] for one in lines] == ["traces.resumed"]


def test_it_is_away_from_a_batch_that_it_did_not_take_until_it_takes_one() -> None:
    """Spans are made for a moment before it is asked again, and not while it is asked: they would be dropped too."""
    now, collector, seen = [0.0], _Collector(), []
    exporter = WhileItAnswers(collector, seconds=lambda: now[0])
    collector.looks = lambda: seen.append(exporter.is_away())

    def asked() -> list[bool]:
        """Return whether it was away before, meanwhile and after."""
        seen.append(exporter.is_away())
        exporter.export([])
        told = [*seen, exporter.is_away()]
        seen.clear()
        return told

    assert asked() == [False, False, False]
    collector.answers = SpanExportResult.FAILURE
    assert asked() == [False, False, True]
    now[0] += 9.9
    assert exporter.is_away()
    now[0] += 0.1
    assert asked() == [False, True, True]
    now[0] += 20
    collector.answers = SpanExportResult.SUCCESS
    assert asked() == [False, True, False]


# A process of its own: what is instrumented stays so. It prints when it has nothing more to do.
_PROGRAM = """
from infra import tracing
from infra.settings import Settings

tracing.start(Settings(_env_file=None, otlp_endpoint="http://127.0.0.1:1", trace_share=1), "quota")
for _ in range(5_000):
    with tracing.processing("quota", "job-requests", "1-0", 1, object()):
        pass
print("done", flush=True)
"""


def test_a_process_ends_though_its_collector_is_away() -> None:
    """It asks once for all its batches. The SDK alone asks for each, half a minute in all, and is killed meanwhile."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.count("traces.dropped") == 1
    assert done.stderr.count("Failed to export") == 1
    assert "Transient" not in done.stderr


# It prints what an event, a send and a batch are given while the collector is away.
_AWAY = """
import sys
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from infra import tracing
from infra.settings import Settings

known = {"otlp_endpoint": "http://127.0.0.1:1", "trace_share": 1, "trace_statements": 1}
tracing.start(Settings(_env_file=None, trace_to_llm=sys.argv[1] == "yes", **known), "quota")
parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
value = b'{"traceparent":"%s"}' % parent.encode()

class Event:
    traceparent = parent

def made():
    told = []
    for handling in (tracing.processing, tracing.taking):
        with handling("quota", "job-requests", "1-0", 1, Event()):
            told.append((tracing.here() is not None, is_instrumentation_enabled()))
            with tracing.batch("a-batch", [tracing.here()]):
                told.append(is_instrumentation_enabled())
    with tracing.sending([("job-requests", value)]) as values:
        told.append(values != [value])
    return told

print(made())
trace.get_tracer_provider().force_flush()
print(made())
"""


@pytest.mark.parametrize(("to_llm", "away"), [("no", [(False, False), False] * 2), ("yes", [(True, True), True] * 2)])
def test_nothing_is_made_for_a_collector_that_is_away(to_llm: str, away: list[object]) -> None:
    """What would be dropped is not built, unless a gateway is told of the traces."""
    done = subprocess.run(
        [sys.executable, "-c", _AWAY, to_llm], capture_output=True, text=True, check=True, timeout=120
    )
    before, after = [ast.literal_eval(line) for line in done.stdout.splitlines() if line.startswith("[(")]
    assert before == [*([(True, True), True] * 2), True]
    assert after == [*away, False]
