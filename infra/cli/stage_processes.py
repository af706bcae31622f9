"""`teamfit worker --processes` loads the code of all stages once, then forks each.

So they share the memory that the code takes. This parent has no thread, event loop or connection, of which a child
would get a part that does not work. It starts again what ends, and hands SIGTERM on. With each child it shares a pair
of sockets: the child says there whether it consumes, each side sees there that the other has ended, however that was,
and a child without its parent ends as by SIGTERM.
"""

import inspect
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import structlog

from infra.database_url import read_database_url
from infra.garbage import spare_what_stays
from infra.settings import Settings
from infra.telemetry import configure_logging
from streams.jobs.faust_app import check_broker_url
from streams.jobs.stages import STAGES

log = structlog.get_logger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_PAUSE_S: Final = 2.0  # between two starts of a stage, as systemd's unit has it
# No supervisor waits then, who would end what does not stop. As long as systemd's unit waits.
_LONGEST_STOP_S: Final = 45.0
# By the signal itself, before it had begun anything: Ctrl-C reaches the children too, and ends one that starts so.
_IN_GOOD_ORDER: Final = {0, -signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT}
_CONSUMES, _STOPS = b"+", b"-"
# Faust loads these when it makes and starts an app: each child would have a copy of its own.
_LOADED_LATE: Final = (
    *("faust.app.router", "faust.assignor.partition_assignor", "faust.fixups.django", "faust.tables.objects"),
    *("faust.tables.sets", "faust.transport.utils", "faust.web.drivers.aiohttp"),
)


class Parent:
    """A child has its end of the pair, and tells the parent by it.

    Attributes:
        fileno: becomes readable when that process has ended, and stays open as long as this one lives.
    """

    def __init__(self, line: socket.socket) -> None:
        """Take over one end of the pair."""
        self.fileno = line.detach()

    def tell(self, consumes: bool) -> None:  # noqa: FBT001 - the one thing that is told
        """Say whether this process consumes. A parent that has ended hears nothing."""
        with suppress(BrokenPipeError):
            os.write(self.fileno, _CONSUMES if consumes else _STOPS)


@dataclass(slots=True)
class _Child:
    """A stage's process."""

    stage: str
    pid: int
    forked_at: float
    consumes: bool = False


def fork_each(stages: Sequence[str], tell: Callable[[bool], None]) -> tuple[str, Parent]:
    """Return in each child its stage and its parent. The parent itself ends here, after its children.

    Its code is 0 after a stop in good order. A stage that ends with an error before it has ever consumed would do so
    again: then all are stopped, and its code is the parent's.

    Args:
        stages: one child for each.
        tell: called with whether all of them consume.

    Raises:
        InvalidSetting: a setting that all children read cannot be used.
    """
    settings = Settings()
    configure_logging(settings.log_format, settings.log_level)
    # Said once, and not by each child.
    check_broker_url(settings.broker_url)
    read_database_url(settings.database_url)
    first = settings.worker_port
    for module in (*(one.module for one in STAGES if one.name in stages), *_LOADED_LATE):
        import_module(module)
    # It looks through all modules, and then remembers their files. Venusian asks for each page and agent of an app, so
    # each child would touch every module, and get a copy of it.
    inspect.getmodule(inspect.currentframe())
    spare_what_stays()
    stage, parent = _Forks(stages, tell).run()
    if first is not None:
        os.environ[Settings.variable("worker_port")] = str(first + stages.index(stage))
    return stage, parent


class _Forks:
    """The parent's work: it forks, and looks after what it has forked."""

    def __init__(self, stages: Sequence[str], tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._due = dict.fromkeys(stages, 0.0)  # when to fork what does not run
        self._children: dict[socket.socket, _Child] = {}
        self._worked: set[str] = set()  # stages that have consumed
        self._stops = False
        self._kill_at = math.inf
        self._code = 0
        # A signal is a byte here: none is lost between a look and the next wait, and none comes between two lines.
        self._wakes, self._waking = socket.socketpair()
        self._waking.settimeout(0)
        signal.set_wakeup_fd(self._waking.fileno())
        self._before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        # A program that ignores the ends of its children passes that on, and the system keeps no code of ours then.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def run(self) -> tuple[str, Parent]:
        """Return in a child; end the parent when no child is left."""
        while self._children or self._due:
            now = time.monotonic()
            for stage in [stage for stage, at in self._due.items() if at <= now]:
                parent = self._begin(stage)
                if parent is not None:
                    return stage, parent
            next_at = min(self._kill_at, *self._due.values(), math.inf)
            wait_s = None if next_at == math.inf else max(0.0, next_at - now)
            for line in select.select([self._wakes, *self._children], [], [], wait_s)[0]:
                if line is self._wakes:
                    self._wakes.recv(64)
                    self._stop()
                else:
                    self._hear(line)
            if time.monotonic() > self._kill_at:
                self._end_all(signal.SIGKILL)
                self._kill_at = math.inf
            consume = [child.consumes for child in self._children.values()]
            self._tell(bool(consume) and all(consume) and not self._due)
        sys.exit(self._code)

    def _begin(self, stage: str) -> Parent | None:
        """Fork a stage, or try again later: without memory or descriptors for one, the others go on."""
        try:
            return self._fork(stage)
        except OSError as error:
            log.warning("worker.not_forked", stage=stage, why=str(error))
            self._due[stage] = time.monotonic() + _PAUSE_S
            return None

    def _fork(self, stage: str) -> Parent | None:
        """Return the parent in the child, None in the parent. Raises OSError: there is no room for another process."""
        ours, theirs = socket.socketpair()
        # The parent would hear of a signal that came to the child before it has let go of the parent's socket.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            raise
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            # While a sibling has the parent's end of a pair, the child at the other does not see the parent end.
            for line in (ours, self._wakes, self._waking, *self._children):
                line.close()
        else:
            theirs.close()
            self._children[ours] = _Child(stage, pid, time.monotonic())
            del self._due[stage]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return Parent(theirs) if pid == 0 else None

    def _hear(self, line: socket.socket) -> None:
        child = self._children[line]
        if told := line.recv(64):
            child.consumes = told.endswith(_CONSUMES)
            if _CONSUMES in told:
                self._worked.add(child.stage)
            return
        line.close()
        del self._children[line]
        code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if self._stops:
            if code not in _IN_GOOD_ORDER:
                log.error("worker.ended", stage=child.stage, how=how)
                self._code = self._code or 1
        elif code > 0 and child.stage not in self._worked:
            log.error("worker.ended", stage=child.stage, how=how, then="all are stopped")
            self._code = code
            self._stop()
            self._kill_at = time.monotonic() + _LONGEST_STOP_S
        else:
            log.warning("worker.ended", stage=child.stage, how=how, then="it is started again")
            self._due[child.stage] = child.forked_at + _PAUSE_S

    def _stop(self) -> None:
        """Have every child finish what it has begun."""
        self._stops = True
        self._due.clear()
        self._end_all(signal.SIGTERM)

    def _end_all(self, how: signal.Signals) -> None:
        for child in self._children.values():
            os.kill(child.pid, how)
