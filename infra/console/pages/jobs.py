"""Jobs are listed by filters in the address; each has a page.

The list has pages by cursor, and several jobs are cancelled at once. One job has its timeline, what it cost, what the
customer got, and each event.
"""

from collections.abc import Mapping
from typing import Any, Final, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route

from consumers.projection.fold import Status
from infra.console.desk import Desk
from infra.console.timeline import timeline_of
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.job_content import archived_events, content_of
from infra.operations.job_search import JobFilter, Order, list_jobs
from infra.operations.jobs import cancel, known_jobs, life_of, may_be_cancelled
from producers.cancellation import Cancellation

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


_LARGEST_PLACE: Final = 2**63 - 1
# Of a job with many; the page of its events has all.
MOST_FACTS: Final = 200


def one_job_routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def model(visit: Visit) -> Mapping[str, Any]:
        job_id = UUID(visit.path("job_id"))
        life = await life_of(desk.database, job_id, most_facts=MOST_FACTS)
        content = await content_of(desk.database, job_id) if visit.reads_texts else None
        timeline = timeline_of(life, now=desk.database.clock.now())
        return {"life": life, "more": life.has_more_facts, "content": content, "timeline": timeline}

    async def events(visit: Visit) -> Response:
        after = visit.fields.get("after", "0")
        if not (after.isascii() and after.isdecimal() and int(after) <= _LARGEST_PLACE):
            raise Refused("invalid_request", "after: is not the place of an event; leave it out to begin")
        job_id = UUID(visit.path("job_id"))
        page = await archived_events(desk.database, job_id, after=int(after))
        return desk.show(visit, "job_events.html", job_id=job_id, page=page)

    return [
        desk.page("/jobs/{job_id:uuid}/events", events),
        *desk.live_page("/jobs/{job_id:uuid}", "job.html", model),
    ]
