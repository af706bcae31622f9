"""Hears of which jobs the projection has news: it tells within its transaction, by `NOTIFY`.

`LISTEN` needs a connection of its own, which a pooler in transaction mode does not give, and which breaks now and then.
Whoever is woken by this therefore also looks by itself, seldom while `is_up` and often while not.
Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import asyncpg
import structlog

from infra.errors import DependencyDown
from infra.postgres import Database, behind_pooler

log = structlog.get_logger(__name__)

CHANNEL: Final = "teamfit_jobs"
GOES_ON: Final = "+"
"""Stands behind the ID of a job that has not ended: who waits for its end need not wake."""
# A payload is shorter than 8,000 bytes, and a job ID with its mark and comma takes 38.
JOBS_IN_A_PAYLOAD: Final = 200
_AGAIN_S = 5.0


class Listener:
    """Calls `heard` with job IDs as soon as a transaction that changed them has committed.

    Those of jobs that have not ended have `GOES_ON` behind them.

    Args:
        database: whose server is listened to, on a connection apart from its pool.
        heard: called with what changed; with nothing when changes may have been missed.

    Attributes:
        is_up: whether changes are heard now.
    """

    def __init__(self, database: Database, heard: Callable[[Collection[str]], None]) -> None:
        self._database = database
        self._heard = heard
        self.is_up = False

    async def run(self) -> None:
        """Listen until cancelled; connect again when the connection breaks. Ends behind a pooler."""
        while True:
            try:
                connection = await self._database.connect_apart()
                try:
                    if await behind_pooler(connection):
                        log.info("listener.pooler_found", consequence="changes are looked for, and not heard of")
                        return
                    await self._listen(connection)
                finally:
                    self.is_up = False
                    connection.terminate()
            except (DependencyDown, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.info("listener.disconnected", why=f"{type(error).__name__}: {error}")
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        broken = asyncio.Event()
        connection.add_termination_listener(lambda _connection: broken.set())
        await connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, payload: self._tell(payload))
        self.is_up = True
        # What was told before now was not heard.
        self._heard(())
        await broken.wait()

    def _tell(self, payload: object) -> None:
        self._heard(str(payload).split(","))
