"""A server that begins to stop lets go of those who wait.

A long poll is answered with what is known, and a stream ends, so that a rollout cuts off none of them: they may wait
for longer than the server does.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Final

import uvicorn

BEFORE_STOP: Final = "before_stop"
"""An app's lifespan has here what the server calls, in the state that it yields."""


class Server(uvicorn.Server):
    """Uvicorn's server, which tells its app before it waits for the requests under way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell, then stop. No connection is taken any more when those who waited go on."""
        tell: Sequence[Callable[[], None]] = self.lifespan.state.get(BEFORE_STOP, ())
        for one in tell:
            one()
        await super().shutdown(sockets)
