"""This module ends a read that blocks on the server. Nothing then has to wait for it."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from .server import Client

__all__ = ["Unblock"]


class Unblock:
    """Ends the read that waits on one client's connection, by a command on another's.

    It needs a client with one connection of its own, which a Cluster's client is not.
    """

    def __init__(self, waiting: Client, other: Client) -> None:
        self._waiting = waiting
        self._other = other
        self._client_id: int | None = None

    async def is_possible(self) -> bool:
        """Return whether the next read could be ended. Ask before it begins."""
        if self._client_id is None and isinstance(self._waiting, Redis):
            try:
                self._client_id = int(await self._waiting.execute_command("CLIENT ID"))
            except ResponseError:  # not permitted: stopping then waits for the read to time out
                return False
        return self._client_id is not None

    def forget(self) -> None:
        """The connection may be another one by now."""
        self._client_id = None

    async def end_read(self) -> None:
        """End the read, if it is known how."""
        if self._client_id is not None:
            await self._other.execute_command("CLIENT UNBLOCK", self._client_id)
