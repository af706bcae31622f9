"""Jobs taken through quota, generation and projection without a broker, for tests that look at the database after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from consumers.projection.handlers import Projection
from consumers.quota.admission import Admissions
from consumers.quota.settlement import Settlements
from infra.postgres import Database
from streams.jobs.events import JobEvent, JobId, JobRejected, JobRequested, TerminalFact
from streams.jobs.outcomes import complete_runs, decide_outcome
from tests.integration.quota_scene import ManualClock, completed, facts, failed, request

_ATTEMPT = """
INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, finished_at)
VALUES ($1, $2, 1, gen_random_uuid(), $3, now(), now())
"""
_ACTIVITIES = """
INSERT INTO customized_activities (job_id, run, position, title)
SELECT $1, $2, position, 'Puzzle ' || position FROM generate_series(1, 3) AS position
ON CONFLICT (job_id, position) DO UPDATE SET run = excluded.run
"""
_ACCEPTED = "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, $2, $3, $4)"


@dataclass
class Pipeline:
    """The stages' handlers on one database."""

    database: Database
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.admissions = Admissions(self.database, self.clock, trust_threshold=0.5)
        self.settlements = Settlements(self.database, self.clock)
        self.projection = Projection(self.database)

    async def accept(self, organization_id: str = "acme", *, job_id: JobId | None = None, run: int = 1) -> JobRequested:
        """Take a request in, admit it and archive it: a live run."""
        event = request(organization_id, job_id=job_id, run=run)
        async with self.database.transaction() as connection:
            if run == 1:
                content = event.model_dump(mode="json")
                await connection.execute(_ACCEPTED, event.job_id, organization_id, event.data.team_id, content)
        await self.admissions.admit([event])
        await self.projection.project([event])
        return event

    async def complete(self, event: JobRequested | None = None) -> JobRequested:
        """Save activities and let everybody know."""
        event = event or await self.accept()
        async with self.database.transaction() as connection:
            await connection.execute(_ATTEMPT, event.job_id, event.run, "saved")
            assert await complete_runs(connection, [(event.job_id, event.run)])
            await connection.execute(_ACTIVITIES, event.job_id, event.run)
        return await self._tell(completed(event), event)

    async def fail(self, event: JobRequested | None = None) -> JobRequested:
        """Give the run up and let everybody know."""
        event = event or await self.accept()
        async with self.database.transaction() as connection:
            await connection.execute(_ATTEMPT, event.job_id, event.run, "failed")
            assert await decide_outcome(connection, event.job_id, event.run, "failed") == "failed"
        return await self._tell(failed(event), event)

    async def refuse(self, event: JobRequested) -> None:
        """Tell that admission refused the run, as it says when it is asked again."""
        (told,) = facts(await self.admissions.admit([event]))
        assert isinstance(told, JobRejected)
        await self._tell(told, event)

    async def _tell(self, fact: TerminalFact, event: JobRequested) -> JobRequested:
        await self.settlements.settle([fact])
        await self.project(fact)
        return event

    async def project(self, *events: JobEvent) -> None:
        """Archive and fold."""
        await self.projection.project(events)


@asynccontextmanager
async def pipeline_on(url: str) -> AsyncIterator[Pipeline]:
    """Open the handlers on a database, with connections of their own."""
    database = Database(url, size=4)
    try:
        yield Pipeline(database)
    finally:
        await database.close()
