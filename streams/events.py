"""The events of the pipeline: CloudEvents 1.0 in structured JSON, as frozen Pydantic models.

These models are the single source of the contract. `subject` is the job ID and the partition key; the extension
attribute `run` (1, 2, …) counts the job's replays. Attributes and data fields that a reader does not know are ignored,
so that a newer writer does not break an older reader.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NewType, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from infra.errors import InvalidEvent

JobId = NewType("JobId", UUID)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds the character NUL, which Postgres cannot keep; remove it")
    return text


OrganizationId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_without_nul)]
TeamId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_without_nul)]

# Long enough for any real wish, short enough that a prompt stays within every model's window.
MAX_REQUIREMENTS = 10_000
Requirements: TypeAlias = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REQUIREMENTS),
    AfterValidator(_without_nul),
]

Reason: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500), AfterValidator(_without_nul)
]
DEFAULT_REASON: Final = "cancelled on request"

# Quotas are monthly and prices yearly: who asks for a later day has most likely mistyped it.
LONGEST_DELAY: Final = timedelta(days=366)

_SOURCE = "teamfit"

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and IDs of zeros alone are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[ -~]{1,512}")  # the length that everybody has to pass on


def trace_id_of(traceparent: object) -> str | None:
    """Return the 32 hexadecimal digits of a trace that this names, or None if it is no valid `traceparent`."""
    match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return match.group(1) if match else None


def _traceparent(value: object) -> object:
    # Whoever gets a trace that is no trace goes on without one; a job does not fail of it.
    return value if trace_id_of(value) else None


def _tracestate(value: object) -> object:
    return value if isinstance(value, str) and _TRACESTATE.fullmatch(value) else None


@dataclass(frozen=True, slots=True)
class Trace:
    """The caller's trace, as its W3C headers say it. What is malformed is dropped when an event is made of it."""

    traceparent: str | None = None
    tracestate: str | None = None


NO_TRACE: Final = Trace()


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Wish(_Data):
    organization_id: OrganizationId
    team_id: TeamId
    requirements: Requirements


class Requested(_Wish):
    """What a customer's team asks for."""

    run_at: AwareDatetime | None = Field(
        default=None,
        description="Begin the job no earlier than this, at most 366 days ahead; a past time, or none, means now.",
    )


class CancelRequested(_Data):
    """Somebody wants no activities any more."""

    organization_id: OrganizationId
    reason: Reason = DEFAULT_REASON


class Accepted(_Wish):
    """The request, admitted: quota is reserved."""

    priority: bool = False


class Started(_Data):
    """An LLM call is about to be made."""

    organization_id: OrganizationId
    attempt: int = Field(ge=1)


class Progressed(_Data):
    """A step of the generation that a waiting person may like to see."""

    organization_id: OrganizationId
    step: str


class Completed(_Data):
    """Three activities are saved in `customized_activities`."""

    organization_id: OrganizationId
    model: str
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class Failed(_Data):
    """The run ended without activities; its quota is released."""

    organization_id: OrganizationId
    code: str
    error_message: str


class Rejected(_Data):
    """A business rule refused the run; `code` is stable."""

    organization_id: OrganizationId
    code: str
    message: str


class Cancelled(_Data):
    """Somebody withdrew the job; its quota is released."""

    organization_id: OrganizationId
    reason: str


class _Envelope(BaseModel):
    model_config = ConfigDict(frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_without_nul)]
    source: Annotated[str, StringConstraints(min_length=1, max_length=200)] = _SOURCE
    subject: UUID = Field(description="The job ID.")
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    run: int = Field(default=1, ge=1, le=2**31 - 1)
    # https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
    traceparent: Annotated[str | None, BeforeValidator(_traceparent)] = None
    tracestate: Annotated[str | None, BeforeValidator(_tracestate)] = None

    @property
    def trace_id(self) -> str | None:
        """The trace that led to this event, by which `failed_events` and log lines can be found."""
        return trace_id_of(self.traceparent)

    @property
    def job_id(self) -> JobId:
        """The job this event is about."""
        return JobId(self.subject)

    @property
    def key(self) -> bytes:
        """The partition key: all events of one job share it."""
        return str(self.subject).encode()

    def encode(self) -> bytes:
        """Return the event as CloudEvents JSON, in UTF-8."""
        return self.model_dump_json(exclude_none=True).encode()


class JobRequested(_Envelope):
    """An upstream service asks for activities."""

    type: Literal["teamfit.job.requested.v1"] = "teamfit.job.requested.v1"
    data: Requested


class JobCancelRequested(_Envelope):
    """An upstream service withdraws a job: its newest run is cancelled unless it has ended."""

    type: Literal["teamfit.job.cancel-requested.v1"] = "teamfit.job.cancel-requested.v1"
    data: CancelRequested


class JobAccepted(_Envelope):
    """The quota stage admitted the job."""

    type: Literal["teamfit.job.accepted.v1"] = "teamfit.job.accepted.v1"
    data: Accepted


class JobStarted(_Envelope):
    """The generation stage took the job up."""

    type: Literal["teamfit.job.started.v1"] = "teamfit.job.started.v1"
    data: Started


class JobProgressed(_Envelope):
    """The generation stage got one step further."""

    type: Literal["teamfit.job.progressed.v1"] = "teamfit.job.progressed.v1"
    data: Progressed


class JobCompleted(_Envelope):
    """Terminal: the activities are there."""

    type: Literal["teamfit.job.completed.v1"] = "teamfit.job.completed.v1"
    data: Completed


class JobFailed(_Envelope):
    """Terminal: the run was given up."""

    type: Literal["teamfit.job.failed.v1"] = "teamfit.job.failed.v1"
    data: Failed


class JobRejected(_Envelope):
    """Terminal: the run was refused."""

    type: Literal["teamfit.job.rejected.v1"] = "teamfit.job.rejected.v1"
    data: Rejected


class JobCancelled(_Envelope):
    """Terminal: the run was withdrawn."""

    type: Literal["teamfit.job.cancelled.v1"] = "teamfit.job.cancelled.v1"
    data: Cancelled


JobEvent: TypeAlias = (
    JobRequested
    | JobCancelRequested
    | JobAccepted
    | JobStarted
    | JobProgressed
    | JobCompleted
    | JobFailed
    | JobRejected
    | JobCancelled
)
_ANY_EVENT: TypeAdapter[JobEvent] = TypeAdapter(Annotated[JobEvent, Field(discriminator="type")])


def fact_id(job_id: JobId, run: int, kind: str) -> str:
    """Return the ID of the one fact of this kind in a run.

    It is a function of its arguments, so that a stage which repeats itself after a crash publishes the same event
    again and every reader can tell.
    """
    return str(uuid5(NAMESPACE_URL, f"teamfit:{job_id}:{run}:{kind}"))


def parse_event(raw: bytes | None) -> JobEvent:
    """Read one event from the bytes of a stream entry.

    Raises:
        InvalidEvent: with a message that names each wrong field and what is wrong with it.
    """
    if not raw:
        msg = "event: the entry has no `event` field, or it is empty; put the CloudEvents JSON there"
        raise InvalidEvent(msg)
    try:
        return _ANY_EVENT.validate_json(raw)
    except ValidationError as error:
        raise InvalidEvent(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    """Say which fields are wrong and why, without repeating the input: it may be long or private."""
    complaints = []
    for problem in error.errors(include_url=False, include_input=False, include_context=True):
        # The union puts the event's type in front of the path of each field; the reader knows the type.
        path = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("teamfit."))
        complaints.append(f"{path or 'event'}: {problem['msg']}")
    return "; ".join(complaints)


def job_requested(
    *,
    job_id: JobId,
    organization_id: str,
    team_id: str,
    requirements: str,
    at: datetime,
    run: int = 1,
    source: str = _SOURCE,
    run_at: datetime | None = None,
    trace: Trace = NO_TRACE,
) -> JobRequested:
    """Build the request event of a run. Its ID follows from job and run: sent twice, it counts once.

    Raises:
        pydantic.ValidationError: a value is out of its bounds.
    """
    return JobRequested(
        id=fact_id(job_id, run, "requested"),
        source=source,
        subject=job_id,
        time=at,
        run=run,
        traceparent=trace.traceparent,
        tracestate=trace.tracestate,
        data=Requested(organization_id=organization_id, team_id=team_id, requirements=requirements, run_at=run_at),
    )


def due_at(request: JobRequested, now: datetime) -> datetime | None:
    """Return when a delayed request is to be decided, or None if it is now."""
    run_at = request.data.run_at
    return run_at if run_at is not None and run_at > now else None
