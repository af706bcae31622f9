"""The quota ledger: one row per run, and the counters that admission locks.

    (none) ──▶ reserved ──▶ charged     the run completed
       │          └───────▶ released    it failed, was cancelled or rejected
       ├─────▶ rejected                 a rule refused it
       └─────▶ released                 it ended before any reservation: nothing may be reserved for it any more

A row moves only along these arrows. Counters move in the same statement, or at least the same transaction, by the rows
that moved.

Locks are taken in one order by everybody: counters by (organization, period), then ledger rows by (job, run), then
`job_outcomes`. Whoever changes a reservation holds the lock on its counter. What was read before a wait may be stale
when the wait is over: then `Overtaken` is raised, and the caller takes its transaction from the start, which now sees
what overtook it.

A counter may be locked for long by somebody else's transaction. Whoever must not wait that long says so
(`limited_wait`, `lock_free_usage`); `counters` says what becomes of those who cannot go on.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import aiosql
import asyncpg

from consumers.quota.decisions import Decision, LedgerState
from infra.errors import TeamfitError
from infra.postgres import Connection, columns
from streams.jobs.admission import Standing
from streams.jobs.events import JobId, JobRequested
from streams.jobs.outcomes import RunOutcome

Run: TypeAlias = tuple[JobId, int]
UsageKey: TypeAlias = tuple[str, str]

_queries = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


class Overtaken(TeamfitError):
    """Another transaction decided one of these runs meanwhile: roll back, and begin again."""


class Locked(TeamfitError):
    """An organization's counter is locked by somebody else's transaction; nothing was written."""


class Unopened(TeamfitError):
    """An organization has no counter for the period yet; nothing was written."""


@contextmanager
def limited_wait(longest: timedelta | None) -> Iterator[None]:
    """Tell a lock that was waited for too long. The transaction's first statement is given the limit.

    It stands within the transaction: to who gave the connection, a lock that is not to be had is an outage.

    Raises:
        Locked: one took longer.
    """
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise Locked(f"a counter in quota_usage was locked for longer than {longest}; see pg_locks") from error


async def standings(
    connection: Connection, requests: Sequence[JobRequested], period: str, wait: timedelta | None
) -> list[Standing]:
    """Read what the backend knows about each request; in their order, with the period's spending.

    From here on the transaction's statements wait so long for a lock at most; with None there is no limit.
    """
    whose = columns(requests, organization_ids="data.organization_id", team_ids="data.team_id")
    rows = _queries.standings(connection, **whose, period=period, longest_wait=_milliseconds(wait))
    return [Standing(**row) async for row in rows]


async def usage(connection: Connection, organization_ids: Collection[str], period: str) -> dict[str, int]:
    """Lock these organizations' counters and return the units taken of each.

    Raises:
        Unopened: one is missing. Made now, it would be locked after others, out of the order that all keep: roll back.
    """
    if not organization_ids:
        return {}
    used = await lock_usage(connection, [(organization_id, period) for organization_id in organization_ids])
    if len(used) < len(organization_ids):
        raise Unopened(f"{len(organization_ids) - len(used)} organizations have no counter for {period} yet")
    return {organization_id: units for (organization_id, _), units in used.items()}


async def open_usage(connection: Connection, organization_ids: Collection[str], period: str) -> dict[str, int]:
    """Lock these organizations' counters and return the units taken of each. Missing counters are made."""
    if not organization_ids:
        return {}
    await _queries.open_usage(connection, organization_ids=sorted(organization_ids), period=period)
    used = await lock_usage(connection, [(organization_id, period) for organization_id in organization_ids])
    return {organization_id: units for (organization_id, _), units in used.items()}


async def open_free_usage(connection: Connection, organization_ids: Collection[str], period: str) -> dict[str, int]:
    """Lock the free counters of these organizations. Missing counters are made."""
    if not organization_ids:
        return {}
    await _queries.open_usage(connection, organization_ids=sorted(organization_ids), period=period)
    return await free_usage(connection, organization_ids, period)


async def free_usage(connection: Connection, organization_ids: Collection[str], period: str) -> dict[str, int]:
    """Lock the free counters of these organizations, as `lock_free_usage` does.

    A counter that does not exist is left out.
    """
    used = await lock_free_usage(connection, [(organization_id, period) for organization_id in organization_ids])
    return {organization_id: units for (organization_id, _), units in used.items()}


async def lock_usage(connection: Connection, keys: Iterable[UsageKey]) -> dict[UsageKey, int]:
    """Lock counters until the transaction ends; return the units taken of each that exists."""
    return await _units(_queries.lock_usage(connection, **_columns(keys)))


async def lock_free_usage(connection: Connection, keys: Iterable[UsageKey]) -> dict[UsageKey, int]:
    """Lock the counters that are free, and return the units taken of each.

    They stay locked until the transaction ends.
    """
    return await _units(_queries.lock_free_usage(connection, **_columns(keys)))


def _columns(keys: Iterable[UsageKey]) -> dict[str, list[str]]:
    wanted = list(keys)
    return {"organization_ids": [key[0] for key in wanted], "periods": [key[1] for key in wanted]}


async def _units(rows: AsyncIterator[asyncpg.Record]) -> dict[UsageKey, int]:
    return {(row["organization_id"], row["period"]): row["used"] async for row in rows}


def _milliseconds(wait: timedelta | None) -> str | None:
    return None if wait is None else f"{wait / timedelta(milliseconds=1):.0f}"


async def decisions(connection: Connection, job_ids: Collection[JobId], wait: timedelta | None) -> dict[Run, Decision]:
    """Read every decision about these jobs, of any run.

    It limits the wait for locks as `standings` does.
    """
    rows = _queries.decisions(connection, job_ids=list(job_ids), longest_wait=_milliseconds(wait))
    return {(row["job_id"], row["run"]): Decision(**row) async for row in rows if row["job_id"] is not None}


async def on_record(
    connection: Connection, job_ids: Collection[JobId]
) -> tuple[dict[Run, Decision], dict[Run, RunOutcome]]:
    """Read the decisions about these jobs' runs, and how those that have ended did."""
    known: dict[Run, Decision] = {}
    ended: dict[Run, RunOutcome] = {}
    async for row in _queries.on_record(connection, job_ids=list(job_ids)):
        entry = dict(row)
        run, outcome = (row["job_id"], row["run"]), entry.pop("outcome")
        if outcome is not None:
            ended[run] = outcome
        if row["state"] is not None:
            known[run] = Decision(**entry)
    return known, ended


async def outcomes(connection: Connection, job_ids: Collection[JobId]) -> dict[Run, RunOutcome]:
    """Read how the runs of these jobs ended, where they have."""
    rows = _queries.outcomes(connection, job_ids=list(job_ids))
    return {(row["job_id"], row["run"]): row["outcome"] async for row in rows}


async def enter(connection: Connection, entries: Collection[Decision], *, at: datetime) -> None:
    """Write first decisions, and count the reservations among them; their counters must be locked.

    Raises:
        Overtaken: one of the runs has a decision.
    """
    if not entries:
        return
    ordered = sorted(entries, key=lambda entry: (entry.job_id, entry.run))
    inserted = await _queries.insert_decisions(
        connection,
        **columns(
            ordered,
            job_ids="job_id",
            runs="run",
            organization_ids="organization_id",
            periods="period",
            states="state",
            codes="code",
            messages="message",
            priorities="priority",
        ),
        at=at,
    )
    if inserted != len(ordered):
        raise Overtaken(f"{len(ordered) - inserted} of {len(ordered)} runs were decided by another worker meanwhile")


async def settle(connection: Connection, ended: Mapping[Run, LedgerState], *, at: datetime) -> None:
    """Charge or release reservations whose counters are locked. Runs that hold none are left as they are."""
    await _queries.settle(
        connection,
        job_ids=[job_id for job_id, _ in ended],
        runs=[run for _, run in ended],
        states=list(ended.values()),
        at=at,
    )
