"""The events of the pipeline: CloudEvents 1.0 as frozen Pydantic models, written in structured JSON.

These models are the single source of the contract. `subject` is the job ID and the partition key; the extension
attribute `run` (1, 2, …) counts the job's replays. Attributes and data fields that a reader does not know are ignored,
so that a newer writer does not break an older reader.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

import unicodedata
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NewType, TypeAlias, get_args
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from infra.advice import explained
from infra.clock import Moment
from infra.errors import InvalidEvent, Permanent
from infra.texts import STORABLE
from infra.uuids import GivenUuid
from streams.delivery.cloudevents import UNKNOWN_SOURCE, JsonMediaType, read_attributes, without_zero_time
from streams.delivery.traces import TraceParent, TraceState, trace_id_of

JobId = NewType("JobId", UUID)


_Text: TypeAlias = Annotated[str, STORABLE]
OrganizationId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64), STORABLE]
TeamId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64), STORABLE]

# Long enough for any real wish, short enough that a prompt stays within every model's window.
MAX_REQUIREMENTS = 10_000
Requirements: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REQUIREMENTS), STORABLE
]

MAX_IDEMPOTENCY_KEY: Final = 255


def composed_key(key: object) -> object:
    """Return an idempotency key in its one form: its characters composed, without spaces around it."""
    return unicodedata.normalize("NFC", key).strip() if isinstance(key, str) else key


IdempotencyKey: TypeAlias = Annotated[
    str,
    BeforeValidator(composed_key),
    StringConstraints(min_length=1, max_length=MAX_IDEMPOTENCY_KEY),
    STORABLE,
]

Reason: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500), STORABLE]
DEFAULT_REASON: Final = "cancelled on request"

# Quotas are monthly and prices yearly: who asks for a later day has most likely mistyped it.
LONGEST_DELAY: Final = timedelta(days=366)

DEFAULT_SOURCE = "teamfit"
# In four-byte characters it still fits a third of a page of the archive's index.
_LONGEST_ID: Final = 512
_LONGEST_SOURCE: Final = 2_048


def _no_truth(number: object) -> object:
    # `true` is no number, though Python counts with it.
    return str(number) if isinstance(number, bool) else number


class RunAtTooFar(Permanent, ValueError):
    """A request for a day that is further ahead than anybody may ask for."""

    def __init__(self, run_at: datetime) -> None:
        super().__init__(
            "run_at_too_far",
            f"run_at: {run_at.isoformat()} is more than {LONGEST_DELAY.days} days ahead; request again when it is near",
        )


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:  # noqa: ANN401 - it is whatever somebody sent
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class _Wish(_Data):
    organization_id: OrganizationId
    team_id: TeamId
    requirements: Requirements


class Requested(_Wish):
    """A customer's team asks for these activities."""

    run_at: Annotated[Moment | None, BeforeValidator(without_zero_time)] = Field(
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
    step: _Text
    attempt: int | None = Field(default=None, ge=1, description="As in the JobStarted before it.")
    number: int | None = Field(default=None, ge=1, le=3, description="With the step `activity`: which of the three.")
    title: _Text | None = Field(default=None, description="With the step `activity`: its title.")


class Completed(_Data):
    """Three activities are saved in `customized_activities`."""

    organization_id: OrganizationId
    model: _Text
    prompt_tokens: int | None = Field(default=None, ge=0, description="Absent: the endpoint did not say.")
    completion_tokens: int | None = Field(default=None, ge=0, description="Absent: the endpoint did not say.")


class Failed(_Data):
    """The run ended without activities; its quota is released."""

    organization_id: OrganizationId
    code: _Text
    error_message: _Text


class Rejected(_Data):
    """A business rule refused the run; `code` is stable."""

    organization_id: OrganizationId
    code: _Text
    message: _Text


class Cancelled(_Data):
    """Somebody withdrew the job; its quota is released."""

    organization_id: OrganizationId
    reason: _Text


class _Envelope(BaseModel):
    model_config = ConfigDict(frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_ID), STORABLE]
    source: Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_SOURCE), STORABLE] = Field(
        default=DEFAULT_SOURCE, json_schema_extra={"default": UNKNOWN_SOURCE}
    )
    subject: GivenUuid = Field(description="The job ID.")
    time: Moment = Field(description="When it happened; left out, or never set by the sender, when it was written.")
    datacontenttype: JsonMediaType = "application/json"
    run: Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_no_truth)] = 1
    # https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md
    traceparent: TraceParent = None
    tracestate: TraceState = None

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
    idempotencykey: IdempotencyKey | None = Field(
        default=None, description="The sender's name for the request, if the job ID was made from it; else left out."
    )
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
# What ends a run: each run has one.
TerminalFact: TypeAlias = JobCompleted | JobFailed | JobRejected | JobCancelled
TERMINAL: Final = get_args(TerminalFact)
TERMINAL_TYPES: Final[tuple[str, ...]] = tuple(str(one.model_fields["type"].default) for one in TERMINAL)
TERMINAL_KINDS: Final = tuple(name.split(".")[2] for name in TERMINAL_TYPES)
_ANY_EVENT: TypeAdapter[JobEvent] = TypeAdapter(Annotated[JobEvent, Field(discriminator="type")])


def kind_of(event: JobEvent) -> str:
    """Return "completed" of "teamfit.job.completed.v1"."""
    return event.type.split(".")[2]


def fact_id(job_id: JobId, run: int, kind: str) -> str:
    """Return the ID of the one fact of this kind in a run.

    It is a function of its arguments, so that a stage which repeats itself after a crash publishes the same event
    again and every reader can tell.
    """
    return str(uuid5(NAMESPACE_URL, f"teamfit:{job_id}:{run}:{kind}"))


_NO_HEADERS: Final[Mapping[str, bytes]] = MappingProxyType({})


def parse_event(
    raw: bytes | None, headers: Mapping[str, bytes] = _NO_HEADERS, *, written_at: datetime | None = None
) -> JobEvent:
    """Read one event from a stream entry's bytes and headers. Both CloudEvents modes, structured and binary, are read.

    Args:
        raw: the entry's value.
        headers: the entry's headers.
        written_at: the time of an event that has none of its own.

    Raises:
        InvalidEvent: with a message that names each wrong field and what is wrong with it.
    """
    return event_of(read_attributes(raw, headers, written_at=written_at))


def event_of(attributes: Mapping[str, Any]) -> JobEvent:
    """Read one event from its attributes and `data`. Raises InvalidEvent, as `parse_event` does."""
    try:
        return _ANY_EVENT.validate_python(attributes)
    except ValidationError as error:
        raise InvalidEvent(explained(error)) from error


def due_at(request: Requested, now: datetime) -> datetime | None:
    """Return when a delayed request is to be decided, or None if it is now.

    Raises:
        RunAtTooFar: later than anybody may ask for.
    """
    if request.run_at is None or request.run_at <= now:
        return None
    if request.run_at > now + LONGEST_DELAY:
        raise RunAtTooFar(request.run_at)
    return request.run_at
