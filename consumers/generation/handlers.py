"""The generation stage turns one accepted job into activities or a failure. Neither Faust nor redis is known here.

A run takes four steps: begin an attempt, say that it started, call the LLM, save. The first and the last share their
transactions with whatever other jobs are in flight, so that hundreds of jobs cost a few round trips.

If the process dies
- before the attempt is committed: nothing has happened, and the entry is delivered again;
- before the call was sent: the same, but that the attempt counts as maybe billed, as it is not known how far it came;
- during the call, or before the answer is saved: the broker delivers the entry again when its lease is over; that takes
  the run over, and makes the call once more. Other entries of the run wait until that attempt has ended;
- after the save: the next delivery finds the run completed, and gives its fact again without a call;
- before a postponed entry is kept in `scheduled_events`: it is delivered and postponed again. After: it comes once more
  than needed, and finds the run under way or ended.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, TypeAlias

import structlog

from consumers.generation.answer import Completion
from consumers.generation.line import Line
from consumers.generation.llm_errors import LlmFailure
from consumers.generation.pace import Taken
from consumers.generation.progress import Progress
from consumers.generation.prompt import Team, user_message
from consumers.generation.route import Route
from consumers.generation.runs import (
    Attempt,
    Capped,
    Ended,
    Failure,
    NotItsTurn,
    Saved,
    Unaffordable,
    UnderWay,
    refusal,
)
from infra import telemetry, tracing
from infra.clock import Clock
from infra.errors import DependencyDown, Permanent, Postponed
from infra.postgres import Database
from infra.settings import Settings
from streams.delivery.deliveries import Delivery, Record
from streams.delivery.interfaces import Publisher
from streams.delivery.policy import error_code
from streams.delivery.traces import Trace
from streams.jobs.completion import job_completed
from streams.jobs.events import JobAccepted, JobCompleted, JobId, JobStarted, Started
from streams.jobs.facts import fact_after
from streams.jobs.outcomes import fail_run
from streams.jobs.ownership import Ownership
from streams.jobs.topics import JOB_EVENTS, record

log = structlog.get_logger(__name__)

# A run, and the entry for which it is attempted: two entries of one run do not share an attempt.
_Turn: TypeAlias = tuple[JobId, int, str | None]

# An attempt that ends within the same moment need not be looked for twice.
_SHORTEST_WAIT: Final = timedelta(seconds=1)


class Generation:
    """The stage's handlers.

    Args:
        route: the endpoints, with what is known of them.
        publisher: for the facts that go out before the job is done, JobStarted and JobProgressed.
    """

    def __init__(
        self, *, database: Database, route: Route, publisher: Publisher, clock: Clock, settings: Settings
    ) -> None:
        self._database = database
        self._route = route
        self._publisher = publisher
        self._clock = clock
        self._settings = settings
        self._ownership = Ownership(database, timeout=timedelta(seconds=settings.stage_timeout_s))
        self._turns = _Turns()
        # Answers that are paid for but could not be saved, because Postgres went away. The stage takes such a delivery
        # again when Postgres is back, and need not pay again.
        self._unsaved: dict[_Turn, tuple[Line, Attempt, Completion]] = {}

    async def handle(self, event: JobAccepted, delivery: Delivery) -> Sequence[Record]:
        """Generate a job's activities, save them, and return the JobCompleted that follows.

        A run that is completed already gives the same JobCompleted again, and no call is made. One that another attempt
        took over meanwhile, or that ended in another way, gives nothing.

        Raises:
            ForgedEvent: the event must not be believed.
            Postponed: an attempt for another entry of this run is under way and may be alive; or calls under way hold
                what is left of the organization's budget.
            Transient: the LLM gave nothing useful this time.
            Permanent: it never will for this job, or the job has spent its cap, or the organization its budget; or the
                run was given up before, and has to be given up again, as the facts that say so may not have gone out.
            DependencyDown: Postgres, the broker or the LLM is away; or the LLM is not configured as it needs, or takes
                no calls for a while.
        """
        tracing.waited(event.time, "for a slot")
        await self._ownership.check(event)
        turn = (event.job_id, event.run, delivery.entry)
        # A worker that lost an entry while it was stalled may get it again itself: it waits for its own first call.
        async with self._turns.of(turn):
            kept = self._unsaved.pop(turn, None)
            if kept is not None and (facts := await self._saved(turn, event, *kept)):
                return facts
            return await self._route.call(event, lambda line: self._generate(line, turn, event))

    async def give_up(self, event: JobAccepted, _delivery: Delivery, error: Exception) -> Sequence[Record]:
        """Fail the run and return the JobFailed that follows. Nothing is returned if it had ended in another way.

        Nothing follows from an event that must not be believed either: what failed may be that check.

        Raises:
            DependencyDown: Postgres is away.
        """
        if not await self._ownership.allows(event):
            return ()
        await self._route.give_up(event.job_id, event.run, error_code=error_code(error))
        return await fail_run(self._database, self._clock, event, error)

    async def _generate(self, line: Line, turn: _Turn, event: JobAccepted) -> Sequence[Record]:
        """Attempt the run at one endpoint."""
        line.check_known()
        async with line.turn((event.job_id, event.run)) as taken:
            begun = await line.begin((event, turn[2]))
            if isinstance(begun, NotItsTurn):
                return ()
            if isinstance(begun, UnderWay):
                raise _postponed(event, begun)
            if isinstance(begun, Capped):
                raise self._spent(event, begun)
            if isinstance(begun, Unaffordable):
                raise refusal(event, line.settings.model, begun)
            if not isinstance(begun, Attempt):
                return _already_ended(event, begun)
            return await self._saved(turn, event, line, begun, await self._answer(line, event, begun, taken))

    async def _answer(self, line: Line, event: JobAccepted, attempt: Attempt, taken: Taken) -> Completion:
        """Call the LLM once; a failure is on record before it is raised."""
        try:
            prompt = await self._prompt(line, event, attempt)
        except (Permanent, DependencyDown):
            await line.discard(attempt)
            raise
        progress = Progress(self._publisher, event, attempt, self._clock)
        try:
            completion = await line.complete(attempt.key, prompt, taken, progress.tell)
        except LlmFailure as failure:
            line.gate.close(failure.closed_for, failure.code)
            if failure.sent:
                await line.fail(Failure(attempt, failure.code, failure.usage, failure.maybe_billed))
            else:
                await line.discard(attempt)
            line.gate.check()
            raise failure.error from failure
        finally:
            await progress.end()
        line.gate.close(completion.closed_for, "limit_used_up")
        return completion

    async def _prompt(self, line: Line, event: JobAccepted, attempt: Attempt) -> str:
        """Return the prompt, once all is ready for the call; what fails here has cost nothing."""
        team = _team(event, attempt)
        # Before the call, so that a broker that is away costs nothing.
        await self._publisher.publish((record(JOB_EVENTS, self._started(event, attempt)),))
        # Either may have changed since the attempt began.
        line.check()
        return user_message(event.data.requirements, team, materials_token_budget=self._settings.materials_token_budget)

    def _spent(self, event: JobAccepted, capped: Capped) -> Permanent:
        return Permanent(
            "spend_cap_reached",
            f"job {event.job_id} has used {capped.spent} tokens of {self._settings.max_tokens_per_job} "
            "(TEAMFIT_MAX_TOKENS_PER_JOB)",
        )

    async def _saved(
        self, turn: _Turn, event: JobAccepted, line: Line, attempt: Attempt, completion: Completion
    ) -> Sequence[Record]:
        """Save an answer and return the fact that follows, or nothing if the attempt no longer holds its run."""
        try:
            saved = await line.save(attempt, completion)
        except DependencyDown:
            self._unsaved[turn] = line, attempt, completion
            raise
        except TimeoutError as error:
            self._unsaved[turn] = line, attempt, completion
            raise DependencyDown("postgres", "Postgres did not save an answer in time") from error
        if saved is None:
            log.warning("generation.superseded", job_id=str(event.job_id), run=event.run, attempt=attempt.number)
            return ()
        telemetry.JOBS.labels("completed").inc()
        log.info("job.completed", job_id=str(event.job_id), run=event.run, model=saved.usage.model)
        return (record(JOB_EVENTS, _completed(event, saved)),)

    def _started(self, event: JobAccepted, attempt: Attempt) -> JobStarted:
        data = Started(organization_id=event.data.organization_id, attempt=attempt.number)
        return fact_after(event, JobStarted, data, at=self._clock.now())


def _postponed(event: JobAccepted, under_way: UnderWay) -> Postponed:
    # Until the attempt's time is over, and no sooner: this entry has nothing to add while the other one is handled.
    message = f"job {event.job_id} run {event.run} is under way for another entry; this one waits until it has ended"
    return Postponed(message, delay=max(under_way.wait, _SHORTEST_WAIT))


def _team(event: JobAccepted, attempt: Attempt) -> Team:
    if attempt.team is None:
        message = f"organization {event.data.organization_id} has no team {event.data.team_id}"
        raise Permanent("team_not_found", message)
    return attempt.team


def _completed(event: JobAccepted, saved: Saved) -> JobCompleted:
    return job_completed(
        event.job_id,
        event.run,
        organization_id=event.data.organization_id,
        usage=saved.usage,
        at=saved.at,
        trace=Trace(event.traceparent, event.tracestate),
    )


def _already_ended(event: JobAccepted, ended: Saved | Ended) -> Sequence[Record]:
    if isinstance(ended, Saved):
        return (record(JOB_EVENTS, _completed(event, ended)),)
    if ended.outcome == "failed":
        # The worker that gave it up may have died before its JobFailed and its dead letter went out.
        code = ended.error_code or "internal_error"
        raise Permanent(code, f"the run was given up before: {code}")
    return ()


class _Turns:
    """A lock for each entry that is being handled."""

    def __init__(self) -> None:
        self._locks: dict[_Turn, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: _Turn) -> AsyncIterator[None]:
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
