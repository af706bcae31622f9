"""`python -m infra.bench.transport` compares the Redis Streams transport with a raw loop and its peers.

All contenders take turns on one server, round after round, and each number is the median of its rounds. A drain is
divided by that of the raw loop of redis-py in the same round: it reads 500 entries and acknowledges each in a pipeline.
Ratios travel from one machine to another; events per second do not.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel
from redis import Redis
from rich.console import Console
from rich.table import Table

from infra.bench.peers.contenders import CONTENDERS, DEFAULT, PEERS, RAW, Contender, Kind, NotInstalled, environment
from infra.bench.peers.plot import Bar, draw
from infra.bench.peers.runs import Drained, Grounds, Paced, RunFailed
from infra.local.servers import start_valkey

_FEW, _MANY = 1_000, 100_000  # waiting events between which the worker's memory is compared
_ROUNDS = 3
_PAPER = 120  # columns, where the table goes to a file


class Row(BaseModel):
    """The measurements of one contender. None is what was not measured."""

    name: str
    kind: Kind
    batch: bool
    events_per_s: float
    of_raw: float
    cpu_s_per_10k: float
    peak_memory_mb: float
    enqueue_per_s: float | None
    enqueue_of_raw: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None

    def latency_ms(self, percentile: str) -> float | None:
        """Return the latency at `p50` or `p99`."""
        return self.latency_p50_ms if percentile == "p50" else self.latency_p99_ms


class Report(BaseModel):
    """The result of a run. `ratios` compares the transport with the best peer of its kind."""

    server: str
    rounds: int
    rows: list[Row]
    ratios: dict[str, float]
    missing: dict[str, str]
    memory_growth_mb: float


@dataclass
class _Samples:
    """What the rounds have shown of one contender."""

    drained: list[Drained] = field(default_factory=list)
    of_raw: list[float] = field(default_factory=list)
    sent_of_raw: list[float] = field(default_factory=list)
    paced: list[Paced] = field(default_factory=list)


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.transport", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help="which to compare with, by commas (default: all)")
    parser.add_argument(
        "--events", type=int, help="how many this transport and the raw loop drain a turn (default: a second or two's)"
    )
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"turns of each (default {_ROUNDS})")
    parser.add_argument("--venvs", type=Path, default=DEFAULT, help="where the peers' environments are kept")
    parser.add_argument("--plot", type=Path, help="draw the drains into this SVG file")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    chosen = {peer for peer in options.peers.split(",") if peer}
    if unknown := chosen - set(PEERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    report = measure(chosen, options.venvs, options.rounds, options.events)
    if options.plot:
        options.plot.write_text(plot(report))
    print(report.model_dump_json(indent=2)) if options.json else show(report)
    return 0


def measure(peers: set[str], venvs: Path, rounds: int, events: int | None) -> Report:
    """Let everybody take turns on one server of their own."""
    progress = Console(stderr=True)
    pythons, missing = _pythons(peers, venvs, progress)
    contenders = [
        # Peers take as long for a tenth of the events, so theirs stay as they are.
        replace(contender, jobs=events) if events and contender.requirements is None else contender
        for contender in CONTENDERS
        if contender.module in pythons
    ]
    samples: dict[str, _Samples] = defaultdict(_Samples)
    with start_valkey(append_only=False) as server, tempfile.TemporaryDirectory() as folder:
        grounds = Grounds(server.url, Path(folder))
        for number in range(1, rounds + 1):
            progress.print(f"round {number} of {rounds} …")
            # RAW comes first, and everybody else of the round is divided by it.
            for contender in contenders:
                if contender.name in missing:
                    continue
                try:
                    _take_turn(grounds, contender, pythons[contender.module], samples)
                except RunFailed as error:
                    missing[contender.name] = str(error)
        growth = _memory_growth(grounds, Path(sys.executable))
        with Redis.from_url(server.url, decode_responses=True) as client:
            about = client.info("server")
    rows = [_row(contender, samples[contender.name]) for contender in contenders if contender.name not in missing]
    return Report(
        server=f"{about.get('server_name', 'redis')} {about.get('valkey_version', about['redis_version'])}",
        rounds=rounds,
        rows=rows,
        ratios=_ratios(rows),
        missing=missing,
        memory_growth_mb=growth,
    )


def _pythons(peers: set[str], venvs: Path, progress: Console) -> tuple[dict[str, Path], dict[str, str]]:
    """Return each module's Python, and why a peer has none."""
    pythons, missing = {}, {}
    for contender in CONTENDERS:
        module, requirements = contender.module, contender.requirements
        if requirements is None:
            pythons[module] = Path(sys.executable)
        elif module in peers and module not in pythons and module not in missing:
            progress.print(f"environment of {module} …")
            try:
                pythons[module] = environment(module, requirements, venvs)
            except NotInstalled as error:
                missing[module] = str(error)
    return pythons, missing


def _take_turn(grounds: Grounds, contender: Contender, python: Path, samples: dict[str, _Samples]) -> None:
    mine = samples[contender.name]
    drained = grounds.drain(contender, python)
    mine.drained.append(drained)
    raw = samples[RAW.name].drained[-1]
    mine.of_raw.append(drained.per_s / raw.per_s)
    mine.sent_of_raw.append(drained.sent_per_s / raw.sent_per_s)
    if contender.paced:
        mine.paced.append(grounds.pace(contender, python))


def _memory_growth(grounds: Grounds, python: Path) -> float:
    """How much more a worker takes, in MB, when a hundred times as many events wait for it."""
    ours = next(contender for contender in CONTENDERS if contender.kind == "ours")
    few, many = (grounds.drain(replace(ours, jobs=jobs), python).memory_mb for jobs in (_FEW, _MANY))
    return round(many - few, 1)


def _row(contender: Contender, samples: _Samples) -> Row:
    median = statistics.median
    sends = contender.sends
    return Row(
        name=contender.name,
        kind=contender.kind,
        batch=contender.batch,
        events_per_s=round(median(one.per_s for one in samples.drained)),
        of_raw=round(median(samples.of_raw), 4),
        cpu_s_per_10k=round(median(one.cpu_s_per_10k for one in samples.drained), 3),
        peak_memory_mb=round(median(one.memory_mb for one in samples.drained), 1),
        enqueue_per_s=round(median(one.sent_per_s for one in samples.drained)) if sends else None,
        enqueue_of_raw=round(median(samples.sent_of_raw), 3) if sends else None,
        latency_p50_ms=round(median(one.p50_ms for one in samples.paced), 2) if samples.paced else None,
        latency_p99_ms=round(median(one.p99_ms for one in samples.paced), 2) if samples.paced else None,
    )


def _ratios(rows: Sequence[Row]) -> dict[str, float]:
    """The transport's best by the peers' best, of what was measured of both: above 1 is better, for latency too."""
    ratios = {}
    for title, batch in (("drain, one by one", False), ("drain, batches", True)):
        ours, peers = (
            [row.of_raw for row in rows if row.kind == kind and row.batch == batch] for kind in ("ours", "peer")
        )
        if ours and peers:
            ratios[title] = round(max(ours) / max(peers), 2)
    for percentile in ("p50", "p99"):
        ours, peers = (
            [value for row in rows if row.kind == kind and (value := row.latency_ms(percentile)) is not None]
            for kind in ("ours", "peer")
        )
        if ours and peers:
            ratios[f"latency {percentile}"] = round(min(peers) / min(ours), 2)
    return ratios


def plot(report: Report) -> str:
    """Draw the drains, the raw loop among them."""
    # The variadic loop would make everybody else's bar a dot; it is in the table.
    shown = [row for row in report.rows if row.kind != "raw" or row.name == RAW.name]
    return draw(
        "No-op events per second, one worker process",
        f"{report.server}, medians of {report.rounds} rounds, all in one run; each at its best configuration",
        [Bar(row.name, row.events_per_s, row.kind) for row in shown],
    )


def show(report: Report) -> None:
    """Print the report for people."""
    table = Table(title=f"One worker process, {report.server}, medians of {report.rounds} rounds")
    columns = ("", "events/s", "of raw", "CPU s/10k", "MB", "enqueue/s", "of raw", "p50 ms", "p99 ms")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in report.rows:
        table.add_row(
            row.name,
            f"{row.events_per_s:,.0f}",
            f"{row.of_raw:.3f}",
            f"{row.cpu_s_per_10k:.2f}",
            f"{row.peak_memory_mb:.0f}",
            f"{row.enqueue_per_s:,.0f}" if row.enqueue_per_s is not None else "",
            f"{row.enqueue_of_raw:.2f}" if row.enqueue_of_raw is not None else "",
            f"{row.latency_p50_ms:.1f}" if row.latency_p50_ms is not None else "",
            f"{row.latency_p99_ms:.1f}" if row.latency_p99_ms is not None else "",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PAPER
    console.print(table)
    for title, ratio in report.ratios.items():
        console.print(f"{title}: {ratio:g} × the best peer")
    console.print(f"memory with {_MANY:,} events waiting over {_FEW:,}: {report.memory_growth_mb:+.1f} MB")
    for name, reason in report.missing.items():
        console.print(f"not measured: {name}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
