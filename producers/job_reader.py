"""Upstream services ask the API what became of a job.

    async with asyncio.timeout(60):
        job = await JobReader("https://teamfit.example.com", token).wait(job_id)

Whatever passes by itself is waited for: an API that is away or restarts, a job that the pipeline has not read yet.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ValidationError

from infra.advice import explained
from infra.errors import TeamfitError
from producers.http_get import Answer, ApiAddress, ServerEvents, get

Token: TypeAlias = str | Callable[[], str]

DEFAULT_TIMEOUT: Final = timedelta(minutes=10)
# As long as the API lets a caller wait, and with room for a slow network.
_LONG_POLL_S: Final = 50
_SILENCE_S: Final = 20.0  # the API's streams say something every 15 s
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_PASSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIXES: Final[Mapping[int, str]] = {
    401: "token: give a valid one, or a function that returns one",
    403: "token: it needs the scope jobs",
}


class InvalidApi(TeamfitError, ValueError):
    """`api_url` or `token` cannot be used. The message names it and the fix."""


class ReadRefused(TeamfitError):
    """The API refuses to tell, and asking again would not help. The message says what to mend.

    Attributes:
        status: HTTP's.
        code: the API's own, e.g. ``token_expired``; None if something else has answered.
    """

    def __init__(self, message: str, *, status: int, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class StillRunning(TeamfitError, TimeoutError):
    """The job has not ended in the time that it was given. It goes on; ask again.

    Attributes:
        job: as it was last; None if the API has not told of it.
    """

    def __init__(self, message: str, job: "Job | None") -> None:
        super().__init__(message)
        self.job = job


class Activity(BaseModel):
    """One team-building activity."""

    title: str
    description: str | None = None
    duration_minutes: int | None = None
    group_size: dict[str, int] | None = None
    materials: list[str] | None = None
    steps: list[str] | None = None
    objective: str | None = None


class Job(BaseModel):
    """A job as its organization sees it. Statuses and codes may be added, so both are open."""

    job_id: UUID
    status: str
    organization_id: str | None = None
    team_id: str | None = None
    run: int = 1
    created_at: datetime
    run_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_code: str | None = None
    error_message: str | None = None
    titles_so_far: list[str] = []
    activities: list[Activity] = []

    @property
    def has_ended(self) -> bool:
        """Return whether the job has ended, in any way."""
        return self.status in {"completed", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class JobNews:
    """One event of a job.

    Attributes:
        number: its place in the archive; `follow(…, after=number)` goes on behind it.
        kind: such as ``started``, ``progressed`` and ``completed``; more may be added.
        event: the CloudEvent.
    """

    number: int
    kind: str
    event: Mapping[str, Any]


class _NotYet(Exception):
    """The API does not tell at present."""

    def __init__(self, why: str, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class JobReader:
    """The jobs of one organization, for reading.

    Args:
        api_url: the API's address, with the path under which a proxy serves it.
        token: of the scope `jobs`; or a function that returns one, which is asked before each request.

    Raises:
        InvalidApi: either cannot be used.
    """

    def __init__(self, api_url: str, token: Token) -> None:
        try:
            self._address = ApiAddress.parse(api_url)
        except ValueError as error:
            raise InvalidApi(f"api_url: {error}") from None
        self._token = token
        if isinstance(token, str):
            _header_of(token)

    async def wait(self, job_id: UUID, *, timeout: timedelta = DEFAULT_TIMEOUT) -> Job:  # noqa: ASYNC109 - as `get` of Celery has it
        """Return the job when it has ended, in whichever way; its status says in which.

        Raises:
            StillRunning: it has not in this time.
            ReadRefused: the API will not tell.
        """
        loop = asyncio.get_running_loop()
        patience = _Patience(job_id, timeout, self._address)
        while True:
            wait_s = max(min(_LONG_POLL_S, int(patience.left_s)), 0)
            asked_at = loop.time()
            try:
                async with self._asked(f"/api/jobs/{job_id}", wait_s + _SILENCE_S, {"Prefer": f"wait={wait_s}"}) as got:
                    job = _job_of(await got.read())
            except (OSError, _NotYet) as error:
                await patience.pause(error)
                continue
            if job.has_ended:
                return job
            patience.job = job
            # An API process that stops answers at once; the next one takes the question.
            early = loop.time() - asked_at < wait_s - 1
            await patience.pause(None, None if early or not wait_s else 0.0)

    async def follow(
        self,
        job_id: UUID,
        *,
        after: int = 0,
        timeout: timedelta = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - as above
    ) -> AsyncGenerator[JobNews, None]:
        """Yield each event of the job as it comes, until the job has ended. Lost connections are made anew.

        Args:
            after: the number of the last event that you have seen.
            timeout: the longest time without an event.

        Raises:
            StillRunning: nothing has come for this long.
            ReadRefused: the API will not tell.
        """
        patience = _Patience(job_id, timeout, self._address)
        while True:
            why: Exception | None = None
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            try:
                async with self._asked(f"/api/jobs/{job_id}/events", _SILENCE_S, headers) as answer:
                    if answer.status == 204:  # noqa: PLR2004 - nothing comes any more
                        return
                    stream = ServerEvents(answer.body)
                    async for message in _until(stream, patience):
                        after = int(message.id)
                        yield JobNews(after, message.event, json.loads(message.data))
                        patience.begin_anew()
            except (OSError, _NotYet) as error:
                why = error
            await patience.pause(why)

    @asynccontextmanager
    async def _asked(self, path: str, silence_s: float, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        token = self._token if isinstance(self._token, str) else self._token()
        authorized = {"Authorization": _header_of(token), **headers}
        async with get(self._address, path, authorized, silence_s=silence_s) as answer:
            if answer.status in {200, 204}:
                yield answer
                return
            raise _refusal(answer, await answer.read(), self._address)


class _Patience:
    """How long is still waited, and how long between two questions."""

    def __init__(self, job_id: UUID, timeout: timedelta, address: ApiAddress) -> None:
        self.job: Job | None = None
        self._job_id, self._timeout, self._address = job_id, timeout, address
        self.begin_anew()

    def begin_anew(self) -> None:
        self._end = asyncio.get_running_loop().time() + self._timeout.total_seconds()
        self._pause_s = _FIRST_PAUSE_S

    @property
    def left_s(self) -> float:
        return self._end - asyncio.get_running_loop().time()

    async def pause(self, why: Exception | None, pause_s: float | None = None) -> None:
        """Wait before the next question.

        Raises:
            StillRunning: the time is over.
        """
        if self.left_s <= 0:
            raise self.over(why)
        asked = why.pause_s if isinstance(why, _NotYet) else pause_s
        if asked is None:
            asked = self._pause_s * random.uniform(0.5, 1.0)
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        await asyncio.sleep(min(asked, max(self.left_s, 0)))

    def over(self, why: Exception | None) -> StillRunning:
        known = f"is still {self.job.status}" if self.job is not None else "has not ended, as far as is known,"
        cause = "" if why is None else f": {str(why) or type(why).__name__} ({self._address})"
        seconds = f"{self._timeout.total_seconds():g} s"
        return StillRunning(f"job {self._job_id} {known} after {seconds}{cause}; it goes on, so ask again", self.job)


async def _until(stream: ServerEvents, patience: _Patience) -> AsyncIterator[Any]:
    """Yield the stream's messages; a stream that brings none does not outlive the patience."""
    messages = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(max(patience.left_s, 0.01)):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if patience.left_s <= 0:
                raise patience.over(None) from None
            raise
        yield message


def _job_of(body: bytes) -> Job:
    try:
        return Job.model_validate_json(body)
    except ValidationError as error:
        raise _NotYet(f"what came back is no job: {explained(error, whole='the answer')}") from None


def _header_of(token: str) -> str:
    token = token.strip().removeprefix("Bearer ").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidApi("token: must be a token of the API, one word; `teamfit token --organization ID` makes one")
    return f"Bearer {token}"


def _refusal(answer: Answer, body: bytes, address: ApiAddress) -> Exception:
    """Return what to raise for an answer that tells nothing of the job."""
    problem: Any = None
    if "problem+json" in answer.headers.get("content-type", ""):
        try:
            problem = json.loads(body)
        except ValueError:
            problem = None
    code = problem.get("code") if isinstance(problem, dict) else None
    said = f"{answer.status} {code or ''}".strip()
    detail = f": {problem['detail']}" if isinstance(problem, dict) and problem.get("detail") else ""
    if code == "job_not_found":
        return _NotYet(f"the API knows no such job{detail}; is the token its organization's?")
    if answer.status in _PASSES:
        waits = answer.headers.get("retry-after", "")
        return _NotYet(f"the API answers {said}{detail}", float(waits) if waits.isdigit() else None)
    fix = _FIXES.get(answer.status, f"api_url: is {address} the API's own address?" if code is None else "")
    if location := answer.headers.get("location"):
        fix = f"api_url: it redirects to {location}; give that address"
    return ReadRefused(f"the API answers {said}{detail}" + (f"; {fix}" if fix else ""), status=answer.status, code=code)
