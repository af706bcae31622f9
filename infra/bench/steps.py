"""`python -m infra.bench.steps` measures each step of a job at rest.

Jobs are sent one after the other, every one is traced, and the spans of each are cut into the steps that follow each
other between the request and the answer of `GET` with `Prefer: wait`. Tracing costs a job some milliseconds itself, so
the steps add up to more than `infra.bench.service` measures.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.console import Console
from rich.progress import track
from rich.table import Table

from infra.bench.http_load import Api
from infra.bench.otlp_collector import Collector, Seen, collecting
from infra.local.organizations import BIRCH
from infra.local.stack import Stack
from infra.settings import Settings
from streams.jobs.stages import GENERATION, PROJECTION, QUOTA, RUN_TOPICS, topic_after
from streams.jobs.topics import JOB_EVENTS

_LLM_S: Final = 0.5
_WARM_UPS: Final = 3
_PAUSE_S: Final = 0.1
_EXPORTED_S: Final = 30.0  # longest wait for the last spans
_MS: Final = 1e6

_API, _GENERATION, _PROJECTION = (f"teamfit-{one}" for one in ("api", GENERATION, PROJECTION))


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a job took these milliseconds, in the middle run.

    Attributes:
        statements: how many were sent to Postgres meanwhile by the process that the step is of, begin and commit too.
        database_ms: how long those took.
    """

    name: str
    ms: float
    statements: int
    database_ms: float


class NotTraced(Exception):
    """Spans of a job are missing."""


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.steps", description=__doc__)
    parser.add_argument("--jobs", type=int, default=30, help="jobs to follow (default 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    progress = Console(stderr=True)
    with collecting() as collector:
        settings = Settings(otlp_endpoint=collector.url, trace_share=1.0, trace_statements=1.0)
        with Stack(settings, llm_latency_s=_LLM_S, report=lambda name: progress.print(f"{name} …")) as stack:
            traces = asyncio.run(_follow(stack, collector, options.jobs, progress))
        jobs = [_cut(collector.of(trace), collector.spans) for trace in traces]
    steps = [
        Step(
            name,
            round(statistics.median(job[place].ms for job in jobs), 1),
            round(statistics.median(job[place].statements for job in jobs)),
            round(statistics.median(job[place].database_ms for job in jobs), 1),
        )
        for place, name in enumerate(step.name for step in jobs[0])
    ]
    if options.json:
        print(json.dumps([asdict(step) for step in steps], indent=2))
    else:
        _show(steps)
    return 0


async def _follow(stack: Stack, collector: Collector, jobs: int, progress: Console) -> list[str]:
    """Send jobs one after the other, and return the trace of each that counts."""
    api = Api(stack.api_url, stack.token(BIRCH.id), BIRCH.id, BIRCH.team.id)
    async with api.session(connections=2) as session:
        for _ in track(range(jobs + _WARM_UPS), description="jobs", console=progress):
            await api.complete(session)
            await asyncio.sleep(_PAUSE_S)
    deadline = time.monotonic() + _EXPORTED_S
    while True:
        posts = [one for one in collector.spans if one.name.startswith("POST /api")][_WARM_UPS:]
        traces = [one.trace for one in posts]
        if len(traces) == jobs and all(_is_whole(collector.of(trace)) for trace in traces):
            return traces
        if time.monotonic() > deadline:
            sys.exit(f"of {jobs} jobs only {len(traces)} were traced to their end within {_EXPORTED_S:g} s")
        await asyncio.sleep(0.5)


def _is_whole(spans: Sequence[Seen]) -> bool:
    try:
        return bool(_cut(spans, ()))
    except NotTraced:
        return False


def _cut(spans: Sequence[Seen], all_spans: Sequence[Seen]) -> list[Step]:
    """Return the steps of one job, in their order. Batches, and so their statements, are traces of their own.

    Raises:
        NotTraced: a span that begins or ends a step is missing.
    """

    def one(service: str, name: str, *, last: bool = False) -> Seen:
        found = [span for span in spans if span.service == service and span.name.startswith(name)]
        if not found:
            raise NotTraced(f"{service}: {name}")
        pick: Callable[..., Seen] = max if last else min
        return pick(found, key=lambda span: span.start_ns)

    post, sent = one(_API, "POST /api"), one(_API, f"send {RUN_TOPICS[QUOTA][0]}")
    way, left = [("the API takes the request", _API, post.start_ns, sent.start_ns)], sent
    for stage in (name for name in RUN_TOPICS if name != GENERATION):
        service = f"teamfit-{stage}"
        taken, passed = one(service, f"process {RUN_TOPICS[stage][0]}"), one(service, f"send {topic_after(stage)}")
        way.append((f"broker, to {stage}", "", left.start_ns, taken.start_ns))
        way.append((f"{stage} decides and releases", service, taken.start_ns, passed.start_ns))
        left = passed
    begun, call = one(_GENERATION, f"process {RUN_TOPICS[GENERATION][0]}"), one(_GENERATION, "chat")
    ended, folded = (
        one(_GENERATION, f"send {JOB_EVENTS}", last=True),
        one(_PROJECTION, "batch Projection.project", last=True),
    )
    if not post.start_ns < left.start_ns < begun.start_ns < call.end_ns <= ended.start_ns < folded.start_ns:
        raise NotTraced("the end of the job")
    moments = (
        *way,
        ("broker, to generation", "", left.start_ns, begun.start_ns),
        ("the attempt is begun and told of", _GENERATION, begun.start_ns, call.start_ns),
        ("the call, beyond the LLM", _GENERATION, call.start_ns, call.end_ns - round(_LLM_S * 1000 * _MS)),
        ("the answer is saved", _GENERATION, call.end_ns, ended.start_ns),
        ("broker, to the projection", "", ended.start_ns, folded.start_ns),
        ("the projection folds it and tells the API", _PROJECTION, folded.start_ns, folded.end_ns),
    )
    return [_step(all_spans, *moment) for moment in moments]


def _step(spans: Sequence[Seen], name: str, service: str, start_ns: int, end_ns: int) -> Step:
    asked = [
        span.end_ns - span.start_ns
        for span in spans
        if span.service == service
        and any(name.startswith("db.") for name in span.attributes)
        and start_ns <= span.start_ns < end_ns
    ]
    return Step(name, (end_ns - start_ns) / _MS, len(asked), sum(asked) / _MS)


def _show(steps: Sequence[Step]) -> None:
    table = Table("step of a job at rest", "ms", "statements", "in Postgres, ms")
    for step in steps:
        table.add_row(step.name, f"{step.ms:.1f}", f"{step.statements}", f"{step.database_ms:.1f}")
    table.add_section()
    table.add_row(
        "together",
        f"{sum(step.ms for step in steps):.1f}",
        f"{sum(step.statements for step in steps)}",
        f"{sum(step.database_ms for step in steps):.1f}",
    )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
