"""Every stage checks an event's ownership before it acts on the event.

Whoever may write to a topic can name any job there. So an event is not believed for its words, but for what is on
record in Postgres, where our own stages commit before they publish:

| event | is believed if |
| --- | --- |
| requested | its organization's request for the job was the first, with this wish; its run follows the last one known |
| cancel-requested | the job is its organization's; before anybody has asked for the job, it is kept until then |
| accepted, started, progressed | the job is its organization's, and quota has entered the run for it |
| completed, failed, rejected, cancelled | the same job, and `job_outcomes` has decided so, in the same words |

Facts also carry the ID that follows from what they say, so that none takes another's place in the archive.

Only a request claims a job: a valid one, of its first run. A job ID that is made from an idempotency key is claimed
only by who names the key. Whatever else speaks of an unknown job, malformed or not, claims nothing and decides nothing,
so it never stands in the way of the request; what its sender reads meanwhile is in `streams.jobs.invalid_requests`.

A first request is also remembered by a digest of its wish. Its repeats are harmless, whatever their own IDs; one with
another wish under the same job ID is a mistake of its sender's, who would wait for it in vain: `JobIdReused`.

What is on record never becomes less: an owner stays, an outcome stays, an entry of the ledger stays. So an event that
was believed may be acted on in a later transaction. What is not believed is a dead letter with nothing that follows
from it, and `teamfit verify` names it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiosql
from pydantic import ValidationError

from infra.errors import ForgedEvent, InvalidEvent, JobIdReused
from infra.postgres import Connection, Database, columns
from streams.delivery.batching import Batcher, Linger
from streams.jobs.events import (
    TERMINAL,
    JobCancelled,
    JobCancelRequested,
    JobEvent,
    JobFailed,
    JobRejected,
    JobRequested,
    Requested,
    kind_of,
)
from streams.jobs.facts import own_fact_id
from streams.jobs.job_ids import digest_of, job_id_for, needs_proof
from streams.jobs.outcomes import RunOutcome

_queries = aiosql.from_path(Path(__file__).with_name("ownership.sql"), "asyncpg")

_LARGEST_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Evidence:
    """The database has this on record about the run of an event.

    Attributes:
        owner: whose the job is; None before its first request.
        entered_for: for whom quota has entered the run in its ledger; `code` and `message` say why it was rejected.
        outcome: how the run ended, and `fact` the event that was kept with it.
        latest_run: the newest run that was entered or has ended; 0 before the first.
        cancelled_before: the owner's cancellation that came before its request.
        wish: the digest of what the owner's first request asked for; None where it is not on record.
        recorded: what the intake accepted for the job; None if it did not, and of an event that asks for nothing.
    """

    owner: str | None
    entered_for: str | None
    code: str | None
    message: str | None
    outcome: RunOutcome | None
    fact: Mapping[str, Any] | None
    latest_run: int
    cancelled_before: Mapping[str, Any] | None
    wish: bytes | None
    recorded: Mapping[str, Any] | None


class Ownership:
    """The check, with what is on record read for many events at once.

    Args:
        database: where it is.
        timeout: longest one look may take.
        linger: how long events wait for company, which they keep in what is done with them then.
    """

    def __init__(self, database: Database, *, timeout: timedelta, linger: Linger[JobEvent] | None = None) -> None:
        self._database = database
        self._batcher: Batcher[JobEvent, Evidence] = Batcher(
            self._read,
            max_size=_LARGEST_BATCH,
            timeout_s=timeout.total_seconds(),
            looks_up=True,
            linger=linger,
        )

    async def check(self, event: JobEvent) -> Evidence:
        """Return what is on record about an event that may be believed. A request claims its job if it has no owner.

        Repeating the call changes nothing. Dying after a claim leaves a job to the organization whose request comes
        again.

        Raises:
            ForgedEvent: it must not be believed; the message says why.
            JobIdReused: it asks for the organization's own job with another wish.
            DependencyDown: Postgres is away.
        """
        evidence = await self._batcher.submit(event)
        if (why := objection(event, evidence)) is not None:
            raise ForgedEvent(why)
        if isinstance(event, JobRequested) and event.run == 1 and _asks_otherwise(event, evidence):
            raise JobIdReused(
                f"subject: job {event.job_id} was asked for before with another wish, which holds; use a new UUID (or "
                "idempotency key) for each job"
            )
        return evidence

    async def allows(self, event: JobEvent) -> bool:
        """Return whether an event may be believed. Raises DependencyDown."""
        try:
            await self.check(event)
        except InvalidEvent:
            return False
        return True

    async def cancels_now(self, event: JobCancelRequested) -> bool:
        """Return whether a cancellation can be decided. Before its job is asked for, it is kept until then.

        It is kept first, and the owner looked for once more: whoever claims the job meanwhile sees the one or is seen
        by the other.

        Raises:
            ForgedEvent: the job is another organization's.
            DependencyDown: Postgres is away.
        """
        if (await self.check(event)).owner is not None:
            return True
        async with self._database.transaction() as connection:
            await _queries.keep_early(
                connection,
                job_id=event.job_id,
                organization_id=event.data.organization_id,
                event=event.model_dump(mode="json", exclude_none=True),
            )
        return (await self.check(event)).owner is not None

    async def _read(self, events: Sequence[JobEvent]) -> Sequence[Evidence]:
        # Not in one transaction: what is on record never becomes less, and a claim that is kept for longer than its own
        # statement has another stage wait that claims the same job.
        async with self._database.connection() as connection:
            await _claim(connection, [event for event in events if isinstance(event, JobRequested)])
            asking = [isinstance(event, JobRequested) for event in events]
            rows = _queries.evidence(connection, **columns(events, job_ids="job_id", runs="run"), asking=asking)
            return [Evidence(**row) async for row in rows]


async def _claim(connection: Connection, requests: Sequence[JobRequested]) -> None:
    claiming = [request for request in requests if _may_claim(request)]
    if claiming:
        whose = columns(claiming, job_ids="job_id", organization_ids="data.organization_id", runs="run")
        # What a replay starts may ask for something else than a first request that no stage could read.
        wishes = [digest_of(request.data) if request.run == 1 else None for request in claiming]
        await _queries.claim(connection, **whose, wishes=wishes)


def _may_claim(request: JobRequested) -> bool:
    if not needs_proof(request.job_id):
        return True
    key = request.idempotencykey
    return key is not None and job_id_for(request.data.organization_id, key) == request.job_id


def _asks_otherwise(request: JobRequested, evidence: Evidence) -> bool:
    """Return whether the job was asked for before with another wish."""
    before = {evidence.wish}
    if evidence.recorded is not None:
        with suppress(ValidationError):  # of an older version with other bounds
            before.add(digest_of(Requested.model_validate(evidence.recorded)))
    return bool(before - {None, digest_of(request.data)})


def early_cancellation(request: JobRequested, evidence: Evidence) -> JobCancelRequested | None:
    """Return the cancellation that came before this request. It counts only while the run has not gone on since."""
    if evidence.cancelled_before is None or evidence.outcome not in {None, "cancelled"}:
        return None
    event = JobCancelRequested.model_validate(evidence.cancelled_before)
    return event if event.run == request.run >= evidence.latest_run else None


def objection(event: JobEvent, evidence: Evidence) -> str | None:
    """Return why an event must not be believed, or None."""
    job_id, organization_id = event.job_id, event.data.organization_id
    if evidence.owner not in {None, organization_id}:
        return (
            f"subject: job {job_id} belongs to another organization than {organization_id}; use a new UUID for each job"
        )
    if not isinstance(event, JobRequested | JobCancelRequested):
        return _objection_to_fact(event, evidence)
    if (evidence.owner is None or isinstance(event, JobRequested)) and event.run > evidence.latest_run + 1:
        return f"run: {event.run} does not follow {evidence.latest_run}, the latest of job {job_id}; leave run out"
    if evidence.owner is not None or isinstance(event, JobCancelRequested):
        return None
    if event.run > 1:
        return f"run: {event.run} of job {job_id} does not follow one of {organization_id}'s own; use a new UUID"
    return (
        f"subject: {job_id} is an ID made from an idempotency key, and idempotencykey does not name it; use a "
        "random UUID, or the Python client"
    )


def _objection_to_fact(event: JobEvent, evidence: Evidence) -> str | None:
    kind = kind_of(event)
    run = f"job {event.job_id} run {event.run}"
    if event.id != own_fact_id(event):
        return f"id: {event.id!r} is not the one that a fact of this kind has; only the stages write facts"
    if not isinstance(event, TERMINAL):
        entered = evidence.entered_for == event.data.organization_id
        return None if entered else f"subject: quota has not entered {run} for {event.data.organization_id}"
    # A replay ends a run that no stage could read before, and that so has no owner; the kept fact says whose it is.
    if evidence.outcome != kind or (evidence.owner is None and evidence.fact is None):
        return f"type: {run} is told as {kind}, and was decided as {evidence.outcome or 'nothing yet'}"
    match event:
        case JobFailed() | JobCancelled() if evidence.fact is not None:
            same = type(event).model_validate(evidence.fact).data == event.data
        case JobRejected() if evidence.code is not None:
            same = (evidence.code, evidence.message or "") == (event.data.code, event.data.message)
        case _:
            same = True
    return None if same else f"data: {run} was decided as {kind} in other words"


def archive_id(event: JobEvent) -> str:
    """Return the ID under which the archive knows an event, unique within its job.

    A sender numbers its events as it likes. An ID of its own that could be that of a fact of ours is kept apart, so
    that it does not take that fact's place.
    """
    ours = own_fact_id(event)
    if event.id == ours or not isinstance(event, JobRequested | JobCancelRequested) or len(event.id) != len(ours):
        return event.id
    return f"sender:{event.id}"
