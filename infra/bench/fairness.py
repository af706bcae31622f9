"""`python -m infra.bench.fairness` measures who waits how long.

It runs on an embedded Postgres and holds the waits against the bounds of docs/fairness.md.

The order is the database's own; the LLM's seconds are those of a clock that takes none, so the waits are exact and the
same each time. Only what a release costs is measured in true time.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations, pairwise

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from infra.bench.fairness_fleet import Fleet, Run
from infra.local.servers import start_postgres
from infra.migrations import upgrade
from infra.postgres import Database

_SLOTS = 50
_BACKLOG = 100_000


class Measured(BaseModel):
    """A number, and what it may be at most (or at least)."""

    what: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Return whether the bound holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.fairness", description=__doc__)
    parser.add_argument("--deep", action="store_true", help="also a job behind 300,000 (a minute more)")
    parser.add_argument("--json", action="store_true", help="print JSON, a document for each line of the table")
    options = parser.parse_args()
    with start_postgres() as postgres:
        measured = asyncio.run(_measure(postgres.url, deep=options.deep))
    if options.json:
        for one in measured:
            print(one.model_dump_json())
    else:
        _print(measured)
    return 0 if all(one.holds for one in measured) else 1


async def _measure(url: str, *, deep: bool) -> list[Measured]:
    await upgrade(url)
    database = Database(url, size=2)
    questions = [
        *(partial(_behind, database, jobs) for jobs in ([3_000, 30_000, 300_000] if deep else [3_000, 30_000])),
        partial(_many_beside_one, database),
        partial(_weights, database),
        partial(_published_bounds, database),
        partial(_slow_beside_quick, database),
        partial(_alone, database),
        partial(_replay, database),
        partial(_release_cost, database),
    ]
    try:
        return [one for question in questions for one in await question()]
    finally:
        await database.close()


async def _behind(database: Database, jobs: int) -> list[Measured]:
    """Ask how long a second organization's job waits behind the first one's, with calls of one second."""
    fleet = Fleet(database, _SLOTS)
    await fleet.forget({"first": 1, "second": 1})
    await fleet.enter(["first"], jobs)
    await fleet.begin(staggered=True)
    await fleet.work(lambda it: it.now >= 1)
    sent = fleet.now
    await fleet.enter(["second"], 1)
    await fleet.work(lambda it: any(run.organization == "second" for _, run in it.starts))
    waited = next(at for at, run in fleet.starts if run.organization == "second") - sent
    # A call, and the gap between two releases: less than `c * (1 + 1/8 + n / S)` of docs/fairness.md.
    return [
        Measured(what=f"a job behind {jobs:,} of another organization", value=waited, bound=1 + 1 / _SLOTS, unit="s")
    ]


async def _many_beside_one(database: Database) -> list[Measured]:
    """Ask how long small organizations wait beside a large one, against a fleet that can be shared out exactly."""
    small, jobs = [f"small-{n}" for n in range(99)], 10
    fleet = Fleet(database, _SLOTS)
    await fleet.forget(dict.fromkeys(["large", *small], 1.0))
    await fleet.enter(["large"], _BACKLOG)
    await fleet.begin(staggered=True)
    await fleet.work(lambda it: it.now >= 1)
    sent = fleet.now
    await fleet.enter(small, jobs)
    waits = await _waits(fleet, small, jobs, sent)
    # Each of the hundred has half a slot: its next job begins when that has done the one before.
    ideal = _p95([nth * 100 / _SLOTS for nth in range(jobs) for _ in small])
    what = f"p95 wait of 99 organizations with {jobs} jobs beside one with {_BACKLOG:,} (ideal: {ideal:.1f} s)"
    return [Measured(what=what, value=_p95(waits), bound=2 * ideal, unit="s")]


async def _weights(database: Database) -> list[Measured]:
    """Ask for the shares of 1,000 releases by weights of 5, 3 and 2, and after one of them was changed."""
    fleet = Fleet(database, _SLOTS)
    weights = {"five": 5.0, "three": 3.0, "two": 2.0}
    await fleet.forget(weights)
    await fleet.enter(list(weights), 1_500)
    off = [_furthest_off(await fleet.release(1_000), weights)]
    await fleet.set_weight("two", 12.0)
    changed = weights | {"two": 12.0}
    # The window is what may be released and not ended: it grows by what is asked for.
    released = await fleet.release(1_020)
    # Each head was moved on by its old weight when it was released; from the next one on, the new one counts.
    first = next((nth for nth, run in enumerate(released, 1) if run.organization == "two"), len(released) + 1)
    off.append(_furthest_off(await fleet.release(2_020), changed))
    return [
        Measured(what="weights 5 : 3 : 2, 1,000 releases, furthest off", value=off[0], bound=2, unit="points"),
        Measured(what="releases until a weight raised from 2 to 12 is next", value=first, bound=10, unit=""),
        Measured(what="weights 5 : 3 : 12 on what waited, furthest off", value=off[1], bound=2, unit="points"),
    ]


async def _published_bounds(database: Database) -> list[Measured]:
    """Ask how far organizations of many weights fall behind each other, and how long the lowest waits at worst."""
    weights = {f"o{n}": (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 40.0)[n % 7] for n in range(30)}
    fleet = Fleet(database, _SLOTS)
    await fleet.forget(weights)
    await fleet.enter(list(weights), 600)
    behind, served = 0.0, Counter[str]()
    # One at a time, so that each release is held against the bound.
    for nth in range(600):
        [run] = await fleet.release(nth + 1)
        served[run.organization] += 1
        behind = max(behind, _furthest_behind(served, weights))
    lowest = {"lowest": 1.0, **{f"o{n}": 4.0 for n in range(99)}}
    fleet = Fleet(database, _SLOTS)
    await fleet.forget(lowest)
    await fleet.enter(list(lowest), 40)
    await fleet.begin(staggered=True)
    await fleet.work(lambda it: it.now >= 30)  # noqa: PLR2004 - three of its turns, and a bit
    starts = [at for at, run in fleet.starts if run.organization == "lowest"]
    worst = max(later - before for before, later in pairwise([0.0, *starts]))
    # `c * (1 + 1/8 + n / S)` and `c * (W / w) / S` of docs/fairness.md.
    bound = 1 + 1 / 8 + len(lowest) / _SLOTS + sum(lowest.values()) / _SLOTS
    return [
        Measured(what="furthest that one of 30 is behind another, of the bound", value=behind, bound=1, unit=""),
        Measured(
            what="longest wait of the lowest weight beside 99 of 4 times that", value=worst, bound=bound, unit="s"
        ),
    ]


def _furthest_behind(served: Counter[str], weights: Mapping[str, float]) -> float:
    """Return the largest distance in slot time over weight, as a part of what one run of each allows."""
    had = {name: served[name] / weight for name, weight in weights.items()}
    return max(
        abs(had[one] - had[other]) / (1 / weights[one] + 1 / weights[other]) for one, other in combinations(weights, 2)
    )


async def _slow_beside_quick(database: Database) -> list[Measured]:
    """Ask for the part of the slots that runs of 60 s have beside runs of 1 s, once the estimates are learned."""
    learned, enough = 240.0, 1_440.0
    fleet = Fleet(database, _SLOTS, {"slow": 60.0})
    await fleet.forget({"slow": 1, "quick": 1})
    await fleet.enter(["slow"], 2_000)
    await fleet.enter(["quick"], 60_000)
    await fleet.begin()
    await fleet.work(lambda it: it.now >= enough)
    held: Counter[str] = Counter()
    for began, ended, run in fleet.ends:
        held[run.organization] += round(1000 * max(0.0, min(ended, enough) - max(began, learned)))
    off = 100 * abs(held["slow"] / held.total() - 0.5)
    return [Measured(what="slots of runs of 60 s beside runs of 1 s, off 50 %", value=off, bound=3, unit="points")]


async def _alone(database: Database) -> list[Measured]:
    """Ask for the part of the slots that an organization has when it is alone."""
    fleet = Fleet(database, _SLOTS)
    await fleet.forget({"only": 1})
    await fleet.enter(["only"], 3_000)
    await fleet.begin(staggered=True)
    # Without the first second and the last, in which slots fill and empty.
    first, last = 1.0, 19.0
    # Until those that were under way then have ended too.
    await fleet.work(lambda it: it.now > last + 1)
    held = sum(max(0.0, min(ended, last) - max(began, first)) for began, ended, _ in fleet.ends)
    part = 100 * held / (_SLOTS * (last - first))
    return [Measured(what="slots that one organization alone has", value=part, bound=98, unit="%", at_least=True)]


async def _replay(database: Database) -> list[Measured]:
    """Ask by how much one organization's replay moves the waits of 29 others."""
    others, jobs = [f"other-{n}" for n in range(29)], 20
    p95 = []
    for replayed in (0, _BACKLOG):
        fleet = Fleet(database, _SLOTS)
        await fleet.forget(dict.fromkeys(["replays", *others], 1.0))
        await fleet.enter(["replays"], replayed, run=2)
        await fleet.enter(["replays", *others], jobs)
        await fleet.begin()
        p95.append(_p95(await _waits(fleet, others, jobs, 0.0)))
    what = f"p95 wait of others while one of 30 replays {_BACKLOG:,}, against without"
    return [Measured(what=what, value=100 * (p95[1] / p95[0] - 1), bound=10, unit="%")]


async def _release_cost(database: Database) -> list[Measured]:
    """Ask what a release takes, with few and with many organizations that wait."""
    took = {}
    for organizations, jobs in ((10, 2_000), (10_000, 2)):
        names = [f"o{n}" for n in range(organizations)]
        fleet = Fleet(database, _SLOTS)
        await fleet.forget(dict.fromkeys(names, 1.0))
        await fleet.enter(names, jobs)
        under_way = await fleet.release(_SLOTS)
        each = []
        for _ in range(600):
            await fleet.end(under_way[:1])
            began = time.perf_counter()
            released = await fleet.release(_SLOTS)
            each.append(time.perf_counter() - began)
            under_way = [*under_way[1:], *released]
        took[organizations] = 1000 * statistics.median(each)
    return [
        Measured(what="a release with 10 organizations", value=took[10], bound=20, unit="ms"),
        Measured(what="the same with 10,000, times that", value=took[10_000] / took[10], bound=2, unit=""),
    ]


async def _waits(fleet: Fleet, names: Sequence[str], jobs: int, sent: float) -> list[float]:
    """Work until all jobs of these have begun; return how long each waited."""
    chosen, left = set(names), len(names) * jobs
    seen = 0
    waits: list[float] = []

    def all_begun(it: Fleet) -> bool:
        nonlocal seen
        waits.extend(at - sent for at, run in it.starts[seen:] if run.organization in chosen and run.run == 1)
        seen = len(it.starts)
        return len(waits) >= left

    await fleet.work(all_begun)
    return waits


def _furthest_off(released: Sequence[Run], weights: dict[str, float]) -> float:
    counted = Counter(run.organization for run in released)
    return max(
        100 * abs(counted[name] / counted.total() - weight / sum(weights.values())) for name, weight in weights.items()
    )


def _p95(waits: Sequence[float]) -> float:
    return statistics.quantiles(waits, n=20)[-1]


def _print(measured: Sequence[Measured]) -> None:
    table = Table(title=f"{_SLOTS} slots, calls of 1 s", title_justify="left")
    for column in ("what", "measured", "bound", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for one in measured:
        sign = "≥" if one.at_least else "≤"
        table.add_row(
            one.what, f"{one.value:.2f} {one.unit}", f"{sign} {one.bound:.2f}", "" if one.holds else "[red]broken[/red]"
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
