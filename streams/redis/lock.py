"""This module has the lock that the leader holds. It is redis-py's; its scripts are run as all others here are.

redis-py asks the server for the digest of a script that it loads, and goes by the answer from then on in the whole
process. A proxy that answers something else once would end every later election (`AsyncScript.__call__`).
"""

from __future__ import annotations

from typing import Literal

from redis.asyncio.lock import Lock
from redis.exceptions import LockNotOwnedError

from .server import Client, run_text_by

__all__ = ["LeaderLock"]


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
