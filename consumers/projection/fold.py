"""The fold: what a job's events, one after another, make of its row in `customization_jobs`.

A job moves forward only, in the order of (run, rank): within a run from `pending` over `processing` to one of the
terminal statuses, which all rank the same, and from any of them to a higher run, which starts over. So events that come
twice, late, or in another order change nothing, and folding the archive again gives the same rows. What the order of
arrival does decide is whose the job is: the first event names its organization, and events of any other are ignored.

    run 1: pending ──▶ processing ──▶ completed | failed | cancelled
                │           └──────────────┬──┘
                └──────────────────────────┘           any ──▶ run 2: pending …
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from streams.jobs.events import (
    JobAccepted,
    JobCancelled,
    JobCancelRequested,
    JobCompleted,
    JobEvent,
    JobFailed,
    JobId,
    JobProgressed,
    JobRejected,
    JobRequested,
    JobStarted,
)

Status: TypeAlias = Literal["pending", "processing", "completed", "failed", "cancelled"]

_RANK: dict[Status, int] = {"pending": 0, "processing": 1, "completed": 2, "failed": 2, "cancelled": 2}

# Celery's own names, which its result backend wrote and some rows still hold.
CELERYS_WORDS: dict[str, Status] = {
    "received": "pending",
    "retry": "processing",
    "started": "processing",
    "success": "completed",
    "failure": "failed",
    "revoked": "cancelled",
}


@dataclass(frozen=True, slots=True)
class JobState:
    """One row of the read model. A job without events is at run 0."""

    job_id: JobId
    organization_id: str | None = None
    team_id: str | None = None
    requirements: str | None = None
    run: int = 0
    status: Status = "pending"
    error_code: str | None = None
    error_message: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether the run has ended, in any way."""
        return _ends(self.status)


def fold_all(state: JobState, events: Iterable[JobEvent]) -> JobState:
    """Fold events of one job in the order in which they were archived."""
    for event in events:
        state = fold(state, event)
    return state


def fold(state: JobState, event: JobEvent) -> JobState:
    """Return the job's state after the event. The function is pure, so that a rebuild follows the same rules."""
    if is_foreign(state, event):
        return state
    state = _with_lasting_facts(state, event)
    if event.run < state.run:
        return state
    if event.run > state.run:
        state = _start_over(state, event.run)
    if isinstance(event, JobStarted):
        # A late JobStarted no longer changes the status, but says when the work began.
        state = replace(state, started_at=_earlier(state.started_at, event.time))
    status = _status_after(event)
    return state if _RANK[status] <= _RANK[state.status] else _enter(state, status, event)


def is_foreign(state: JobState, event: JobEvent) -> bool:
    """Return whether the event is of another organization than the job.

    An organization cannot take over another's job.
    """
    return state.organization_id is not None and state.organization_id != event.data.organization_id


def status_of(text: str) -> Status:
    """Return the status of a row's text, one of ours or of Celery's.

    An unknown word counts as processing: a client that polls goes on, and is not told of an end that is not known.
    """
    word = text.lower()
    for status in _RANK:
        if word == status:
            return status
    return CELERYS_WORDS.get(word, "processing")


def _with_lasting_facts(state: JobState, event: JobEvent) -> JobState:
    """Note what holds for all runs: whose the job is, since when it is known, what was asked."""
    state = replace(
        state,
        organization_id=event.data.organization_id,
        created_at=_earlier(state.created_at, event.time),
    )
    if isinstance(event, JobRequested | JobAccepted):
        state = replace(
            state,
            team_id=state.team_id or event.data.team_id,
            requirements=state.requirements or event.data.requirements,
        )
    return state


def _start_over(state: JobState, run: int) -> JobState:
    return replace(
        state, run=run, status="pending", error_code=None, error_message=None, started_at=None, completed_at=None
    )


def _status_after(event: JobEvent) -> Status:
    match event:
        # Whoever asks for a cancellation may come too late; only JobCancelled says that it took place.
        case JobRequested() | JobCancelRequested() | JobAccepted():
            return "pending"
        case JobStarted() | JobProgressed():
            return "processing"
        case JobCompleted():
            return "completed"
        case JobFailed() | JobRejected():
            return "failed"
        case JobCancelled():
            return "cancelled"


def _ends(status: Status) -> bool:
    return _RANK[status] == _RANK["completed"]


def _enter(state: JobState, status: Status, event: JobEvent) -> JobState:
    state = replace(state, status=status, completed_at=event.time if _ends(status) else None)
    match event:
        case JobFailed(data=failed):
            return replace(state, error_code=failed.code, error_message=failed.error_message)
        case JobRejected(data=rejected):
            return replace(state, error_code=rejected.code, error_message=rejected.message)
        case JobCancelled(data=cancelled):
            return replace(state, error_code="cancelled", error_message=cancelled.reason)
        case _:
            return state


def _earlier(known: datetime | None, time: datetime) -> datetime:
    return time if known is None else min(known, time)
