"""The leading schedule worker runs periodic tasks, and at an operator's word too.

What a task does may be done twice and stop anywhere; that is each task's own promise. If the process dies
- before a task's beginning is noted: it is wanted still, and the next leader runs it;
- while it runs: it stays noted as running, for an hour at most; it runs again at its next time, or when it is wanted;
- after it ended, before that is noted: the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeAlias

import aiosql
import structlog
from faust.utils.cron import secs_for_next

from infra.errors import DependencyDown, Refused
from infra.postgres import Connection, Database

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("periodic.sql"), "asyncpg")

Work: TypeAlias = Callable[[], Awaitable[object]]

# What runs every few seconds is noted this often, so that its row is not written all the time.
_NOTED_EVERY_S: Final = 10.0
LONGEST: Final = timedelta(hours=1)
"""A task that has been running for longer was left by a process that died."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """A periodic task. It runs by a crontab (UTC), or as often as `every` says: a time, or a part of a setting."""

    name: str
    what: str
    crontab: str | None = None
    every: str | None = None


PERIODIC: Final = (
    Periodic("reconcile", "sends on what stands still", every="a tenth of TEAMFIT_STALL_THRESHOLD_S"),
    Periodic("counts", "counts jobs by time where something has changed", every="15 s"),
    Periodic("budgets", "tells who has spent how much of a budget", every="15 s"),
    Periodic("periods", "opens the month's quota period", crontab="7 * * * *"),
    Periodic("dispatch.recount", "mends counters of the line", crontab="37 * * * *"),
    Periodic("counts.again", "counts the jobs of the last 100 days again", crontab="41 2 * * *"),
    Periodic("retention", "deletes what is past its retention", crontab="23 3 * * *"),
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A periodic task with how it ran last.

    Attributes:
        next_at: when it runs next; None where that is a moment away.
        error: by which kind of error it failed last, or None.
        wanted_at: since when an operator wants it to run.
    """

    name: str
    what: str
    when: str
    next_at: datetime | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    wanted_at: datetime | None = None
    wanted_by: str | None = None

    @property
    def state(self) -> str:
        """Return `wanted`, `running`, `failed`, `done`, or `never` for one that has not run yet."""
        if self.wanted_at is not None:
            return "wanted"
        if self.started_at is None:
            return "never"
        if self.ended_at is None:
            return "running"
        return "failed" if self.error else "done"


def _next_at(one: Periodic) -> datetime | None:
    if one.crontab is None:
        return None
    return datetime.now(UTC) + timedelta(seconds=round(secs_for_next(one.crontab, UTC)))


async def standings(connection: Connection) -> Sequence[Standing]:
    """Return every periodic task, and how it ran last."""
    known = {row["name"]: dict(row) async for row in _queries.standings(connection)}
    return [
        Standing(
            **{
                **known.get(one.name, {"name": one.name}),
                "what": one.what,
                "when": f"{one.crontab} (crontab, UTC)" if one.crontab else f"every {one.every}",
                "next_at": _next_at(one),
            }
        )
        for one in PERIODIC
    ]


async def want(connection: Connection, name: str, *, who: str) -> Mapping[str, object]:
    """Have a task run now, in the caller's transaction; return what follows. A repeat before it runs changes nothing.

    Raises:
        Refused: there is no such task, or it is running.
    """
    if name not in {one.name for one in PERIODIC}:
        known = ", ".join(one.name for one in PERIODIC)
        raise Refused("task_not_found", f"task: there is no {name!r}; there are {known}")
    row = await _queries.lock(connection, name=name, longest=LONGEST)
    if row["started_at"] is not None and row["ended_at"] is None and row["lately"]:
        since = f"{row['started_at']:%Y-%m-%d %H:%M:%S}"
        raise Refused("task_running", f"task {name}: it runs since {since} UTC; ask again when it has ended")
    if row["wanted_at"] is not None:
        return {"wanted_since": row["wanted_at"], "by": row["wanted_by"]}
    await _queries.want(connection, name=name, who=who)
    return {"begins": "when the schedule worker that leads looks next, within two seconds"}


class Tasks:
    """Runs periodic tasks, each once at a time, and notes how they went.

    Args:
        database: where they are noted.
        survive: runs a part of a task, and returns by which kind of error it failed, or None.
        works: the parts of each task, by their names.
    """

    def __init__(
        self,
        database: Database,
        survive: Callable[[str, Work], Awaitable[str | None]],
        works: Mapping[str, Mapping[str, Work]],
    ) -> None:
        self._database, self._survive, self._works = database, survive, works
        self._turns = {name: asyncio.Lock() for name in works}
        self._noted: dict[str, tuple[float, str | None]] = {}

    async def run(self, name: str, *, told: bool = False) -> None:
        """Run a task, unless this process is running it. Raises nothing but cancellation.

        Args:
            name: of the task.
            told: an operator wants it; that is noted, however often it runs by itself.
        """
        turn = self._turns[name]
        if turn.locked():
            return
        async with turn:
            rare = told or next(one for one in PERIODIC if one.name == name).crontab is not None
            if rare and not await self._note(_queries.begin, name=name):
                return
            failed = [kind for part, work in self._works[name].items() if (kind := await self._survive(part, work))]
            error = ", ".join(failed) or None
            at, before = self._noted.get(name, (float("-inf"), None))
            if rare:
                await self._note(_queries.end, name=name, error=error)
            elif error != before or monotonic() - at > _NOTED_EVERY_S:
                await self._note(_queries.ran, name=name, error=error)
                self._noted[name] = (monotonic(), error)

    async def run_wanted(self) -> None:
        """Run what operators want now, one after the other. Raises DependencyDown."""
        async with self._database.transaction() as connection:
            wanted = [row["name"] async for row in _queries.wanted(connection, names=[*self._works])]
        for name in wanted:
            await self.run(name, told=True)

    # The query is aiosql's, which has no types.
    async def _note(self, query: Any, **values: object) -> bool:  # noqa: ANN401
        """Write how a task stands; return whether that could be done. Postgres being away stops no work."""
        try:
            async with self._database.transaction() as connection:
                await query(connection, **values)
        except DependencyDown as error:
            log.warning("schedule.not_noted", work=values["name"], why=str(error))
            return False
        return True
