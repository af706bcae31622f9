"""One leader among the workers of an app, for `@app.timer(on_leader=True)` and `@app.crontab(on_leader=True)`.

Faust calls a worker the leader when its assignment holds the leader partition. On Kafka the broker assigns it; here a
lock with a time-to-live does. A worker counts itself the leader only until shortly before its lock would expire,
measured on its own clock from before it asked: so it knows that it lost the lock before another can have it.

Where no topic stands for being the leader, and no entry is to be tried, no leader is needed and the lock is left alone.

The lock is redis-py's, and its scripts are run as all others here are. redis-py asks the server for the digest of a
script that it loads, and goes by the answer from then on in the whole process: a proxy that answers something else once
would end every later election (`AsyncScript.__call__`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import monotonic
from typing import Literal

from redis.asyncio.lock import Lock
from redis.exceptions import LockError, LockNotOwnedError

from .health import Health
from .loop import Loop
from .server import Client, run_text_by

__all__ = ["Leader", "LeaderLock"]

log = logging.getLogger(__name__)


class LeaderLock(Lock):
    """A lock with a time-to-live, which one client at a time holds by its token."""

    def __init__(self, client: Client, name: str, ttl_s: float) -> None:
        super().__init__(client, name, timeout=ttl_s, blocking=False, thread_local=False)
        self._key = name
        self._ttl_ms = int(ttl_s * 1000)

    def register_scripts(self) -> None:
        """Register nothing: a script that the server does not know is sent whole."""

    async def do_release(self, expected_token: bytes) -> None:
        """Give the lock back. Raises LockNotOwnedError when another has it, or none."""
        if not await self._run(self.LUA_RELEASE_SCRIPT, expected_token):
            raise LockNotOwnedError("Cannot release a lock that's no longer owned")

    async def do_reacquire(self) -> Literal[True]:
        """Let the time-to-live begin anew. Raises LockNotOwnedError when another has the lock, or none."""
        if not await self._run(self.LUA_REACQUIRE_SCRIPT, self.local.token, self._ttl_ms):
            raise LockNotOwnedError("Cannot reacquire a lock that's no longer owned")
        return True

    async def _run(self, text: str, *args: bytes | int) -> object:
        return await run_text_by(self.redis.execute_command, text, self._key, *args)


_NEVER = -1  # what PTTL says of a key that does not expire


class Leader:
    """This worker's claim to be the leader."""

    def __init__(
        self,
        client: Client,
        name: str,
        ttl_s: float,
        health: Health,
        needed: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._client = client
        self._lock = LeaderLock(client, name, ttl_s)
        self._ttl_s = ttl_s
        self._loop = Loop("leader election", health)
        self._needed = needed
        self._clock = clock
        self._asked_until = 0.0
        self._awake = asyncio.Event()
        self._until = 0.0
        self._resigned = False

    @property
    def is_leader(self) -> bool:
        """Return whether this worker is the leader at this moment."""
        return self._clock() < self._until

    def ask(self) -> bool:
        """Return whether this worker is the leader. For some time from now on it tries to be, needed or not."""
        if self._clock() >= self._asked_until:
            self.wake()
        self._asked_until = self._clock() + self._ttl_s
        return self.is_leader

    def wake(self) -> None:
        """Try now: the lock may have been given back, or somebody needs a leader."""
        self._awake.set()

    async def run(self) -> None:
        """Get the lock or keep it while it is needed, until cancelled or resigned."""
        while not self._resigned:
            self._awake.clear()
            with self._loop:
                if self._needed() or self._clock() < self._asked_until:
                    await self._round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._loop.wait_s(normally=self._ttl_s / 4)):
                    await self._awake.wait()

    async def _round(self) -> None:
        asked = self._clock()
        was_leader = self.is_leader
        if self._lock.local.token is not None:
            try:
                await self._lock.reacquire()
            except LockError:
                self._lock.local.token = None
                self._until = 0.0
        if self._lock.local.token is None and not await self._lock.acquire(blocking=False):
            await self._shorten()
            return
        if self._resigned:  # meanwhile; the lock is not kept from the others
            await self.resign()
            return
        # A tenth less than the server's time-to-live covers the difference between two clocks' speeds.
        self._until = asked + self._ttl_s * 0.9
        if not was_leader:
            log.info("leader.elected lock=%s", self._lock.name)

    async def _shorten(self) -> None:
        """See that the lock does not outlive its leader by more than its time-to-live.

        The server keeps the moment at which it expires. If the server's clock is set back, that moment is as much
        further away, and with a leader that died just then there would be none until it comes. A lock without such a
        moment, which no leader writes, would be there for ever.
        """
        ttl_ms = int(self._ttl_s * 1000)
        left_ms = await self._client.pttl(self._lock.name)
        if left_ms > ttl_ms or left_ms == _NEVER:
            await self._client.pexpire(self._lock.name, ttl_ms)

    async def resign(self) -> bool:
        """Give the lock back for good, so that another worker leads at once. Returns whether this one led."""
        led = self.is_leader
        self._resigned = True
        self._until = 0.0
        if self._lock.local.token is not None:
            with contextlib.suppress(Exception):  # whatever goes wrong, the lock expires by itself
                await self._lock.release()
        return led
