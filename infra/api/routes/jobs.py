"""Customers read a job's status and its activities over HTTP."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Response
from fastapi.routing import APIRoute

from consumers.projection.changes import Changes
from consumers.projection.shared_reads import SharedReads
from consumers.projection.status import JobStatus, find_job
from infra.api.caller import Authenticated
from infra.api.plain import PlainRoute
from infra.api.problems import TOKEN, responses
from infra.auth import JOBS, Caller
from infra.errors import JobNotFound
from infra.identity import Tokens
from infra.postgres import Database
from infra.uuids import GivenUuid

# Proxies give up on an answer after a minute or so.
LONGEST_WAIT = timedelta(seconds=50)

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?0*(\d+)\"?\s*(?=$|[,;])", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r"(?:W/)?\"?([0-9a-f]{32})(?:[^0-9A-Za-z\"][^\"]*)?\"?", re.IGNORECASE)
# Answers differ by organization, and are asked for again each time.
_CACHE = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The job is as `If-None-Match` has it."}}
_PROBLEMS = (*TOKEN, "job_not_found", "invalid_request", "database_unavailable")

Prefer = Annotated[
    str | None,
    Header(
        description=f"`wait=N`: answer when the job ends (with `If-None-Match`: when it changes), after N seconds at "
        f"the latest, {LONGEST_WAIT.seconds} at most."
    ),
]
IfNoneMatch = Annotated[
    list[str] | None, Header(description="An `ETag` from before: 304 if nothing has changed since.")
]


def create_router(database: Database, tokens: Tokens, changes: Changes) -> APIRouter:
    """Return the routes that read jobs."""
    authenticated = Authenticated(tokens, scope=JOBS)
    reads = SharedReads(database)
    router = APIRouter(prefix="/api/jobs", tags=["jobs"])

    @router.get("/{job_id}", response_model=JobStatus, responses=_NOT_MODIFIED | responses(*_PROBLEMS))
    async def get_job(
        job_id: GivenUuid,
        caller: Annotated[Caller, Depends(authenticated)],
        if_none_match: IfNoneMatch = None,
        prefer: Prefer = None,
    ) -> Response:
        """Return a job's status, its activities when it is completed, its error when it failed.

        A job that was just accepted is `pending`. A job of another organization is as unknown as one that never was.
        """
        headers = dict(_CACHE)
        if not (wait := _wait_of(prefer)):
            answer = _Answer(await reads.job(job_id, caller))
        else:
            headers["Preference-Applied"] = f"wait={wait.seconds}"
            end = asyncio.get_running_loop().time() + wait.seconds
            if if_none_match:
                answer = await _changed(reads, job_id, caller, changes, end, if_none_match)
            else:
                answer = _Answer(await _ended(reads, job_id, caller, changes, end))
        headers["ETag"] = answer.etag
        if answer.matches(if_none_match):
            return Response(status_code=304, headers=headers)
        return Response(answer.body, headers=headers, media_type="application/json")

    return router


def plain_route(usual: APIRouter, tokens: Tokens) -> PlainRoute:
    """Return what answers plain requests for a job before the usual routes are looked at."""
    (route,) = (one for one in usual.routes if isinstance(one, APIRoute))
    return PlainRoute(usual.prefix, Authenticated(tokens, scope=JOBS), route.endpoint)


async def read_job(database: Database, job_id: UUID, caller: Caller) -> JobStatus:
    """Return the caller's job.

    Raises:
        JobNotFound: it has no such job.
    """
    # Not in a transaction: a job that is completed is one statement, and so one round trip.
    async with database.connection() as connection:
        job = await find_job(connection, job_id, caller)
    if job is None:
        raise JobNotFound(job_id)
    return job


async def _changed(
    reads: SharedReads, job_id: UUID, caller: Caller, changes: Changes, end: float, known: Sequence[str]
) -> "_Answer":
    """Return the job when its answer is another one than those that are known, or when the time is over."""
    with changes.of(job_id) as changed:
        while True:
            changed.clear()
            answer = _Answer(await reads.job(job_id, caller))
            if not answer.matches(known) or changes.is_over or not await _set_before(end, changed):
                return answer


async def _ended(reads: SharedReads, job_id: UUID, caller: Caller, changes: Changes, end: float) -> JobStatus:
    """Return the job when it has ended, or when the time is over."""
    with changes.of(job_id, only_end=True) as changed:
        while True:
            changed.clear()
            job = await reads.job(job_id, caller, whole=False)
            if job.has_ended:
                return job
            if changes.is_over or not await _set_before(end, changed):
                return await reads.job(job_id, caller)


class _Answer:
    """A job as it is sent, and the tag that tells one such answer from another."""

    def __init__(self, job: JobStatus) -> None:
        self.body = job.model_dump_json().encode()
        # How many come before it moves all the time, and is no news: then the tag is weak.
        moves = job.waiting_for is not None and job.waiting_for.before is not None
        said = job.model_dump_json(exclude={"waiting_for": {"before"}}).encode() if moves else self.body
        self._tag = hashlib.sha256(said).hexdigest()[:32]
        self.etag = f'W/"{self._tag}"' if moves else f'"{self._tag}"'

    def matches(self, if_none_match: Sequence[str] | None) -> bool:
        """Whether the caller has this answer. Compared weakly, as RFC 9110 asks for `If-None-Match`."""
        tags = [tag for line in if_none_match or () for tag in line.split(",")]
        return any(tag.strip() == "*" or _own_tag(tag) == self._tag for tag in tags)


def _own_tag(tag: str) -> str | None:
    """Return the tag that we sent of what became of it: proxies make it weak, and name their coding in it.

    `W/"…"` (nginx), `"…-gzip"` (Apache), `"…;br"`, `"…--gzip"` (Jetty): it stands for the same answer all the same.
    """
    found = _TAG.fullmatch(tag.strip())
    return found and found.group(1)


async def _set_before(end: float, changed: asyncio.Event) -> bool:
    """Wait for the event until this time of the loop; return whether it was set."""
    try:
        async with asyncio.timeout_at(end):
            return await changed.wait()
    except TimeoutError:
        return False


def _wait_of(prefer: str | None) -> timedelta | None:
    """Return how long the caller would like to wait (RFC 7240), or None. What is not understood is ignored."""
    found = _WAIT.search(prefer or "")
    return min(timedelta(seconds=int(found.group(1)[:6])), LONGEST_WAIT) if found else None
