"""The operators' routes to the running fleet: its processes, and what is wanted of it."""

from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, Problem, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations.controls import (
    InvalidControl,
    UnknownSubject,
    Wish,
    controls,
    effects_of,
    plain,
    processes,
    set_control,
    unset_control,
)
from infra.operations.job_search import Term, TermOrEmpty
from infra.postgres import Database
from streams.jobs.controls import ControlKind

_LONGEST_S = 366 * 86_400


class FleetProcess(BaseModel):
    """A process of the fleet, as it has last told of itself."""

    process: str
    kind: str
    state: str = Field(description="`alive`, `gone` (it gave no sign of life for 15 s) or `ended` (in good order).")
    host: str
    pid: int
    version: str
    stages: list[str]
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    rss_bytes: int
    log_level: str
    doing: list[dict[str, Any]] = Field(description="Of each stage: under way, how much at once, paused, held.")


class FleetControl(BaseModel):
    """Something that is wanted of the fleet."""

    kind: ControlKind
    subject: str
    organization_id: str | None
    value: str | None
    reason: str
    set_by: str
    set_at: datetime
    expires_at: datetime | None


class Fleet(BaseModel):
    """The processes, and what is in force."""

    processes: list[FleetProcess]
    controls: list[FleetControl]


class ControlWish(BaseModel):
    """Something to want of the fleet, or to want no more."""

    model_config = ConfigDict(extra="forbid")

    kind: ControlKind
    subject: TermOrEmpty = Field(
        default="", description="The stage, the process (its ID or how it begins), or the endpoint; empty: the intake."
    )
    organization_id: Term | None = Field(default=None, description="Whose runs alone are paused.")
    value: Term | None = Field(default=None, description="The number, or the log level.")
    reason: TermOrEmpty = Field(default="", description="Why; needed to set one.")
    for_s: float | None = Field(default=None, gt=0, le=_LONGEST_S, description="Seconds; none: until it is ended.")

    def wish(self) -> Wish:
        """Return it as the operations take it."""
        lasts = None if self.for_s is None else timedelta(seconds=self.for_s)
        return Wish(self.kind, self.subject, self.organization_id, self.value, self.reason, lasts)


class ControlAnswer(BaseModel):
    """The answer says what follows, or would."""

    effects: dict[str, Any]


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR, logs=database)
    reads = responses(*TOKEN, "database_unavailable")
    writes = responses(*TOKEN, *BODY, "control_subject_not_found", "database_unavailable")

    @router.get("/workers", responses=reads, dependencies=[Depends(operator)])
    async def list_workers() -> Fleet:
        """List the processes of the fleet and what is in force. Processes that are gone stay for an hour."""
        found = [
            FleetProcess(**{name: getattr(one, name) for name in FleetProcess.model_fields})
            for one in await processes(database)
        ]
        wanted = [plain(one) for one in await controls(database)]
        shown = [FleetControl(**{name: one[name] for name in FleetControl.model_fields}) for one in wanted]
        return Fleet(processes=found, controls=shown)

    @router.post("/controls/effects", responses=writes, dependencies=[Depends(operator)])
    async def show_effects(body: ControlWish) -> ControlAnswer:
        """Say what would follow from a control; nothing is done."""
        try:
            return ControlAnswer(effects=dict(await effects_of(database, body.wish())))
        except (InvalidControl, UnknownSubject) as error:
            raise _problem(error) from error

    @router.post("/controls", responses=writes, dependencies=[Depends(operator)])
    async def set_one(body: ControlWish) -> ControlAnswer:
        """Set a control: pause, concurrency, log level, drain or gate.

        Every process obeys within two seconds, restarts included.
        """
        try:
            return ControlAnswer(effects=dict(await set_control(database, body.wish())))
        except (InvalidControl, UnknownSubject) as error:
            raise _problem(error) from error

    @router.post("/controls/end", responses=writes, dependencies=[Depends(operator)])
    async def end_one(body: ControlWish) -> ControlAnswer:
        """End a control: resume, open, or back to the settings."""
        try:
            return ControlAnswer(effects=dict(await unset_control(database, body.wish())))
        except (InvalidControl, UnknownSubject) as error:
            raise _problem(error) from error

    return router


def _problem(error: InvalidControl | UnknownSubject) -> Problem:
    if isinstance(error, UnknownSubject):
        return Problem(404, "control_subject_not_found", str(error))
    return Problem(422, "invalid_request", str(error))
