"""A collector that is away: it is asked ever more seldom, the log says so once, and a process ends at once."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from infra.trace_export import WhileItAnswers


class _Collector(SpanExporter):
    answers = SpanExportResult.SUCCESS
    asked = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
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
