"""The stages' own handlers on a real Postgres, and a broker in memory that hands over record by record or loses all."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import uuid4

from consumers.generation.activities import Activities
from consumers.generation.answer import Completion
from consumers.generation.attempts import Attempts
from consumers.generation.gate import Gate
from consumers.generation.handlers import _completed
from consumers.generation.runs import Attempt, Saved
from consumers.projection.handlers import Events, Projection
from consumers.quota.admission import Admissions
from consumers.quota.cancellation import Cancellations
from consumers.quota.delays import Delays
from consumers.quota.handlers import Facts, Requests
from infra.postgres import Database
from infra.settings import Settings
from producers.reconcile.reconciler import Reconciler
from streams.delivery.deliveries import Delivery, Record
from streams.jobs.completion import Usage
from streams.jobs.dispatch import Dispatcher
from streams.jobs.events import JobAccepted, JobCancelRequested, JobId, JobRequested
from streams.jobs.facts import job_requested
from streams.jobs.stages import CONSUMER_GROUPS
from streams.jobs.topics import JOB_EVENTS, read_event, record
from tests.conftest import Pool

THRESHOLD = timedelta(minutes=10)
EXPIRY = timedelta(hours=24)

_ACTIVITY = {
    "title": "Knots",
    "description": "Untie them together.",
    "duration_minutes": 30,
    "group_size": {"min": 2, "max": 8},
    "materials": [],
    "steps": ["Tie", "Untie"],
    "objective": "Trust",
}
_ANSWER = Completion(Activities.model_validate({"activities": [_ACTIVITY] * 3}), Usage("m", 10, 20))


@dataclass
class MovingClock:
    """The real time, since rows carry Postgres's own, moved on by what the test skips; steps are no time."""

    skipped: timedelta = field(default=timedelta())
    stepped: timedelta = field(default=timedelta())

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skipped + self.stepped

    def seconds(self) -> float:
        """The same time by a clock that nobody sets."""
        return monotonic() + self.skipped.total_seconds()


@dataclass
class World:
    """Everything between a request and its end. `waiting` holds what each group has still to handle."""

    database: Database
    pool: Pool
    clock: MovingClock = field(default_factory=MovingClock)
    waiting: deque[tuple[str, Record]] = field(default_factory=deque)
    calls: int = 0

    def __post_init__(self) -> None:
        settings = Settings(_env_file=None, batch_size=1)
        self.admissions = Admissions(self.database, self.clock, trust_threshold=0.5)
        self.dispatcher = Dispatcher(self.database, self, window=10_000)
        self.cancellations = Cancellations(self.database, self.clock)
        self.delays = Delays(self.database, self.clock)
        self.projection = Projection(self.database)
        self.requests = Requests(self.database, self.clock, settings)
        self.facts = Facts(self.database, self.clock, settings)
        self.events = Events(self.database, settings, lambda: 1)  # none waits for company: steps are one by one
        self.attempts = Attempts(self.database, self.clock, settings, Gate("e"))
        self.reconciler = Reconciler(
            self.database,
            self,
            self.clock,
            threshold=THRESHOLD,
            expiry=EXPIRY,
            attempt_time=timedelta(minutes=2),
            seconds=self.clock.seconds,
        )

    async def publish(self, records: Sequence[Record]) -> None:
        for one in records:
            for group in CONSUMER_GROUPS[one.topic]:
                if Delivery(one.topic, one.key, one.value, one.headers).is_for(group):
                    self.waiting.append((group, one))

    async def step(self, place: int = 0) -> None:
        """Have one group handle one record that waits for it."""
        group, one = self.waiting[place]
        del self.waiting[place]
        delivery = Delivery(one.topic, one.key, one.value, one.headers)
        event = read_event(delivery)
        match group, one.topic, event:
            case "projection", _, _:
                await self.events.handle(event, delivery)
            case "generation", _, JobAccepted():
                await self._generate(event)
            case "quota", "job-events", _:
                await self.facts.handle(event, delivery)
            case "quota", _, JobRequested() | JobCancelRequested():
                await self.publish(await self.requests.handle(event, delivery))
                await self.dispatcher.release(sweep=True)
            case "webhooks", _, _:
                pass  # nobody here wants to be told
            case _:
                raise AssertionError(f"{group} does not handle {one}")

    async def drain(self) -> None:
        while self.waiting:
            await self.step()

    async def reconcile(self, *, after: timedelta = 2 * THRESHOLD) -> int:
        """Let time pass and reconcile; return how many runs were found standing still."""
        self.clock.skipped += after
        return await self.reconciler.reconcile()

    async def _generate(self, event: JobAccepted) -> None:
        [begun] = await self.attempts.begin([(event, None)])
        if isinstance(begun, Attempt):
            self.calls += 1
            [saved] = await self.attempts.save([(begun, _ANSWER)])
        else:
            saved = begun if isinstance(begun, Saved) else None
        if saved is not None:
            await self.publish([record(JOB_EVENTS, _completed(event, saved))])


def asked(*, organization: str = "acme", run_at: datetime | None = None) -> JobRequested:
    """A request for a job of its own."""
    return job_requested(
        job_id=JobId(uuid4()),
        organization_id=organization,
        team_id=f"{organization}-team",
        requirements="a quiet hour",
        at=datetime.now(UTC),
        run_at=run_at,
    )


async def record_intake(pool: Pool, event: JobRequested) -> None:
    """What the HTTP intake has committed when its caller hears 202."""
    await pool.execute(
        "INSERT INTO job_requests (job_id, organization_id, team_id, event) VALUES ($1, $2, $3, $4::jsonb)",
        *(event.job_id, event.data.organization_id, event.data.team_id, event.encode().decode()),
    )


async def status_of(pool: Pool, event: JobRequested) -> tuple[str, str | None] | None:
    """The status and error code that the read model shows."""
    row = await pool.fetchrow("SELECT status, error_code FROM customization_jobs WHERE job_id = $1", event.job_id)
    return None if row is None else (row["status"], row["error_code"])


async def ledger_state(pool: Pool, event: JobRequested) -> str | None:
    """The state of the job's first run in the ledger, and the counters proven equal to the ledger."""
    counters = await pool.fetchrow("SELECT sum(reserved) AS reserved, sum(charged) AS charged FROM quota_usage")
    rows = await pool.fetchrow(
        "SELECT count(*) FILTER (WHERE state = 'reserved') AS reserved, "
        "count(*) FILTER (WHERE state = 'charged') AS charged FROM quota_ledger"
    )
    assert counters is not None
    assert rows is not None
    assert (counters["reserved"] or 0, counters["charged"] or 0) == (rows["reserved"], rows["charged"])
    state: str | None = await pool.fetchval(
        "SELECT state FROM quota_ledger WHERE job_id = $1 AND run = $2", event.job_id, event.run
    )
    return state
