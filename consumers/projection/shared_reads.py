"""Reads of jobs that come while others are under way share a statement.

One for each would take a connection, a round trip and a process of Postgres. Whoever comes alone does not wait: the
first reads go at once, and those that come meanwhile go together when one of them has ended.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from consumers.projection.status import (
    JobStatus,
    find_job,
    find_rows,
    find_standing,
    job_without_row,
    of_row,
    whole_job,
)
from infra.auth import Caller
from infra.errors import DependencyDown, JobNotFound
from infra.postgres import Database

# While one is at Postgres, the answers of the other are sent.
_AT_ONCE: Final = 2
_MOST: Final = 100  # in a statement
_LONGEST_S: Final = 10.0  # as long as a connection is waited for


@dataclass(frozen=True, slots=True)
class _Asked:
    job_id: UUID
    caller: Caller
    row: "asyncio.Future[asyncpg.Record | None]"


class _ReadApart(Exception):
    """A statement for many has failed, maybe for one of them; each is to be read by itself."""


class SharedReads:
    """Reads jobs as their organizations see them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Asked] = []
        self._under_way = 0
        self._reading: set[asyncio.Task[None]] = set()

    async def job(self, job_id: UUID, caller: Caller, *, whole: bool = True) -> JobStatus:
        """Return the caller's job.

        Args:
            job_id: which job.
            caller: who asks.
            whole: with what only a live job has: what it waits for, when it begins, and what is written so far.

        Raises:
            JobNotFound: the caller has no such job.
            DependencyDown: Postgres is away.
        """
        read = self._alone if self._under_way < _AT_ONCE else self._with_others
        job = await read(job_id, caller, whole=whole)
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def _alone(self, job_id: UUID, caller: Caller, *, whole: bool) -> JobStatus | None:
        self._under_way += 1
        try:
            # Not in a transaction: a job that is completed is one statement, and so one round trip.
            async with self._database.connection() as connection:
                return await (find_job if whole else find_standing)(connection, job_id, caller)
        finally:
            self._end()

    async def _with_others(self, job_id: UUID, caller: Caller, *, whole: bool) -> JobStatus | None:
        asked = _Asked(job_id, caller, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        try:
            async with asyncio.timeout(_LONGEST_S):
                row = await asked.row
        except TimeoutError as error:
            raise DependencyDown("postgres", f"no statement of ours has ended in {_LONGEST_S:g} s") from error
        except _ReadApart:
            return await self._alone(job_id, caller, whole=whole)
        folded = None if row is None else of_row(row)
        if folded is not None and (folded.has_ended or not whole):
            return folded
        async with self._database.connection() as connection:
            if whole:
                return await whole_job(connection, job_id, caller, folded)
            return await job_without_row(connection, job_id, caller)

    def _end(self) -> None:
        """End a read; those that came meanwhile go together."""
        self._under_way -= 1
        waiting = [one for one in self._waiting if not one.row.done()]
        asked, self._waiting = waiting[:_MOST], waiting[_MOST:]
        if asked:
            self._under_way += 1
            # It belongs to no one's request.
            reading = asyncio.create_task(self._together(asked), context=Context())
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    async def _together(self, asked: Sequence[_Asked]) -> None:
        rows: Mapping[int, asyncpg.Record] = {}
        failure: Exception | None = None
        try:
            async with self._database.connection() as connection:
                rows = await find_rows(connection, [(one.job_id, one.caller) for one in asked])
        except Exception as error:  # noqa: BLE001 - it is told to each of them
            failure = error
        finally:
            self._end()
        for place, one in enumerate(asked):
            if one.row.done():
                continue  # its client has gone, or has waited for too long
            if failure is None:
                one.row.set_result(rows.get(place))
            else:
                one.row.set_exception(_told(failure))


def _told(failure: Exception) -> Exception:
    """Return an outage for one of those who asked; another failure may be about the row of one of them alone."""
    if isinstance(failure, DependencyDown):
        return DependencyDown(failure.dependency, str(failure))
    return _ReadApart()
