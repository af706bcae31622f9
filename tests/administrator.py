"""One connection of a superuser makes and drops databases for all tests of a run."""

import asyncio
from threading import Thread

import asyncpg


class Administrator:
    """A superuser's connection that outlives the tests' event loops.

    To connect for each statement takes as long as the statement, and each test has a database made and dropped.
    """

    def __init__(self, url: str) -> None:
        """Start a thread with a loop of its own; the first statement connects."""
        self._url = url
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def execute(self, *statements: str) -> None:
        """Send statements, each in a transaction of its own."""
        asyncio.run_coroutine_threadsafe(self._execute(*statements), self._loop).result()

    def close(self) -> None:
        """Leave the server."""
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _execute(self, *statements: str) -> None:
        # A test may have ended each connection of the server.
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url)
        for statement in statements:
            await self._connection.execute(statement)

    async def _leave(self) -> None:
        if self._connection is not None:
            await self._connection.close()
