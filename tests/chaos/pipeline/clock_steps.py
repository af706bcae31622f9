"""Stepping clocks as a fault: which processes', how far, and what else goes on meanwhile."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from infra.local.stack import API, WORKERS
from tests.chaos.pipeline.system import Inject, System

# An hour: longer than every lease, lock and pause. Forty days: past the end of a month, and every age that is acted on.
_STEPS = (timedelta(hours=1), timedelta(hours=-1), timedelta(days=40), timedelta(days=-40))
# Failures schedule retries and close the gate before the LLM, both of which are a matter of time. Few, so that the
# stage does not hold instead.
_FAILURES: Sequence[dict[str, Any]] = (
    {"mode": "500", "count": 4},
    {"mode": "429", "count": 4, "retry_after": 0.5},
)


def step(*groups: Callable[[System], Sequence[str]]) -> Inject:
    """Step the clocks of a group of processes, and set them right again. Groups take turns."""

    @asynccontextmanager
    async def inject(system: System, turn: int) -> AsyncIterator[None]:
        assert system.grounds.clocks is not None
        turn, group = divmod(turn, len(groups))
        failure, step = divmod(turn, len(_STEPS))
        await system.llm(**_FAILURES[failure % len(_FAILURES)])
        processes = groups[group](system)
        for process in processes:
            system.grounds.clocks.step(process, _STEPS[step])
        try:
            yield
        finally:
            for process in processes:
                system.grounds.clocks.step(process, timedelta())
            await system.llm(mode="ok")

    return inject


def one_of_each(number: int) -> Callable[[System], Sequence[str]]:
    """Half of the processes of the API and of each stage but the schedule: as if they shared a machine."""
    return lambda system: [system.parts(kind)[number] for kind in (API, *WORKERS) if kind != "schedule"]


def server(name: str) -> Callable[[System], Sequence[str]]:
    """One of the servers."""
    return lambda _system: [name]


def schedule(system: System) -> Sequence[str]:
    """Both schedule workers, so that nobody with a right clock publishes what is due."""
    return system.parts("schedule")


def everything(system: System) -> Sequence[str]:
    """What a single machine would run: the clocks agree, and all of them are stepped."""
    return ["valkey", "postgres", *(part for kind in (API, *WORKERS) for part in system.parts(kind))]


def no_clocks(system: System) -> str | None:
    """Say why clocks cannot be stepped here, or return None."""
    return None if system.grounds.clocks else "libfaketime is not installed: it has wheels for Linux on x86-64 only"
