"""A request with a `run_at` waits in `scheduled_events`.

Those written straight into the stream wait as those over HTTP do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from consumers.quota import ledger
from infra.clock import Clock
from infra.postgres import Database
from streams.delivery.scheduled import keep
from streams.jobs.events import JobRequested, due_at
from streams.jobs.topics import JOB_REQUESTS, record


@dataclass(frozen=True, slots=True)
class Delays:
    """Keeps delayed requests until they are due."""

    database: Database
    clock: Clock

    def delayed(self, request: JobRequested) -> bool:
        """Return whether the request is decided later.

        Raises:
            RunAtTooFar: much later than anybody may ask for.
        """
        return due_at(request.data, self.clock.now()) is not None

    async def keep(self, requests: Sequence[JobRequested]) -> Sequence[None]:
        """Keep a batch of delayed requests until each is due. Each is kept once, however often this is repeated.

        When it is due the very same event comes again, and is then decided. One whose run was cancelled meanwhile is
        not kept: there is nothing to wait for.

        Raises:
            DependencyDown: Postgres is away; whether they were kept is unknown.
        """
        async with self.database.transaction() as connection:
            now = self.clock.now()
            ended = await ledger.outcomes(connection, {request.job_id for request in requests})
            for request in requests:
                if (request.job_id, request.run) in ended:
                    continue
                due = request.data.run_at or now
                await keep(connection, record(JOB_REQUESTS, request), now=now, due_at=due, reason="run_at")
        return [None] * len(requests)
