"""A worker dies between every pair of Redis commands that the transport issues."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.chaos.redis_transport.report import Row, add
from tests.conformance.brokers import RedisBroker, valkey
from tests.waiting import wait_for

pytestmark = pytest.mark.chaos

Client: TypeAlias = Any
SETTINGS = "lease=1s&scan=300ms&drain=5s&block=1s&max_deliveries=4&trim_interval=500ms&retention=1h"
NAMES = {f"event-{number}".encode() for number in range(6)} | {b"expired-0", b"expired-1"}
AT_ONCE = 3
COMMANDS = {"XGROUP CREATE", "XREADGROUP", "XPENDING", "XCLAIM", "XADD", "EVALSHA"}


class Scenario:
    """New entries, expired ones, one that is worn out and one that was deleted, in a database of their own."""

    def __init__(self, broker: RedisBroker, database: int, folder: Path) -> None:
        self._address = f"{broker.address.rsplit('/', 1)[0]}/{database}"
        self._folder = folder
        self.client: Client = Redis.from_url(self._address)

    async def prepare(self) -> None:
        """Write the entries; all but the new ones were left by a consumer that is gone."""
        redis = self.client
        await redis.flushdb()
        await redis.xgroup_create("chaos", "chaos", "0", mkstream=True)
        old = [await redis.xadd("chaos", {"event": name}) for name in ("expired-0", "expired-1", "worn", "deleted")]
        await redis.xreadgroup("chaos", "ghost", {"chaos": ">"})
        for entry_id, count in zip(old, (1, 1, 4, 1), strict=True):
            await redis.xclaim("chaos", "chaos", "ghost", 0, [entry_id], idle=60_000, retrycount=count, justid=True)
        await redis.xdel("chaos", old[-1])
        for name in sorted(name for name in NAMES if name.startswith(b"event")):
            await redis.xadd("chaos", {"event": name})

    @asynccontextmanager
    async def worker(self, crash_before: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process that is gone in the end."""
        environment = {
            **os.environ,
            "CHAOS_BROKER": f"{self._address}?{SETTINGS}",
            "CHAOS_CRASH_BEFORE": crash_before,
            "CHAOS_FOLDER": str(self._folder),
        }
        command = (sys.executable, "-m", "tests.chaos.redis_transport.crash_worker", "worker", "--without-web")
        with (self._folder / "workers.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def finished(self) -> bool:
        """Whether everything is done and nothing is pending."""
        # In this order: what has had its effect may be pending, but nothing is pending before it was handed over.
        if await self.client.smembers("effects") != NAMES:
            return False
        try:
            groups = await self.client.xinfo_groups("chaos")
        except ResponseError:
            return False
        return bool(groups[0]["pending"] == 0)

    async def crashed(self, before: str) -> bool:
        """Run until the worker dies before this command; False if it came to its graceful end."""
        await self.prepare()
        async with self.worker(before) as process:

            async def over() -> bool:
                return process.returncode is not None or await self.finished()

            await wait_for(over, deadline_s=60, what=f"the crash before command {before}, or the end")
            if process.returncode is None:
                # `send_signal` would take the exit code of one that dies just now, from the watcher that waits for it.
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
                async with asyncio.timeout(60):
                    await process.wait()
        assert process.returncode in {0, 9}, (self._folder / "workers.log").read_text()[-5000:]
        return process.returncode == 9

    async def recover(self, before: str) -> None:
        """Another worker finishes everything, and what is promised holds."""
        async with self.worker(""):
            await wait_for(self.finished, deadline_s=60, what=f"recovery from the crash before command {before}")
        forwarded = {fields[b"event"] for _, fields in await self.client.xrange("forwarded")}
        assert forwarded == NAMES
        letters = {fields[b"event"] for _, fields in await self.client.xrange("dead-letters")}
        assert letters == {b"worn"}


async def test_a_crash_before_each_command(tmp_path: Path) -> None:
    """Whatever command a worker dies before, another one finishes: nothing vanishes, nothing stays pending."""
    row = Row("crash before each Redis command", 0, 0, 0, 0, 0)
    numbers = iter(range(1, 10_000))
    passed = asyncio.Event()

    async def crash(scenario: Scenario, before: str) -> bool:
        if not await scenario.crashed(before):
            return False
        await scenario.recover(before)
        row.injected += 1
        row.events += len(NAMES)
        row.duplicate_starts += await scenario.client.llen("starts") - len(NAMES)
        row.duplicate_effects += int(await scenario.client.get("effects-total")) - len(NAMES)
        return True

    async def runner(database: int) -> None:
        scenario = Scenario(broker, database, tmp_path)
        async with scenario.client:
            while not passed.is_set():
                if not await crash(scenario, str(next(numbers))):
                    passed.set()  # it came to its end with fewer commands

    def died_before() -> set[str]:
        return set((tmp_path / "crashes").read_text().splitlines())

    with valkey() as broker:
        await asyncio.gather(*(runner(database) for database in range(1, AT_ONCE + 1)))
        # Commands come in another order each time, so a number may miss a kind of which there are few.
        scenario = Scenario(broker, AT_ONCE + 1, tmp_path)
        async with scenario.client:
            for name in sorted(COMMANDS - died_before()):
                assert await crash(scenario, name), f"{name} was never sent"
    add(row)
    assert died_before() >= COMMANDS
