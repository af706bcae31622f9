"""`python -m tests.chaos.pipeline`: the scoreboard of faults, for the pipeline and the Celery design it replaces."""

import argparse
import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.chaos.pipeline import report
from tests.chaos.pipeline.celery import Celery
from tests.chaos.pipeline.faults import FAULTS, Fault
from tests.chaos.pipeline.grounds import Grounds, grounds
from tests.chaos.pipeline.rounds import run
from tests.chaos.pipeline.score import Score, reasons, terminal_table, together, told
from tests.chaos.pipeline.system import System
from tests.chaos.pipeline.teamfit import Teamfit

_TITLES = {Teamfit.name: "TEAMFIT pipeline", Celery.name: "The Celery design that it replaces"}


@dataclass(frozen=True)
class _Plan:
    """A system of its own, with servers of its own, and the faults that wait for it or for another one of its kind."""

    name: str
    running: Callable[[Grounds], AbstractAsyncContextManager[System]]
    waiting: deque[Fault]


def main() -> int:
    """Run the faults that were asked for; exit with 1 if ours leaves anything lost, stuck, doubled or inconsistent."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--fault", choices=names, nargs="+", default=names, help="only these faults")
    parser.add_argument("--times", type=int, help="injections of each fault (default: each its own, mostly 20)")
    parser.add_argument("--system", choices=["all", *_TITLES], default="all", help="which system (default: both)")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    parser.add_argument("--write", type=Path, help="write the scoreboard to this Markdown file")
    options = parser.parse_args()
    for name in [*os.environ]:
        # Whatever this shell says about keys and servers, the systems under test have their own.
        if name.startswith("TEAMFIT_") or name in {"OPENAI_API_KEY", "OPENAI_BASE_URL", "BROKER_URL", "DATABASE_URL"}:
            del os.environ[name]
    faults = [_as_asked(fault, options.times) for fault in FAULTS if fault.name in options.fault]
    theirs = [replace(fault, inject=fault.baseline) for fault in faults if fault.baseline is not None]
    plans = [*_plans(Teamfit, faults, fleets=2), *_plans(Celery, theirs, fleets=1)]
    plans = [plan for plan in plans if options.system in {"all", plan.name}]
    parts = asyncio.run(_run(plans, file=options.json))
    rows = groupby(sorted(parts, key=attrgetter("system", "fault")), key=attrgetter("system", "fault"))
    scores = [together(list(same)) for _, same in rows]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 220)
    order = [fault.name for fault in FAULTS]
    scores.sort(key=lambda score: order.index(score.fault))
    for system, title in _TITLES.items():
        if found := [score for score in scores if score.system == system]:
            console.print(terminal_table(title, found), reasons(found), told(found), sep="\n", markup=False)
    for score in scores:
        for sentence in score.broken:
            console.print(f"{score.system} {score.fault}: {sentence}", markup=False, style="red")
    if options.write:
        report.write(options.write, scores, times=options.times)
    return 0 if all(score.clean for score in scores if score.system == Teamfit.name) else 1


def _as_asked(fault: Fault, times: int | None) -> Fault:
    return fault if times is None else replace(fault, times=times)


def _plans(system: type[Teamfit | Celery], faults: Sequence[Fault], fleets: int) -> Iterator[_Plan]:
    """Give the faults to fleets that take one after the other; of those that last long, each its share of one.

    What lasts long is no single part's fault, and its fleets mostly wait: in few processes, which leaves the machine to
    the others.
    """
    waiting = partial(Teamfit.running, in_one=True) if system is Teamfit else system.running
    short = deque(sorted((fault for fault in faults if fault.fleets == 1), key=lambda fault: fault.ground.value))
    for _ in range(min(fleets, len(short))):
        yield _Plan(system.name, system.running, short)
    for fault in faults:
        if fault.fleets > 1:
            for number in range(fault.fleets):
                share = fault.times * (number + 1) // fault.fleets - fault.times * number // fault.fleets
                if share:
                    yield _Plan(system.name, waiting, deque([replace(fault, times=share)]))


async def _run(plans: Sequence[_Plan], *, file: Path | None) -> list[Score]:
    """Take all fleets through their faults side by side: they mostly wait.

    The file has the rows that are done at every moment, so that a run that is cut short is not lost.
    """
    scores: list[Score] = []

    def record(score: Score) -> None:
        scores.append(score)
        if file is not None:
            file.write_bytes(TypeAdapter(list[Score]).dump_json(scores, indent=2))

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        await asyncio.gather(*(_run_system(plan, progress=progress, record=record) for plan in plans))
    return scores


async def _run_system(plan: _Plan, *, progress: Progress, record: Callable[[Score], None]) -> None:
    """Have one system meet what waits. Faults share its processes until one leaves traces, or needs another ground."""
    while plan.waiting:
        needed = plan.waiting[0].ground
        async with grounds(needed) as ground, plan.running(ground) as system:
            clean = True
            while plan.waiting and clean and plan.waiting[0].ground is needed:
                score = await _row(system, plan.waiting.popleft(), progress=progress)
                record(score)
                # What one fault has left behind must not be counted against the next.
                clean = score.clean


async def _row(system: System, fault: Fault, *, progress: Progress) -> Score:
    name = f"{system.name}: {fault.title}"
    task = progress.add_task(name, total=fault.times)
    if reason := fault.skipped(system):
        progress.update(task, description=f"{name}: skipped, {reason}")
        return Score(system=system.name, fault=fault.name, title=fault.title, times=0, skipped=reason)

    def tell(done: int, what: str) -> None:
        progress.update(task, completed=done, description=f"{name}, {what}")

    try:
        score = await run(system, fault, tell=tell)
    except Exception as error:  # noqa: BLE001 - a row that cannot be done must not cost those that can
        progress.console.print_exception()
        broken = [f"could not be done: {type(error).__name__}: {error}"]
        score = Score(system=system.name, fault=fault.name, title=fault.title, times=0, broken=broken)
    told = f"{name}: {'clean' if score.clean else 'NOT CLEAN'}, {score.seconds:.0f} s"
    progress.update(task, description=told)
    if not progress.console.is_terminal:  # where the bars are drawn once, at the end
        progress.console.print(told, *score.broken, sep="\n", markup=False, highlight=False)
    return score


if __name__ == "__main__":
    sys.exit(main())
