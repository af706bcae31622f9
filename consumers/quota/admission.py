"""Each requested run is admitted or refused. An admitted run has a unit of quota held; a refusal has a stable code."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

import structlog

from consumers.quota import ledger
from consumers.quota.decisions import Decision, decide
from consumers.quota.ledger import Locked, Overtaken, Run, Unopened
from infra import telemetry
from infra.clock import Clock
from infra.errors import InvalidEvent
from infra.postgres import Connection, Database
from streams.delivery.deliveries import Record
from streams.jobs.admission import ineligible, period_of
from streams.jobs.dispatch import enter
from streams.jobs.events import Accepted, JobAccepted, JobId, JobRejected, JobRequested, Rejected
from streams.jobs.facts import fact_after
from streams.jobs.intake_limits import beyond
from streams.jobs.outcomes import RunOutcome, fail_run, reject_runs
from streams.jobs.stages import QUOTA, topic_after
from streams.jobs.topics import JOB_EVENTS, record

log = structlog.get_logger(__name__)

_ADMITTED: Final = topic_after(QUOTA)

# What one request of a batch comes to: the facts that follow (see `told_now`), or why it is no valid request. The
# latter is handed back rather than raised, so that one bad request does not undo its neighbours.
Admission: TypeAlias = Sequence[Record] | InvalidEvent

# For a counter that another transaction is making just now.
_INSTANT: Final = timedelta(milliseconds=50)

# How the counters of a period are locked; those that are not are left out of what it returns.
_Lock: TypeAlias = Callable[[Connection, Collection[str], str], Awaitable[Mapping[str, int]]]


def told_now(facts: Sequence[Record]) -> Sequence[Record]:
    """Return the facts to be published now; an acceptance waits for its turn."""
    return [fact for fact in facts if fact.topic != _ADMITTED]


@dataclass(frozen=True, slots=True)
class Admissions:
    """Decides about requests, in batches.

    Attributes:
        trust_threshold: lowest trust score that may request; higher is stricter.
    """

    database: Database
    clock: Clock
    trust_threshold: float

    async def admit(self, requests: Sequence[JobRequested], wait: timedelta | None = None) -> Sequence[Admission]:
        """Decide a batch in one transaction, and return the result of each request. The number of statements is fixed.

        The first decision about a run stands: a repeat gets the same facts again, byte for byte, as long as the run
        still waits for them. A run that ended meanwhile gets none.

        Args:
            requests: in the stream's order.
            wait: for how long a lock may be waited for; None: for as long as it takes.

        Raises:
            Locked: a lock took longer. Nothing is decided.
            DependencyDown: Postgres is away; whether the decisions were kept is unknown, and asking again is safe.
        """
        try:
            admissions = await self._admit_in_transaction(requests, ledger.usage, wait)
        except Unopened:
            # The first of an organization in a month.
            admissions = await self._admit_in_transaction(requests, ledger.open_usage, wait)
        # With these locks every organization's counter is locked in the end, so nothing is put aside.
        return [one for one in admissions if not isinstance(one, Locked)]

    async def admit_free(self, requests: Sequence[JobRequested]) -> Sequence[Admission | Locked]:
        """Decide what can be decided without waiting for a counter, as `admit` does.

        A request whose organization's counter is locked is handed back as Locked; nothing is written for it. The same
        becomes of one without a counter while somebody else's transaction makes some.
        """
        with suppress(Locked):
            return await self._admit_in_transaction(requests, ledger.open_free_usage, _INSTANT)
        return await self._admit_in_transaction(requests, ledger.free_usage, None)

    async def _admit_in_transaction(
        self, requests: Sequence[JobRequested], lock: _Lock, wait: timedelta | None
    ) -> Sequence[Admission | Locked]:
        while True:
            try:
                async with self.database.transaction() as connection:
                    with ledger.limited_wait(wait):
                        admissions, refused = await self._admit(connection, requests, lock, wait)
            except Overtaken:
                continue
            for decision in refused:
                telemetry.JOBS.labels("rejected").inc()
                log.info(
                    "quota.rejected",
                    job_id=str(decision.job_id),
                    run=decision.run,
                    organization_id=decision.organization_id,
                    code=decision.code,
                )
            return admissions

    async def _admit(
        self, connection: Connection, requests: Sequence[JobRequested], lock: _Lock, wait: timedelta | None
    ) -> tuple[Sequence[Admission | Locked], Sequence[Decision]]:
        """Return what each request comes to, and the decisions that newly refused one."""
        now = self.clock.now()
        job_ids = {request.job_id for request in requests}
        standings = await ledger.standings(connection, requests, period_of(now), wait)
        eligible = {
            request.data.organization_id
            for request, standing in zip(requests, standings, strict=True)
            if ineligible(standing, trust_threshold=self.trust_threshold) is None
        }
        # What follows is read under the lock: another worker's decisions about these organizations are all in it.
        used = await lock(connection, eligible, period_of(now))
        aside = eligible - used.keys()
        known, ended = await ledger.on_record(connection, job_ids)

        owners = {job_id: decision.organization_id for (job_id, _), decision in known.items()}
        undecided = {}
        for request, standing in zip(requests, standings, strict=True):
            run = (request.job_id, request.run)
            if run in known or run in ended or run in undecided or request.data.organization_id in aside:
                continue
            if owners.setdefault(request.job_id, request.data.organization_id) == request.data.organization_id:
                undecided[run] = (request, standing)
        asked = [request for request, _ in undecided.values() if request.data.organization_id in eligible]
        new = decide(
            list(undecided.values()),
            used=used,
            beyond=await beyond(connection, asked),
            trust_threshold=self.trust_threshold,
            at=now,
        )
        await ledger.enter(connection, new, at=now)
        refused = [decision for decision in new if decision.state == "rejected"]
        if refused:
            await reject_runs(connection, sorted((decision.job_id, decision.run) for decision in refused))
            # Somebody may have ended one of them in another way just before; a run has one terminal fact.
            ended = await ledger.outcomes(connection, job_ids)
        known.update({(decision.job_id, decision.run): decision for decision in new})
        admissions = [
            Locked(f"the counter of {request.data.organization_id} is locked")
            if request.data.organization_id in aside
            else _admission(request, owners, known, ended)
            for request in requests
        ]
        accepted = {(fact.key, fact.value): fact for one in admissions if isinstance(one, Sequence) for fact in one}
        await enter(connection, [fact for fact in accepted.values() if fact.topic == _ADMITTED])
        return admissions, [decision for decision in refused if ended[decision.job_id, decision.run] == "rejected"]

    async def give_up(self, request: JobRequested, error: Exception) -> Sequence[Record]:
        """Fail the run of a request that this stage cannot decide; return the JobFailed fact."""
        if isinstance(error, InvalidEvent):
            # The run belongs to another organization, and goes on.
            return ()
        return await fail_run(self.database, self.clock, request, error)


def _admission(
    request: JobRequested,
    owners: Mapping[JobId, str],
    known: Mapping[Run, Decision],
    ended: Mapping[Run, RunOutcome],
) -> Admission:
    if owners.get(request.job_id, request.data.organization_id) != request.data.organization_id:
        return InvalidEvent(
            f"subject: job {request.job_id} belongs to another organization than {request.data.organization_id}; "
            "use a new UUID for each job"
        )
    run = (request.job_id, request.run)
    decision, outcome = known.get(run), ended.get(run)
    if decision is None:
        return ()
    if decision.state == "reserved" and outcome is None:
        return (_accepted(request, decision),)
    if decision.state == "rejected" and outcome == "rejected":
        return (record(JOB_EVENTS, _rejected(request, decision)),)
    return ()


def _accepted(request: JobRequested, decision: Decision) -> Record:
    wish = request.data
    data = Accepted(
        organization_id=wish.organization_id,
        team_id=wish.team_id,
        requirements=wish.requirements,
        priority=decision.priority,
    )
    event = fact_after(request, JobAccepted, data, at=decision.decided_at)
    return record(_ADMITTED, event)


def _rejected(request: JobRequested, decision: Decision) -> JobRejected:
    data = Rejected(
        organization_id=request.data.organization_id,
        code=decision.code or "rejected",
        message=decision.message or "",
    )
    return fact_after(request, JobRejected, data, at=decision.decided_at)
