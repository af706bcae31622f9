"""Each process watches what operators want of it, and says that it is there.

One connection of its own listens for changes, looks at them each second all the same (a pooler tells nothing, and a
connection may be dead without a word), and writes the process's row every five seconds. What is known stays in force
while Postgres is away.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal, TypeAlias
from uuid import uuid4

import aiosql
import asyncpg
import orjson
import structlog

from infra import telemetry
from infra.errors import DependencyDown
from infra.postgres import Database, Session, behind_pooler
from infra.postgres_errors import down
from streams.delivery.brake import Brake, put_aside_as
from streams.delivery.scheduled import hasten
from streams.jobs.controls import CHANNEL, Controls, read_controls
from streams.jobs.stages import QUOTA, STAGES

log = structlog.get_logger(__name__)

_queries = aiosql.from_path(Path(__file__).with_name("processes.sql"), "asyncpg")

ProcessKind: TypeAlias = Literal["worker", "api", "console"]

# A run of an organization whose generation is paused goes back to its line at once. In the quota stage it waits in the
# schedule, where looking at it again costs a write. `resume` makes it due, and so does each worker when it has heard of
# that, and once more a look later: what it put aside in between would wait for its minute.
_SHORT: Final = timedelta(seconds=1)
_ASIDE: Final = {QUOTA: timedelta(minutes=1)}

_LOOK_S: Final = 1.0
_TELL_S: Final = 5.0
_LONGEST_LOOK_S: Final = 5.0
_GOODBYE_S: Final = 2.0


def is_stage(group: str) -> bool:
    """Return true for a stage, whose workers obey operators. Other apps only publish."""
    return any(one.name == group for one in STAGES)


def brake_of(group: str) -> Brake:
    """Return the brake of an app, which is released in one that is no stage's."""
    own = next((one for one in STAGES if one.name == group), None)
    return Brake(group, starts=own.run if own else None, aside=_ASIDE.get(group, _SHORT), awaits_orders=own is not None)


@dataclass(frozen=True, slots=True)
class Watched:
    """A stage of this process.

    Attributes:
        name: of the stage.
        brake: obeys what is wanted of it.
        concurrency: how many deliveries it takes at once by its settings.
        held: says why it stands still by itself.
        endpoints: names the LLM endpoints that it calls.
        unreached: says of each of them that no call from here reaches why that is so.
    """

    name: str
    brake: Brake
    concurrency: Callable[[], int]
    held: Callable[[], str | None]
    endpoints: Callable[[], Sequence[str]]
    unreached: Callable[[], Mapping[str, str]]

    def doing(self) -> Mapping[str, Any]:
        """Return what it does now."""
        orders = self.brake.orders
        most = self.concurrency()
        return {
            "stage": self.name,
            "under_way": self.brake.running,
            "started_with": most,
            "concurrency": most if orders.limit is None else min(orders.limit, most),
            "paused": orders.paused,
            "held": self.held(),
            "endpoints": list(self.endpoints()),
            "unreached": self.unreached(),
        }


class Watch:
    """The watch of one process.

    Args:
        database: where the controls stand.
        kind: of the process.

    Attributes:
        stages: what it watches over.
        hooks: called with the controls after each look.
        process: the process's ID; a restarted one has another.
        controls: what is in force, as last read.
    """

    def __init__(self, database: Database, kind: ProcessKind) -> None:
        self.process = str(uuid4())
        self.controls = Controls()
        self._database = database
        self._kind = kind
        self.stages: list[Watched] = []
        self.hooks: list[Callable[[Controls], None]] = []
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        self._told_at = float("-inf")
        self._is_away = self._drains = self._is_news = False
        self._resumed: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None

    def adopt(self, other: "Watch") -> None:
        """Watch over what another of the same process would have."""
        self.stages += other.stages
        self.hooks += other.hooks

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="watch")

    async def first_look(self) -> None:
        """Wait until it is known what is wanted, or until that cannot be known. At once where nothing was started."""
        if self._task is not None:
            await self._looked.wait()

    async def close(self) -> None:
        """Say that the process has ended."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        if self._told_at > float("-inf"):
            with suppress(Exception):  # whoever looks sees no sign of life soon
                async with asyncio.timeout(_GOODBYE_S):
                    await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        connection = await self._database.connect_apart()
        try:
            await _queries.is_gone(connection, process=self.process)
        finally:
            connection.terminate()

    async def _run(self) -> None:
        while True:
            connection: Session | None = None
            try:
                connection = await self._database.connect_apart()
                if not await behind_pooler(connection):
                    await connection.add_listener(CHANNEL, lambda *_: self._changed.set())
                while True:
                    async with asyncio.timeout(_LONGEST_LOOK_S):
                        await self._look(connection)
                    await self._until_next_look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the process goes on as it was told to
                self._tell_away(error)
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(_LOOK_S)

    async def _until_next_look(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._changed.wait()

    def _tell_away(self, error: Exception) -> None:
        if not self._is_away:
            log.warning("watch.disconnected", why=f"{type(error).__name__}: {error}")
        self._is_away = True
        why = error if isinstance(error, DependencyDown) else _as_outage(error)
        for stage in self.stages:
            stage.brake.orders_unknown(why)
        self._looked.set()

    async def _look(self, connection: Session) -> None:
        self._changed.clear()
        self.controls = await read_controls(connection)
        self._is_away = False
        resumed = self._obey()
        self._looked.set()
        if self._is_news or monotonic() - self._told_at >= _TELL_S:
            await self._tell(connection)
            self._told_at, self._is_news = monotonic(), False
        await self._hasten(connection, resumed)

    async def _hasten(self, connection: Session, resumed: frozenset[str]) -> None:
        """Make due what stood aside for pauses that ended now or a look ago.

        If this fails, `resume` has done most of it, and the rest waits its minute.
        """
        reasons, self._resumed = resumed | self._resumed, resumed
        for reason in sorted(reasons):
            await hasten(connection, reason=reason, now=self._database.clock.now())

    def _obey(self) -> frozenset[str]:
        """Pass on what is wanted; return what stood aside for pauses of organizations that are over."""
        controls, resumed = self.controls, set[str]()
        for stage in self.stages:
            before = stage.brake.orders
            stage.brake.obey(controls.orders(stage.name))
            if stage.brake.orders.paused != before.paused:
                log.info("stage.paused" if stage.brake.orders.paused else "stage.unpaused", stage=stage.name)
                self._is_news = True
            over = before.organizations.keys() - stage.brake.orders.organizations.keys()
            resumed |= {put_aside_as(stage.name, one) for one in over}
        level = controls.find("log_level", self.process)
        telemetry.set_log_level(None if level is None else level.value)
        for hook in self.hooks:
            hook(controls)
        drain = controls.find("drain", self.process)
        if drain is not None and not self._drains:
            self._drains = True
            log.warning("worker.drained", why=drain.sentence)
            os.kill(os.getpid(), signal.SIGTERM)
        return frozenset(resumed)

    async def _tell(self, connection: Session) -> None:
        await _queries.is_here(
            connection,
            process=self.process,
            kind=self._kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("teamfit-pipeline"),
            stages=[one.name for one in self.stages],
            rss_bytes=_memory(),
            log_level=telemetry.log_level(),
            doing=orjson.dumps([one.doing() for one in self.stages]).decode(),
        )


def _as_outage(error: Exception) -> DependencyDown:
    if isinstance(error, asyncpg.UndefinedTableError):
        return DependencyDown("postgres", f"{error}: the database is not migrated; run teamfit migrate")
    return down(error)


def _memory() -> int:
    """Return the bytes of memory that the process has now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
