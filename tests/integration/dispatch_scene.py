"""Runs that wait for their turn, and a broker that remembers what it was given, for the tests of the dispatch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from infra.errors import DependencyDown
from infra.postgres import Database
from streams.delivery.deliveries import Record
from streams.jobs.dispatch import Dispatcher, enter
from streams.jobs.events import Accepted, JobAccepted, JobId, fact_id, parse_event
from streams.jobs.outcomes import RunOutcome, decide_outcome
from streams.jobs.topics import JOB_ACCEPTED, record
from tests.conftest import Pool
from tests.integration.quota_scene import NOON

_ATTEMPT = """
INSERT INTO generation_attempts (job_id, run, attempt, token, state, started_at, finished_at)
SELECT job_id, run, 1, gen_random_uuid(), 'failed', released_at, released_at + $3::interval
FROM dispatch_runs WHERE job_id = $1 AND run = $2
"""


def accepted(organization_id: str = "acme", *, run: int = 1, job_id: JobId | None = None) -> JobAccepted:
    """A run that quota has admitted."""
    job_id = job_id or JobId(uuid4())
    return JobAccepted(
        id=fact_id(job_id, run, "accepted"),
        subject=job_id,
        time=NOON,
        run=run,
        data=Accepted(
            organization_id=organization_id,
            team_id=f"{organization_id}-team",
            requirements="a quiet hour",
            priority=False,
        ),
    )


@dataclass
class Scene:
    """A dispatcher, and what it has published."""

    database: Database
    pool: Pool
    published: list[Record] = field(default_factory=list)
    away: bool = False

    async def publish(self, records: Sequence[Record]) -> None:
        if self.away:
            raise DependencyDown("broker", "away")
        self.published += records

    def dispatcher(self, window: int | None = 100) -> Dispatcher:
        """One more process that dispatches."""
        return Dispatcher(self.database, self, window=window)

    async def enter(self, *events: JobAccepted) -> None:
        """What quota does when it admits runs."""
        async with self.database.transaction() as connection:
            await enter(connection, [record(JOB_ACCEPTED, event) for event in events])

    async def release(self, window: int | None = 100, *, sweep: bool = False) -> list[JobAccepted]:
        """Release what may be released, and return what was published for it."""
        before = len(self.published)
        await self.dispatcher(window).release(sweep=sweep)
        return [event for one in self.published[before:] if isinstance(event := parse_event(one.value), JobAccepted)]

    async def end(self, event: JobAccepted, *, seconds: float | None = 1.0, outcome: RunOutcome = "completed") -> None:
        """End a run, after an attempt of so many seconds, or none."""
        if seconds is not None:
            await self.pool.execute(_ATTEMPT, event.job_id, event.run, timedelta(seconds=seconds))
        async with self.database.transaction() as connection:
            await decide_outcome(connection, event.job_id, event.run, outcome)

    async def states(self) -> dict[str, int]:
        """How many runs are in which state."""
        rows = await self.pool.fetch("SELECT state, count(*) AS runs FROM dispatch_runs GROUP BY state")
        return {row["state"]: row["runs"] for row in rows}

    async def forget_publishing(self) -> None:
        """Let the time pass after which what is not known to be published is published again."""
        await self.pool.execute("UPDATE dispatch_runs SET publish_after = now() WHERE NOT published")


def whose(events: Sequence[JobAccepted]) -> list[str]:
    """The organizations of runs, in their order."""
    return [event.data.organization_id for event in events]
