"""This runs the Faust apps of stages in this process, on uvloop, with our logging."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import faust
import structlog
import uvloop
from faust.types import ServiceT

from infra import tracing
from infra.errors import InvalidSetting
from infra.garbage import spare_what_stays
from infra.ports import require_free
from infra.postgres import Database
from infra.telemetry import start_logging
from streams.jobs.faust_app import StageApp
from streams.jobs.stages import STAGES

log = structlog.get_logger(__name__)


class _Worker(faust.Worker):
    """Faust's worker runs the apps, says when they consume, and does not dawdle at its end."""

    def __init__(
        self,
        apps: Sequence[StageApp],
        database: Database,
        *,
        tell: Callable[[bool], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # Faust's own logging and its spinner would write over ours.
        first, *rest = apps
        super().__init__(first, *rest, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
        self.spinner = None
        self._apps, self._database, self._tell = apps, database, tell
        self._starting = {app.conf.id for app in apps}

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Have each app tell when it consumes: Faust asks its first alone."""
        children = [*super().on_init_dependencies()]
        for app in self._apps:
            app.on_startup_finished = partial(self._consumes, app.conf.id)
        return children

    async def _consumes(self, stage: str) -> None:
        """Say that partitions are assigned and agents run; it is told when that is so in every stage."""
        log.info("worker.started", stage=stage)
        self._starting.discard(stage)
        if not self._starting:
            await self.on_startup_finished()
            self._tell(True)  # noqa: FBT003 - consumes

    async def on_stop(self) -> None:
        """Say that no more work is taken."""
        self._tell(False)  # noqa: FBT003 - consumes
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Close the pool: all apps have stopped."""
        await super().on_shutdown()
        await self._database.close()

    async def _sentinel_task(self) -> None:
        # mode sleeps a second here for stragglers; the app's own stop has waited for all of ours.
        await asyncio.sleep(0)


def ready_file_kept(path: Path | None) -> Callable[[bool], None]:
    """Return what makes the file, or removes it.

    It is called with whether the file should be there.

    Raises:
        InvalidSetting: nothing can be written there.
    """
    if path is None:
        return lambda _consumes: None
    if not os.access(path.parent, os.W_OK):
        raise InvalidSetting("--ready-file", f"{path}: nothing can be written to {path.parent.absolute()}")
    return lambda consumes: path.touch() if consumes else path.unlink(missing_ok=True)


def run_stages(stages: Sequence[str], tell: Callable[[bool], None], *, parent: int | None = None) -> None:
    """Run stages until a signal stops them. Ends the process: with code 0 after a stop in good order.

    Several share one event loop, one pool of connections and one port for health and metrics.

    Args:
        stages: which.
        tell: called with whether all of them consume.
        parent: a descriptor that becomes readable when the process that looks after this one has ended: this one ends
            then as by SIGTERM.

    Raises:
        InvalidSetting: one that a stage needs cannot be used.
        PortTaken: another program listens on TEAMFIT_WORKER_PORT.
    """
    started = start_logging(stages[0] if len(stages) == 1 else "worker")
    tracing.only_in_tries()
    if started.worker_port is not None:
        require_free(started.worker_port, "TEAMFIT_WORKER_PORT", host=started.worker_host)
    loop = uvloop.new_event_loop()
    # Faust looks the loop up while the app is made.
    asyncio.set_event_loop(loop)
    if parent is not None:
        loop.add_reader(parent, _end_orphaned, loop, parent)
    database = Database(started.database_url, size=started.database_pool_size, keeps_plans=True)
    # Imported by name, so that a worker loads its own stages and nothing else.
    modules = [one.module for one in STAGES if one.name in stages]
    first, *rest = apps = [import_module(module).create(started, database) for module in modules]
    for app in rest:
        first.tell_also(app)
    spare_what_stays()
    _Worker(apps, database, tell=tell, loop=loop).execute_from_commandline()


def _end_orphaned(loop: asyncio.AbstractEventLoop, parent: int) -> None:
    loop.remove_reader(parent)
    log.warning("worker.orphaned")
    os.kill(os.getpid(), signal.SIGTERM)
