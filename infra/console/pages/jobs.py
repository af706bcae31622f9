"""The list of jobs: filters in the address, pages by cursor, several cancelled at once."""

from collections.abc import Mapping
from typing import Any, Final, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from consumers.projection.fold import Status
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.job_search import JobFilter, Order, list_jobs
from infra.operations.jobs import cancel, known_jobs, may_be_cancelled
from producers.cancel.cancellation import Cancellation

_STATES: Final = get_args(Status)
_LARGEST_CHOICE: Final = 500


class _Page(BaseModel):
    """The part of the address that is no filter."""

    model_config = ConfigDict(extra="forbid")

    order: Order = "newest"
    limit: int = Field(default=50, ge=1, le=_LARGEST_CHOICE)
    cursor: str | None = None


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(visit: Visit) -> Mapping[str, Any]:
        page, chosen = _read(visit)
        found, total = await list_jobs(desk.database, chosen, order=page.order, limit=page.limit, cursor=page.cursor)
        return {"found": found, "total": total, "states": _STATES, "page": page}

    async def choose(visit: Visit) -> Response:
        """Say what a cancellation of the chosen jobs would do, and ask why."""
        jobs = _chosen(visit)
        known = await known_jobs(desk.database, jobs)
        living = sum(may_be_cancelled(one) for _, one in known)
        unknown = sum(not one.is_known for _, one in known)
        back = visit.fields.get("back", "/jobs")
        return desk.show(visit, "cancel.html", known=known, living=living, unknown=unknown, back=back)

    async def act(visit: Visit) -> Response:
        """Cancel the chosen jobs, one after another; what was done before an outage stays done."""
        because = visit.fields.get("because", "")
        if not because:
            raise Refused("invalid_request", "because: say why; the customers read it")
        cancellation = Cancellation(desk.database, desk.broker, desk.database.clock)
        results = [await cancel(cancellation, job, because=because) for job in _chosen(visit)]
        return desk.show(visit, "cancelled.html", results=results)

    return [
        desk.action("/jobs/cancel", choose),
        desk.action("/jobs/cancel/confirmed", act),
        *desk.live_page("/jobs", "jobs.html", model),
    ]


def _read(visit: Visit) -> tuple[_Page, JobFilter]:
    own = {name: value for name, value in visit.fields.items() if name in _Page.model_fields}
    chosen = JobFilter.model_validate({name: value for name, value in visit.fields.items() if name not in own})
    if chosen.words is not None and not visit.reads_texts:
        # Who may not read a text may not guess at it either.
        raise Refused("invalid_request", "words: viewers do not see requirements, so they cannot look in them")
    return _Page.model_validate(own), chosen


def _chosen(visit: Visit) -> list[UUID]:
    try:
        jobs = list(dict.fromkeys(UUID(one) for one in visit.chosen))
    except ValueError as error:
        raise Refused("invalid_request", "chosen: is not the ID of a job") from error
    if not jobs or len(jobs) > _LARGEST_CHOICE:
        raise Refused("invalid_request", f"choose at least one job and at most {_LARGEST_CHOICE}")
    return jobs
