"""The client for upstream services that put requests straight into the stream. It needs only `redis` and `pydantic`.

On `kafka://` it needs `aiokafka` too.

    async with JobRequests.connect("redis://localhost:6379/0") as requests:
        job_id = await requests.submit(
            organization_id="acme", team_id="team-1", requirements="Two hours outdoors", idempotency_key="order-42"
        )

A request is in the broker when `submit` returns; `wait` and `follow` ask the API what becomes of it. Repeats are
harmless: the same
organization and idempotency key are the same job and the same event.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, ValidationError

from infra.advice import explained
from infra.errors import DependencyDown, TeamfitError
from producers.job_reader import (
    DEFAULT_TIMEOUT,
    Activity,
    InvalidApi,
    Job,
    JobNews,
    JobReader,
    ReadRefused,
    StillRunning,
    Token,
)
from producers.kafka_requests import KAFKA, KafkaRequests
from producers.redis_requests import RedisRequests
from streams.jobs.events import (
    DEFAULT_REASON,
    CancelRequested,
    IdempotencyKey,
    JobCancelRequested,
    JobId,
    JobRequested,
    Requested,
    RunAtTooFar,
    due_at,
)
from streams.jobs.facts import fact, job_requested
from streams.jobs.job_ids import job_id_for, needs_proof
from streams.redis.address import advice_on

# Users of a client need these names. The wheel's front has them all, and the blocking client.
__all__ = [
    "Activity",
    "InvalidApi",
    "InvalidArgument",
    "Job",
    "JobId",
    "JobNews",
    "JobReader",
    "JobRequests",
    "ReadRefused",
    "Request",
    "RunAtTooFar",
    "StillRunning",
    "SubmitFailed",
    "job_id_for",
]

_CHUNK = 500  # requests in one round trip: more gain little, and hold up whoever shares the server


# What events call the arguments of ours that have other names.
_ARGUMENTS: Final[Mapping[str, str]] = {"subject": "job_id", "idempotencykey": "idempotency_key"}


class InvalidArgument(TeamfitError, ValueError):
    """A value is out of its bounds, and nothing was sent. The message names each argument and the fix."""


class SubmitFailed(DependencyDown):
    """The broker did not confirm every request; some may be in it all the same.

    Attributes:
        job_ids: the jobs of the requests, in their order, those that were not tried included.
    """

    def __init__(self, message: str, job_ids: Sequence[JobId]) -> None:
        super().__init__("broker", message)
        self.job_ids = job_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for `submit_many`. Without an idempotency key each submission is a job of its own.

    Attributes:
        run_at: begin the job no earlier than this (with a time zone, at most 366 days ahead).
        job_id: the job's ID, if it is yours to give; a repeat under it is the same job.
        requested_at: when it was asked for, if that was earlier (with a time zone); None: now.
    """

    organization_id: str
    team_id: str
    requirements: str
    idempotency_key: str | None = None
    run_at: datetime | None = None
    job_id: UUID | None = None
    requested_at: datetime | None = None


class _Asked(Requested):
    """A request's values, checked under the names of the arguments."""

    idempotency_key: IdempotencyKey | None = None
    job_id: UUID | None = None
    requested_at: AwareDatetime | None = None


class JobRequests:
    """The topic of requests, for writing. Made by `connect`."""

    def __init__(self, outlet: RedisRequests | KafkaRequests, *, source: str, reader: JobReader | None) -> None:
        self._outlet = outlet
        self._source = source
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        broker_url: str,
        *,
        source: str = "upstream",
        partitions: int = 1,
        api_url: str | None = None,
        token: Token | None = None,
    ) -> "AsyncIterator[JobRequests]":
        """Give a client whose connections close when the block ends. The first one opens with the first request.

        Args:
            broker_url: as in the pipeline's BROKER_URL; its `prefix` and `partitions` are obeyed, and how to connect.
            source: your service's name, recorded in each event.
            partitions: as in the pipeline's TEAMFIT_TOPIC_PARTITIONS, unless the URL tells them.
            api_url: the API's address, for `wait` and `follow`.
            token: for them: of your organization, with the scope `jobs`; or a function that returns one.

        Raises:
            ValueError: a URL or the token is not one that can be used; the message names what is wrong with it.
        """
        reader = None if api_url is None else JobReader(api_url, token or "")
        if broker_url.strip().startswith(KAFKA):
            opened: AbstractAsyncContextManager[RedisRequests | KafkaRequests] = KafkaRequests.connect(broker_url)
        else:
            opened = RedisRequests.connect(broker_url, partitions)
        async with opened as outlet:
            yield cls(outlet, source=source, reader=reader)

    async def submit(
        self,
        *,
        organization_id: str,
        team_id: str,
        requirements: str,
        idempotency_key: str | None = None,
        run_at: datetime | None = None,
    ) -> JobId:
        """Return the job of the request, once the broker has it.

        Args:
            organization_id: whose request it is.
            team_id: for which of its teams.
            requirements: what the team wishes, in its own words.
            idempotency_key: your name for the request: with the same key, a repeat is the same job.
            run_at: begin the job no earlier than this (with a time zone, at most 366 days ahead); None or past: now.

        Raises:
            InvalidArgument: a value is out of its bounds; nothing was sent.
            RunAtTooFar: `run_at` is more than 366 days ahead; nothing was sent.
            SubmitFailed: the broker did not confirm. Submit again, with an idempotency key, to be sure.
        """
        request = Request(
            organization_id=organization_id,
            team_id=team_id,
            requirements=requirements,
            idempotency_key=idempotency_key,
            run_at=run_at,
        )
        return (await self.submit_many([request]))[0]

    async def submit_many(self, requests: Iterable[Request]) -> list[JobId]:
        """Return the jobs of the requests, in their order, once the broker has them all. Sent in few round trips.

        Raises:
            InvalidArgument: a value of any request is out of its bounds; nothing was sent.
            RunAtTooFar: the `run_at` of any is more than 366 days ahead; nothing was sent.
            SubmitFailed: the broker did not confirm them all. Submit all again, with idempotency keys, to be sure.
        """
        events = self._events(list(requests))
        job_ids = [event.job_id for event in events]
        remaining = iter(events)
        try:
            while chunk := list(islice(remaining, _CHUNK)):
                await self._outlet.write(chunk)
        except Exception as error:  # whatever the connection raises, the broker did not confirm
            fix = "the requests may or may not have been taken, so submit them again with the same idempotency keys"
            raise SubmitFailed(f"{_unconfirmed(error)}; {fix}", job_ids) from error
        return job_ids

    def _events(self, requests: Sequence[Request]) -> list[JobRequested]:
        events = []
        for number, request in enumerate(requests, start=1):
            try:
                events.append(self._event(request))
            except InvalidArgument as error:
                which = f"request {number} of {len(requests)}: " if len(requests) > 1 else ""
                raise InvalidArgument(f"{which}{error}") from None
        return events

    def _event(self, request: Request) -> JobRequested:
        now = datetime.now(UTC)
        with _naming_arguments():
            asked = _Asked.model_validate(asdict(request))
            event = job_requested(
                job_id=_job_id(asked),
                organization_id=asked.organization_id,
                team_id=asked.team_id,
                requirements=asked.requirements,
                at=min(now, asked.requested_at or now),
                source=self._source,
                run_at=asked.run_at,
                idempotency_key=asked.idempotency_key,
            )
        due_at(event.data, now)
        return event

    async def cancel(self, job_id: JobId, *, organization_id: str, reason: str = DEFAULT_REASON) -> None:
        """Ask for a job to be cancelled. Its status tells whether it was, or had ended before. Repeats are harmless.

        Args:
            job_id: what `submit` returned.
            organization_id: whose job it is; another organization's is left alone.
            reason: why, for people who read the job's status.

        Raises:
            InvalidArgument: a value is out of its bounds; nothing was sent.
            SubmitFailed: the broker did not confirm. Cancel again to be sure.
        """
        with _naming_arguments():
            data = CancelRequested(organization_id=organization_id, reason=reason)
            event = fact(JobCancelRequested, job_id, 1, data, at=datetime.now(UTC), source=self._source)
        try:
            await self._outlet.write([event])
        except Exception as error:  # whatever the connection raises, the broker did not confirm
            fix = f"job {job_id} may or may not be cancelled, so cancel it again"
            raise SubmitFailed(f"{_unconfirmed(error)}; {fix}", [job_id]) from error

    async def wait(self, job_id: JobId, *, timeout: timedelta = DEFAULT_TIMEOUT) -> Job:  # noqa: ASYNC109 - see there
        """Return the job when it has ended. See `JobReader.wait`.

        Raises:
            InvalidArgument: the client was opened without `api_url`.
            StillRunning: it has not ended in this time.
            ReadRefused: the API will not tell.
        """
        return await self._reading.wait(job_id, timeout=timeout)

    def follow(
        self, job_id: JobId, *, after: int = 0, timeout: timedelta = DEFAULT_TIMEOUT
    ) -> AsyncGenerator[JobNews, None]:
        """Yield each event of the job as it comes, until it has ended. See `JobReader.follow`.

        Raises:
            InvalidArgument: the client was opened without `api_url`.
            StillRunning: nothing has come for this long.
            ReadRefused: the API will not tell.
        """
        return self._reading.follow(job_id, after=after, timeout=timeout)

    @property
    def _reading(self) -> JobReader:
        if self._reader is None:
            raise InvalidArgument("api_url: is needed here; connect(…, api_url='https://teamfit.example.com', token=…)")
        return self._reader


@contextmanager
def _naming_arguments() -> Iterator[None]:
    """Raise InvalidArgument in place of Pydantic's error, which repeats values and says of none how to mend it."""
    try:
        yield
    except ValidationError as error:
        message = explained(error)
        for field, argument in _ARGUMENTS.items():
            message = message.replace(f"{field}: ", f"{argument}: ")
        raise InvalidArgument(message) from None


def _job_id(asked: _Asked) -> JobId:
    """Return the ID of a request's job.

    Raises:
        InvalidArgument: the pipeline would not let this request have the ID that it gives.
    """
    made = job_id_for(asked.organization_id, asked.idempotency_key)
    if asked.job_id is None or asked.job_id == made:
        return made
    if asked.idempotency_key is not None or needs_proof(JobId(asked.job_id)):
        raise InvalidArgument("job_id: must be a UUID of a version below 8, without an idempotency_key; leave one out")
    return JobId(asked.job_id)


def _unconfirmed(error: Exception) -> str:
    return f"Connection to broker failed: {type(error).__name__}: {error}{advice_on(error)}"
