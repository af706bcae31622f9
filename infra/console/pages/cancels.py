"""Many jobs are cancelled by a plan. Its frozen set is shown first, with its effects."""

from pydantic import Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.applying import Applying, AtRate, PlanPages
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.operations.cancel_plans import CancelApplier, cancel_plans
from infra.operations.job_search import JobFilter
from producers.cancel.cancellation import Cancellation


class _Apply(AtRate):
    """Why, and how fast."""

    because: str = Field(min_length=1, max_length=500)


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans = cancel_plans(desk.database)
    apply = CancelApplier(Cancellation(desk.database, desk.broker, desk.database.clock)).apply

    async def make(visit: Visit) -> Response:
        """Freeze all jobs that the list's filter finds."""
        plan = await plans.make(JobFilter.model_validate(visit.fields), by=visit.session.subject)
        return desk.go(visit, f"/cancels/{plan.id}")

    return [
        desk.action("/cancels", make),
        *PlanPages(desk, applying, plans, apply, _Apply, "/cancels", "cancel_id", "cancel_plan").routes(),
    ]
