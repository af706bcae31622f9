"""Operators say what each plan is given of the fleet. An organization's own weight and cap go before its plan's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiosql

from infra.actions import Act, acting
from infra.errors import TeamfitError
from infra.operations.prices import currency
from infra.postgres import Database

_queries = aiosql.from_path(Path(__file__).with_name("plans.sql"), "asyncpg")


class UnknownPlan(TeamfitError):
    """Nothing is set for this plan."""


@dataclass(frozen=True, slots=True)
class PlanShare:
    """The share of organizations of a plan.

    Attributes:
        plan: its name, as subscriptions have it.
        weight: their share against others'; None: 1.
        max_in_flight: how many runs of each are worked on at once; None: any number.
        requests_per_minute: how many requests each may send; None: any number.
        max_waiting: how many runs of each may wait; None: any number.
        budget: what calls of each may cost in a month, in micro-units of the currency of all prices; None: any sum.
        budget_kind: whether that stops it, or is told.
    """

    plan: str
    weight: float | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    max_waiting: int | None = None
    budget: int | None = None
    budget_kind: str | None = None


async def shares(database: Database) -> Sequence[PlanShare]:
    """Return what is set for plans. One that is not there has weight 1 and no limits."""
    async with database.transaction() as connection:
        return [PlanShare(**row) async for row in _queries.shares(connection)]


async def set_share(database: Database, given: PlanShare, *, no_cap: bool = False) -> PlanShare:
    """Set what is given of a plan's share; None leaves it as it is. It acts on what waits, within a second.

    Args:
        database: where.
        given: of a plan that may have no organization yet; it counts as soon as one has it. 0 runs in flight pause its
            organizations, 0 requests a minute refuse all.
        no_cap: whether any number of runs may be worked on at once, if `max_in_flight` is None.

    Raises:
        WrongPrice: a budget is given, and no model has a price.
    """
    changes = {name: value for name, value in asdict(given).items() if name != "plan" and value is not None}
    act = Act(
        "plan.set", f"plan of subscriptions {given.plan}", effects={**changes, **({"no_cap": True} if no_cap else {})}
    )
    async with acting(database, act) as connection:
        if given.budget is not None:
            await currency(connection)
        row = await _queries.set_share(connection, **asdict(given), no_cap=no_cap)
    return PlanShare(**row)


async def forget_share(database: Database, plan: str) -> None:
    """Forget what was set for a plan: its organizations have weight 1 and no cap. Raises UnknownPlan."""
    async with acting(database, Act("plan.forget", f"plan of subscriptions {plan}")) as connection:
        if not await _queries.forget_share(connection, plan=plan):
            raise UnknownPlan(
                f"plan {plan}: nothing is set for it; `teamfit plan list` has all that something is set for"
            )
