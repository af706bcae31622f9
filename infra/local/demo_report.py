"""The demo's report has the shape that `teamfit demo --json` prints."""

from datetime import datetime
from http import HTTPStatus
from typing import Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, JsonValue

from streams.jobs.events import TERMINAL_TYPES

WayIn: TypeAlias = Literal["http", "client", "xadd"]

_SETTLED = frozenset({"charged", "released", "rejected"})


class Moment(BaseModel):
    """One event of a job, and the seconds since the job was sent."""

    type: str
    time: datetime
    seconds: float


class Job(BaseModel):
    """One job of the demo, as far as it has come.

    Attributes:
        refusal_code: why it was refused, or None.
        quota: what became of its reservation.
    """

    job_id: UUID
    way_in: WayIn
    organization_id: str
    team_id: str
    requirements: str
    sent_at: datetime
    expected_refusal: str | None
    status: str = "pending"
    refusal_code: str | None = None
    message: str | None = None
    quota: str | None = None
    timeline: list[Moment] = []
    activities: list[dict[str, JsonValue]] = []

    @property
    def ended(self) -> bool:
        """Return true if its last event is archived and its quota settled."""
        return any(moment.type in TERMINAL_TYPES for moment in self.timeline) and self.quota in _SETTLED

    @property
    def complaint(self) -> str | None:
        """Return the fault in how it ended, or None."""
        who = f"job {self.job_id} of {self.organization_id}, sent by {self.way_in}"
        if not self.ended:
            return f"{who}: did not end in time; its status is {self.status}"
        if self.refusal_code != self.expected_refusal:
            expected = self.expected_refusal or "three activities"
            return f"{who}: expected {expected}, but got {self.status} {self.refusal_code}: {self.message}"
        if self.expected_refusal is None and (self.status, len(self.activities)) != ("completed", 3):
            return f"{who}: expected three activities, but got {len(self.activities)}; its status is {self.status}"
        return None


class HttpRefusal(BaseModel):
    """The answer of HTTP to a request that the quota stage would refuse."""

    organization_id: str
    expected_status: HTTPStatus
    status: int
    code: str | None

    @property
    def complaint(self) -> str | None:
        """Return the fault in the answer, or None."""
        if self.status == self.expected_status:
            return None
        return f"HTTP should refuse {self.organization_id} with {self.expected_status}, but answered {self.status}"


class Report(BaseModel):
    """All that the demo saw."""

    jobs: list[Job]
    http_refusals: list[HttpRefusal]
    seconds: float

    @property
    def complaints(self) -> list[str]:
        """A sentence about everything that did not end as it should."""
        found = [job.complaint for job in self.jobs] + [refusal.complaint for refusal in self.http_refusals]
        return [complaint for complaint in found if complaint is not None]
