"""Erasing an organization's texts: wishes, activities, reasons, error messages and dead letters.

Rows, times, tokens and the ledger's numbers stay, so bills and `teamfit verify` hold afterwards. Its jobs are gone
through in the order of their IDs, some hundred at a time, so that no statement takes long and everybody sees how far it
is. Those that have not ended are cancelled first, all of them: a worker that holds one finds its run ended and saves
nothing, and no LLM is asked for what is erased.

Each table is erased in a transaction of its own and repeating any of them changes nothing. If the process dies
anywhere, the whole is run again, or from the last job that was told as erased.

A copy in the broker's streams lives until the stream is trimmed; an event that was under way may be archived after the
erasure. So an erasure is run once more when the topics' retention has passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final, Required, TypedDict, Unpack
from uuid import UUID

import aiosql

from infra.actions import Act, acting
from infra.errors import Refused
from infra.operations.plan_applying import Progress
from infra.postgres import Connection, Database
from producers.applying import uninterrupted
from producers.cancellation import Cancellation
from streams.delivery.deliveries import Record
from streams.jobs.cancellations import cancel_runs, cancelled_fact
from streams.jobs.events import JobId

_queries = aiosql.from_path(Path(__file__).with_name("erase.sql"), "asyncpg")

ERASED: Final = "[erased]"  # stands where a text stood; events need one to stay valid
# Few enough to stop within a moment, many enough that the round trips are spread over them.
_AT_ONCE: Final = 500
_ROWS_AT_ONCE: Final = 5_000
_BEFORE_ALL: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Texts:
    """Rows that hold an organization's texts, or held them before they were erased.

    Attributes:
        live: jobs that have not ended; they are cancelled first.
        cancellations: those that came before their job was asked for.
    """

    organization_id: str
    live: Sequence[JobId]
    jobs: int
    events: int
    activities: int
    failed_events: int
    cancellations: int

    @property
    def anything(self) -> bool:
        """Return true if there is a row to look at."""
        counts = (self.jobs, self.events, self.activities, self.failed_events, self.cancellations)
        return bool(self.live) or any(counts)


async def find_texts(database: Database, organization_id: str) -> Texts:
    """Return what an erasure would touch.

    Raises:
        Refused: there is no such organization, nor a job, failed event or early cancellation of it.
        DependencyDown: Postgres is away.
    """
    async with database.transaction() as connection:
        live = [JobId(row["job_id"]) async for row in _queries.live_jobs(connection, organization_id=organization_id)]
        counts = await _queries.counts(connection, organization_id=organization_id)
        exists = await _queries.exists(connection, organization_id=organization_id)
    texts = Texts(organization_id, live, **counts)
    if not texts.anything and not exists:
        raise Refused(
            "organization_not_found",
            f"organization {organization_id}: not known, and neither is a job, failed event or cancellation; check "
            "the ID and DATABASE_URL",
        )
    return texts


class How(TypedDict, total=False):
    """The way in which texts are erased.

    Attributes:
        operator: who does it; discarded failed events say so.
        after: the job up to which all is erased, where an erasure before this one stopped.
        at_most: stop in good order after this long, with jobs left.
        report: told of the progress after each step.
    """

    operator: Required[str]
    after: UUID | None
    at_most: timedelta
    report: Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Erased(Progress):
    """An erasure has come so far.

    Attributes:
        next: the job up to which all is erased, where the time was over; None: everything is. While live jobs are
            cancelled it is before all.
    """

    next: UUID | None = None


async def erase_texts(database: Database, cancellation: Cancellation, texts: Texts, **how: Unpack[How]) -> Erased:
    """Cancel an organization's live jobs and erase its texts, or go on with it.

    Raises:
        DependencyDown: Postgres is away; what was erased stays erased, so run it again.
    """
    after, at_most, report = how.get("after"), how.get("at_most"), how.get("report", _unheard)
    deadline = monotonic() + at_most.total_seconds() if at_most else inf
    organization_id, operator = texts.organization_id, how["operator"]
    async with acting(database, _act(texts, after)) as connection:
        await _queries.erase_early(connection, organization_id=organization_id, erased=ERASED)
        rows = _queries.known_jobs(connection, organization_id=organization_id)
        known = [JobId(row["job_id"]) async for row in rows]
    left = [job_id for job_id in known if after is None or job_id > after]
    report(Progress(len(known), len(left)))
    live = list(texts.live)
    while live:
        some, live = live[:_AT_ONCE], live[_AT_ONCE:]
        await uninterrupted(_cancel_lot(database, cancellation, _Lot(organization_id, operator, some)))
        if monotonic() >= deadline:
            return Erased(len(known), len(left), after or _BEFORE_ALL)
    while left:
        some, left = left[:_AT_ONCE], left[_AT_ONCE:]
        await uninterrupted(_erase_lot(database, cancellation, _Lot(organization_id, operator, some)))
        report(Progress(len(known), len(left)))
        if left and monotonic() >= deadline:
            return Erased(len(known), len(left), some[-1])
    await _erase_rest(database, organization_id, operator)
    return Erased(len(known), 0)


def _unheard(_: Progress) -> None:
    """Drop the progress."""


def _act(texts: Texts, after: UUID | None) -> Act:
    counts = {name: getattr(texts, name) for name in ("jobs", "events", "activities", "failed_events", "cancellations")}
    effects = {**counts, "cancelled": len(texts.live)}
    if after is not None:
        effects["after"] = str(after)
    return Act("erase", f"organization {texts.organization_id}", effects=effects)


@dataclass(frozen=True, slots=True)
class _Lot:
    """Some jobs, whose texts are erased in one go, and by whom."""

    organization_id: str
    operator: str
    job_ids: Sequence[JobId]

    @property
    def owned(self) -> dict[str, object]:
        return {"job_ids": self.job_ids, "organization_id": self.organization_id}

    @property
    def erased(self) -> dict[str, object]:
        return {**self.owned, "erased": ERASED}


async def _erase_lot(database: Database, cancellation: Cancellation, lot: _Lot) -> None:
    """Erase the texts of some jobs, and cancel those that were asked for meanwhile."""
    await _cancel_lot(database, cancellation, lot)
    # Scheduled records go first: what is published from them would bring a text back into the archive.
    for step in (_delete_scheduled, _erase_archive, _erase_records, _erase_failed_events):
        async with database.transaction() as connection:
            await step(connection, lot)


async def _cancel_lot(database: Database, cancellation: Cancellation, lot: _Lot) -> None:
    async with database.transaction() as connection:
        told = await _cancel(connection, lot, database.clock.now())
    await cancellation.tell_of_many(told, organization_id=lot.organization_id)


async def _cancel(connection: Connection, lot: _Lot, now: datetime) -> Sequence[Record]:
    """Cancel those that have not ended; return the facts. Dying before they are told leaves that to the reconciler."""
    whose = lot.organization_id
    rows = _queries.live_of(connection, **lot.owned)
    facts = [cancelled_fact(row["job_id"], row["run"], whose, ERASED, at=now) async for row in rows]
    decided = await cancel_runs(connection, facts, at=now) if facts else {}
    return [end.fact for end in decided.values() if end.outcome == "cancelled" and end.fact is not None]


async def _delete_scheduled(connection: Connection, lot: _Lot) -> None:
    await _queries.delete_scheduled(connection, **lot.owned)


async def _erase_archive(connection: Connection, lot: _Lot) -> None:
    # A rebuild beside this folds the archive, so archive and read model change together.
    await _queries.erase_jobs(connection, **lot.erased)
    await _queries.erase_events(connection, **lot.erased)


async def _erase_records(connection: Connection, lot: _Lot) -> None:
    await _queries.erase_wishes(connection, **lot.owned)
    await _queries.erase_requests(connection, **lot.erased)
    await _queries.erase_outcomes(connection, **lot.erased)
    await _queries.erase_activities(connection, **lot.erased)
    await _queries.erase_line(connection, **lot.erased)


async def _erase_failed_events(connection: Connection, lot: _Lot) -> None:
    ids = [row["id"] async for row in _queries.failed_events_of(connection, **lot.erased)]
    await _queries.erase_failed_events(connection, ids=ids, erased=ERASED, operator=lot.operator)


async def _erase_rest(database: Database, organization_id: str, operator: str) -> None:
    """Erase what belongs to no job: failed events, and what webhooks were sent."""
    for step in (_erase_other_failed_events, _delete_webhooks):
        left = 1
        while left:
            async with database.transaction() as connection:
                left = await step(connection, organization_id, operator)


async def _erase_other_failed_events(connection: Connection, organization_id: str, operator: str) -> int:
    some = {"organization_id": organization_id, "erased": ERASED, "at_once": _ROWS_AT_ONCE}
    ids = [row["id"] async for row in _queries.failed_events_of_no_job(connection, **some)]
    await _queries.erase_failed_events(connection, ids=ids, erased=ERASED, operator=operator)
    return len(ids)


async def _delete_webhooks(connection: Connection, organization_id: str, _operator: str) -> int:
    await _queries.forget_webhooks(connection, organization_id=organization_id)
    return int(await _queries.delete_webhooks(connection, organization_id=organization_id, at_once=_ROWS_AT_ONCE))
