"""One job: its timeline, what it cost, what the customer got, each event."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from starlette.responses import Response
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.timeline import timeline_of
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.job_content import archived_events, content_of
from infra.operations.jobs import life_of

_LARGEST_PLACE: Final = 2**63 - 1
# Of a job with many; the page of its events has all.
MOST_FACTS: Final = 200


def routes(desk: Desk) -> list[Route]:
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
