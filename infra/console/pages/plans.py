"""Jobs are cancelled, and failed events discarded or replayed, by plans.

A plan's frozen set is shown first, with its effects. Then it is applied at a rate, paused, aborted: by a task of this
process, see `applying.py`.
"""

from datetime import timedelta
from functools import partial
from typing import Any, Final

from pydantic import Field
from starlette.responses import Response
from starlette.routing import Route

from infra.console.applying import Applying, AtRate, PlanPages
from infra.console.desk import Desk
from infra.console.visits import Visit
from infra.errors import Refused
from infra.operations.cancel_plans import CancelApplier, cancel_plans
from infra.operations.discard_plans import DiscardChoice, apply_discards, discard_plans
from infra.operations.job_search import JobFilter
from producers.cancellation import Cancellation
from producers.replay.apply import Replays
from producers.replay.effects import BECAUSE
from producers.replay.plans import Plans

_WAIT_FOR_QUOTA: Final = timedelta(seconds=30)


def replay_routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes of replays."""
    plans = Plans(desk.database, desk.database.clock)
    replays = Replays(desk.database, desk.broker, desk.database.clock, release_limit=_WAIT_FOR_QUOTA)
    words = {"because": BECAUSE}
    return PlanPages(desk, applying, plans, replays.apply, AtRate, "/replay", "plan_id", "plan", words).routes()


class _ApplyCancel(AtRate):
    """Why, and how fast."""

    because: str = Field(min_length=1, max_length=500)


def cancel_routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes of cancellations."""
    plans = cancel_plans(desk.database)
    apply = CancelApplier(Cancellation(desk.database, desk.broker, desk.database.clock)).apply

    async def make(visit: Visit) -> Response:
        """Freeze all jobs that the list's filter finds."""
        plan = await plans.make(JobFilter.model_validate(visit.fields), by=visit.session.subject)
        return desk.go(visit, f"/cancels/{plan.id}")

    return [
        desk.action("/cancels", make),
        *PlanPages(desk, applying, plans, apply, _ApplyCancel, "/cancels", "cancel_id", "cancel_plan").routes(),
    ]


_CHOOSING: Final = ("chosen", "only_chosen")


class _ApplyDiscard(AtRate):
    """Why, and how fast."""

    because: str = Field(min_length=1, max_length=1_000)


def discard_routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes of discards."""
    plans, apply = discard_plans(desk.database), partial(apply_discards, desk.database)

    async def make(visit: Visit) -> Response:
        """Freeze the chosen failed events, or all open ones that the filter finds."""
        fields: dict[str, Any] = {name: one for name, one in visit.fields.items() if name not in _CHOOSING}
        if "only_chosen" in visit.fields:
            if not visit.chosen:
                raise Refused("invalid_request", "choose at least one failed event")
            fields["failed_events"] = list(dict.fromkeys(visit.chosen))
        plan = await plans.make(DiscardChoice.model_validate(fields), by=visit.session.subject)
        return desk.go(visit, f"/discards/{plan.id}")

    return [
        desk.action("/discards", make),
        *PlanPages(desk, applying, plans, apply, _ApplyDiscard, "/discards", "discard_id", "discard_plan").routes(),
    ]
