"""A replay plan is shown with its effects, applied at a rate, paused, aborted.

It is applied by a task of this process: see `applying.py`.
"""

from datetime import timedelta
from typing import Final

from starlette.routing import Route

from infra.console.applying import Applying, AtRate, PlanPages
from infra.console.desk import Desk
from producers.replay.apply import Replays
from producers.replay.effects import BECAUSE
from producers.replay.plans import Plans

_WAIT_FOR_QUOTA: Final = timedelta(seconds=30)


def routes(desk: Desk, applying: Applying) -> list[Route]:
    """Return the routes."""
    plans = Plans(desk.database, desk.database.clock)
    replays = Replays(desk.database, desk.broker, desk.database.clock, release_limit=_WAIT_FOR_QUOTA)
    words = {"because": BECAUSE}
    return PlanPages(desk, applying, plans, replays.apply, AtRate, "/replay", "plan_id", "plan", words).routes()
