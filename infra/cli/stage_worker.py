"""This runs the Faust apps of stages in this process, on uvloop, with our logging."""

import asyncio
import os
from collections.abc import Iterable, Sequence
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
        self, apps: Sequence[StageApp], database: Database, *, ready_file: Path | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        # Faust's own logging and its spinner would write over ours.
        first, *rest = apps
        super().__init__(first, *rest, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
        self.spinner = None
        self._apps, self._database, self._ready_file = apps, database, ready_file
        self._starting = {app.conf.id for app in apps}

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """Have each app tell when it consumes: Faust asks its first alone."""
        children = [*super().on_init_dependencies()]
        for app in self._apps:
            app.on_startup_finished = partial(self._consumes, app.conf.id)
        return children

    async def _consumes(self, stage: str) -> None:
        """Say that partitions are assigned and agents run; the file is made when that is so in every stage."""
        log.info("worker.started", stage=stage)
        self._starting.discard(stage)
        if not self._starting:
            await self.on_startup_finished()
            if self._ready_file is not None:
                self._ready_file.touch()

    async def on_stop(self) -> None:
        """Say that no more work is taken."""
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Close the pool: all apps have stopped."""
        await super().on_shutdown()
        await self._database.close()

    async def _sentinel_task(self) -> None:
        # mode sleeps a second here for stragglers; the app's own stop has waited for all of ours.
        await asyncio.sleep(0)


def run_stages(stages: Sequence[str], *, ready_file: Path | None) -> None:
    """Run stages until a signal stops them. Ends the process: with code 0 after a stop in good order.

    Several share one event loop, one pool of connections and one port for health and metrics.

    Raises:
        InvalidSetting: one that a stage needs cannot be used.
        PortTaken: another program listens on TEAMFIT_WORKER_PORT.
    """
    started = start_logging(stages[0] if len(stages) == 1 else "worker")
    tracing.only_in_tries()
    if started.worker_port is not None:
        require_free(started.worker_port, "TEAMFIT_WORKER_PORT", host=started.worker_host)
    if ready_file is not None and not os.access(ready_file.parent, os.W_OK):
        raise InvalidSetting("--ready-file", f"{ready_file}: nothing can be written to {ready_file.parent.absolute()}")
    loop = uvloop.new_event_loop()
    # Faust looks the loop up while the app is made.
    asyncio.set_event_loop(loop)
    database = Database(started.database_url, size=started.database_pool_size, keeps_plans=True)
    # Imported by name, so that a worker loads its own stages and nothing else.
    modules = [one.module for one in STAGES if one.name in stages]
    first, *rest = apps = [import_module(module).create(started, database) for module in modules]
    for app in rest:
        first.tell_also(app)
    spare_what_stays()
    _Worker(apps, database, ready_file=ready_file, loop=loop).execute_from_commandline()
