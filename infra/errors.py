"""Every error this project raises on purpose. The type decides the treatment, never the text.

TeamfitError
├── InvalidSetting      a setting cannot be used: the process that needs it ends with one line
├── InvalidEvent        dead letter at once: the bytes are not an event this stage can read
│   ├── ForgedEvent     they are, and say what their sender may not say of this job: nothing follows from it
│   └── JobIdReused     they ask for a job with another wish than it was asked for before: nothing follows from it
├── Refused             a refusal with a stable `code`: a JobRejected fact, or the answer to a caller; no failure
│   └── JobNotFound     whoever asks has no such job
├── Transient           this job may succeed later: tried again with backoff, at most `max_attempts` times
├── Postponed           it is not this event's turn yet: it comes again after a while; no attempt is spent
├── Permanent           trying again cannot help: the job fails at once with a stable `code`
└── DependencyDown      Postgres, the broker or the LLM is away: the stage holds; no attempt is spent
    └── RefusesWrites   it answers, and takes no writes now
"""

from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID


class TeamfitError(Exception):
    """Root of the tree."""


class InvalidSetting(TeamfitError):
    """A setting that a process needs has a value that it cannot use.

    Attributes:
        variable: the environment variable. The message begins with it, and says what is wrong and the fix.
    """

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable} {problem}")
        self.variable = variable


class InvalidEvent(TeamfitError):
    """Bytes that are not a valid event. The message names the field and the fix."""


class ForgedEvent(InvalidEvent):
    """An event about another organization's job, or about a decision that no stage made."""


class JobIdReused(InvalidEvent):
    """A second request of an organization for its own job, with another wish. The first one holds."""


class Refused(TeamfitError):
    """A rule said no to whoever asked. `infra.api.problems` has each code's HTTP status.

    Attributes:
        code: stable and machine-readable, e.g. ``quota_exceeded``.
        retry_after: when asking again makes sense, if it ever does.
        reset_at: when the quota that is used up begins anew.
    """

    def __init__(
        self, code: str, message: str, *, retry_after: timedelta | None = None, reset_at: datetime | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.reset_at = reset_at


class JobNotFound(Refused):
    """Whoever asks has no such job."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__("job_not_found", f"job {job_id}: not found; it may belong to another organization")


class Transient(TeamfitError):
    """A failure of this one job that may pass.

    Attributes:
        code: stable and machine-readable, e.g. ``llm_rate_limited``.
        retry_after: the earliest useful next try, when whoever failed has said so.
    """

    def __init__(self, code: str, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class Postponed(TeamfitError):
    """Nothing failed, but the event has to wait for something slow. It waits outside the worker.

    Attributes:
        delay: when it is to come again.
    """

    def __init__(self, message: str, *, delay: timedelta) -> None:
        super().__init__(message)
        self.delay = delay


class Permanent(TeamfitError):
    """A failure of this one job that the same input will always meet again.

    Attributes:
        code: stable and machine-readable, e.g. ``llm_refusal``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# What a stage may wait for: a dependency; `stage` while most deliveries fail; `bug` until a deploy mends it.
Dependency: TypeAlias = Literal["postgres", "broker", "llm", "stage", "bug"]


class DependencyDown(TeamfitError):
    """Something every job needs is away. No job's fault, so no job's attempt is spent.

    Attributes:
        dependency: which.
        retry_after: the earliest useful next try, when the dependency has said so.
    """

    def __init__(self, dependency: Dependency, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.dependency = dependency
        self.retry_after = retry_after


class RefusesWrites(DependencyDown):
    """A dependency answers and takes no writes. The message says why in words that anybody may read: no addresses."""
