"""This runs one stage's Faust app in this process, on uvloop, with our logging."""

import asyncio
import os
from importlib import import_module
from pathlib import Path

import faust
import structlog
import uvloop

from infra.errors import InvalidSetting
from infra.ports import require_free
from infra.telemetry import start_logging
from streams.jobs.stages import STAGES

log = structlog.get_logger(__name__)


class _Worker(faust.Worker):
    """Faust's worker, which says when it consumes, and does not dawdle at its end."""

    def __init__(self, app: faust.App, *, ready_file: Path | None, loop: asyncio.AbstractEventLoop) -> None:
        # Faust's own logging and its spinner would write over ours.
        super().__init__(app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
        self.spinner = None
        self._ready_file = ready_file

    async def on_startup_finished(self) -> None:
        """Say that partitions are assigned and agents run."""
        await super().on_startup_finished()
        log.info("worker.ready", stage=self.app.conf.id)
        if self._ready_file is not None:
            self._ready_file.touch()

    async def on_stop(self) -> None:
        """Say that no more work is taken."""
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        await super().on_stop()

    async def _sentinel_task(self) -> None:
        # mode sleeps a second here for stragglers; the app's own stop has waited for all of ours.
        await asyncio.sleep(0)


def run_stage(stage: str, *, ready_file: Path | None) -> None:
    """Run a stage until a signal stops it. Ends the process: with code 0 after a stop in good order.

    Raises:
        InvalidSetting: one that the stage needs cannot be used.
        PortTaken: another program listens on TEAMFIT_WORKER_PORT.
    """
    started = start_logging()
    if started.worker_port is not None:
        require_free(started.worker_port, "TEAMFIT_WORKER_PORT", host=started.worker_host)
    if ready_file is not None and not os.access(ready_file.parent, os.W_OK):
        raise InvalidSetting("--ready-file", f"{ready_file}: nothing can be written to {ready_file.parent.absolute()}")
    loop = uvloop.new_event_loop()
    # Faust looks the loop up while the app is made.
    asyncio.set_event_loop(loop)
    # Imported by name, so that a worker loads its own stage and nothing else.
    [module] = [one.module for one in STAGES if one.name == stage]
    app: faust.App = import_module(module).create(started)
    _Worker(app, ready_file=ready_file, loop=loop).execute_from_commandline()
